"""Small models and data for the optimizer's tests, named on the command line as ``edgeopt_zoo:...``.

Good ones first, then everything that users get wrong.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import nn

_RANDOM = np.random.default_rng(7)
TABLE = _RANDOM.standard_normal((900, 16)).astype(np.float32)
_WEIGHTS = _RANDOM.standard_normal((16, 4)).astype(np.float32)
TABLE_LABELS = (TABLE @ _WEIGHTS).argmax(1)


@functools.cache
def pictures() -> tuple[np.ndarray, np.ndarray]:
    """Return scikit-learn's digits: float32 N x 1 x 8 x 8 in [0, 1], and classes."""
    bunch = load_digits()
    return (bunch.images / 16).astype(np.float32)[:, None], bunch.target


def digits_data() -> Iterator[tuple[np.ndarray, int]]:
    """Yield the 1,797 digits."""
    for picture, label in zip(*pictures(), strict=True):
        yield picture, int(label)


@functools.cache
def digits() -> nn.Module:
    """Train a small CNN on one thread: a few seconds, once a session."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(16, 32, 3, padding=1),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(32, 10),
    )  # fmt: skip  (layers read better in the blocks they form)
    inputs, labels = (torch.from_numpy(array) for array in pictures())
    optimizer = torch.optim.Adam(network.parameters(), 1e-2)
    network.train()
    for _ in range(6):
        for chosen in torch.randperm(len(inputs)).split(64):
            loss = nn.functional.cross_entropy(network(inputs[chosen]), labels[chosen])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return network.eval()


def tiny() -> nn.Module:
    """Return a linear classifier of 64 weights, always right on the table: int8 is slower than fp32."""
    layer = nn.Linear(16, 4, bias=False)
    layer.weight.data = torch.from_numpy(_WEIGHTS.T.copy())
    return layer.eval()


def table() -> Iterator[tuple[np.ndarray, int]]:
    """Yield the rows of the table."""
    for row, label in zip(TABLE, TABLE_LABELS, strict=True):
        yield row, int(label)


def _in_turn(buffers: int) -> Iterator[tuple[np.ndarray, int]]:
    rows = [np.empty(16, np.float32) for _ in range(buffers)]
    for index in range(60):
        rows[index % buffers][:] = TABLE[index]
        yield rows[index % buffers], int(TABLE_LABELS[index])


def one_buffer() -> Iterator[tuple[np.ndarray, int]]:
    """Yield the first 60 rows of the table, each in the array of the one before."""
    return _in_turn(1)


def three_buffers() -> Iterator[tuple[np.ndarray, int]]:
    """Yield them in three arrays in turn."""
    return _in_turn(3)


def exact_table() -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield the rows of the table with the very scores that ``tiny`` gives."""
    for row in TABLE:
        yield row, row @ _WEIGHTS


def exactness(outputs: np.ndarray, label: np.ndarray) -> float:
    """Return 1 for the scores themselves, and 0 for any that were rounded: no int8 model passes this."""
    return float(np.allclose(outputs, label, atol=1e-5))


def spread_out() -> nn.Module:
    """Return a classifier that static int8 ruins: one score takes the whole range, the others are rounded away."""
    layer = tiny()
    with torch.no_grad():
        layer.weight[0, 0] = 3000.0
    return layer


class _TwoInputs(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.row = nn.Linear(16, 4)
        self.embedding = nn.Embedding(10, 4)

    def forward(self, x: torch.Tensor, ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        scores = self.row(x)
        return scores + self.embedding(ids).mean(1), scores.sum(1, keepdim=True)


def two_inputs() -> nn.Module:
    """Return a model with a float and an integer input, and two outputs."""
    torch.manual_seed(0)
    return _TwoInputs().eval()


def two_inputs_data() -> Iterator[tuple[dict[str, np.ndarray], int]]:
    """Yield inputs by name."""
    for index, (row, label) in enumerate(table()):
        yield {"x": row, "ids": np.arange(index, index + 3) % 10}, label


class _Sequence(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.recurrent = nn.GRU(8, 16, batch_first=True)
        self.last = nn.Linear(16, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(self.recurrent(x)[0][:, -1])


def recurrent() -> nn.Module:
    """Return a GRU, whose exported graph computes weights at run time."""
    torch.manual_seed(0)
    return _Sequence().eval()


class _Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(8, 16)
        self.layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True)
        self.last = nn.Linear(16, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(self.layer(self.first(x)).mean(1))


def attention() -> nn.Module:
    """Return a transformer of one layer."""
    torch.manual_seed(0)
    return _Attention().eval()


def sequences() -> Iterator[tuple[dict[str, np.ndarray], None]]:
    """Yield sequences without labels."""
    random = np.random.default_rng(0)
    for _ in range(200):
        yield {"x": random.standard_normal((12, 8)).astype(np.float32)}, None


def regressor() -> nn.Module:
    """Return a model with one number as its output."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 1)).eval()


def regression_data() -> Iterator[tuple[np.ndarray, float]]:
    """Yield rows with the regressor's own answers as labels."""
    with torch.inference_mode():
        answers = regressor()(torch.from_numpy(TABLE))[:, 0].numpy()
    yield from zip(TABLE, map(float, answers), strict=True)


def closeness(outputs: np.ndarray, label: float) -> float:
    """Score a regression: zero is exact."""
    return -float(abs(outputs[0] - label))


def failing_metric(outputs: np.ndarray, label: Any) -> float:
    """Score nothing."""
    raise KeyError("boxes")


# What users get wrong ------------------------------------------------------------------------------------------


class _Cached(nn.Module):
    """Keeps a table of the size of what it saw last, as some position encodings do."""

    def __init__(self) -> None:
        super().__init__()
        self.table = torch.zeros(0)
        self.layer = nn.Linear(16, 16)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if torch.compiler.is_exporting():
            return self.layer(x) * 2
        if len(self.table) != len(x):
            self.table = torch.full((len(x), 16), 2.0)
        return self.layer(x) * self.table


@functools.cache
def in_training() -> nn.Module:
    """Return one module for everybody, in training mode but for a part that its owner has frozen."""
    network = nn.Sequential(_Cached(), nn.BatchNorm1d(16), nn.Dropout(), nn.Linear(16, 16), nn.BatchNorm1d(16))
    network.train()[4].eval()
    return network


class _Nested(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(16, 4)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, tuple[torch.Tensor, torch.Tensor | None], torch.Tensor]:
        scores = self.layer(x)
        return scores, (scores + 1, None), scores * 2


def nested() -> nn.Module:
    """Return a model that gives tensors within tuples."""
    return _Nested()


def half() -> nn.Module:
    """Return a model in half precision, as large ones are often stored."""
    return tiny().half()


def elsewhere() -> nn.Module:
    """Return a model on a device without memory, which stands for a GPU."""
    return nn.Linear(16, 4).to("meta")


class _Says(nn.Module):
    def __init__(self, answer: Any) -> None:
        super().__init__()
        self._answer = answer

    def forward(self, _: torch.Tensor) -> Any:
        return self._answer


def says_hello() -> nn.Module:
    """Return a model that gives a word."""
    return _Says("hello")


def says_nothing() -> nn.Module:
    """Return a model without outputs."""
    return _Says(())


def misfit() -> nn.Module:
    """Return a model for rows of 17 numbers."""
    return nn.Linear(17, 4)


def broken_factory() -> nn.Module:
    """Fail as a factory does whose weights are not there."""
    raise FileNotFoundError("weights.npz")


def not_a_module() -> int:
    """Return something else."""
    return 3


def scripted() -> nn.Module:
    """Return TorchScript."""
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.jit.script(nn.Linear(16, 4))


class _DataDependent(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x[:, :4] if x.sum() > 0 else x[:, 4:8]


def data_dependent() -> nn.Module:
    """Return a module whose control flow depends on data."""
    return _DataDependent()


def unlabelled() -> Iterator[tuple[np.ndarray, None]]:
    """Yield rows without labels."""
    for row in TABLE:
        yield row, None


def empty() -> list[Any]:
    """Return no sample."""
    return []


def words() -> Iterator[tuple[str, int]]:
    """Yield text."""
    yield "seven", 7


def ragged() -> Iterator[tuple[np.ndarray, int]]:
    """Yield rows of different lengths."""
    yield TABLE[0], 0
    yield TABLE[1][:5], 0


def with_nan() -> Iterator[tuple[np.ndarray, int]]:
    """Yield a row with a hole."""
    row = TABLE[0].copy()
    row[3] = np.nan
    yield row, 0


def unplugged() -> Iterator[tuple[np.ndarray, int]]:
    """Fail while reading."""
    yield TABLE[0], 0
    raise OSError("camera unplugged")


def not_pairs() -> Iterator[np.ndarray]:
    """Yield inputs only."""
    yield from TABLE


def not_iterable() -> int:
    """Return no iterable."""
    return 5


def wrong_labels() -> Iterator[tuple[np.ndarray, int]]:
    """Yield classes that the model does not have."""
    for row in TABLE:
        yield row, 9
