"""What every runtime's session does alike: samples in batches go in, whole outputs come out, misfits are refused.

It runs nothing itself: an adapter gives it the inputs' shapes, how many samples one run takes, and the run. Example::

    class FancySession(Batches):
        def _run(self, feeds): return {"y": fancy(feeds["x"])}
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence

import numpy as np

from edgeopt.samples import Array, Sample, chunks, stack
from edgeopt_contract.errors import ModelError
from edgeopt_contract.manifest import TensorSpec

__all__ = ["Batches", "Inputs"]

Inputs = Mapping[str, tuple[str, tuple[int | None, ...]]]  # dtype, shape without batch dimension (None: any length)


class Batches(ABC):
    """A loaded model. The first axis of every input and output is the batch, of at most ``batch`` samples.

    ``converted`` are pairs of dtypes (expected, came) that the adapter converts itself, and checks.
    """

    converted: frozenset[tuple[str, str]] = frozenset()

    def __init__(self, inputs: Inputs, outputs: Sequence[str], batch: int) -> None:
        self._expected = dict(inputs)
        self._outputs = tuple(outputs)
        self._batch = batch

    @property
    def inputs(self) -> dict[str, tuple[str, tuple[int | None, ...]]]:
        """Dtype and shape of each input without batch dimension; ``None`` is any length."""
        return dict(self._expected)

    def predict(self, samples: Sequence[Sample]) -> dict[str, Array]:
        """Return each output for all ``samples``, first axis samples. Raises :class:`ModelError`."""
        return self._predict(samples, self._batch)

    def predict_singly(self, samples: Sequence[Sample]) -> dict[str, Array]:
        """Return the same, one sample at a time: exactly what a device computes."""
        return self._predict(samples, 1)

    def specs(self, sample: Sample) -> tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]]:
        """Return the model's inputs and outputs as they are for ``sample``."""
        outputs = self._checked_run(stack([sample]), 1)
        return _specs(sample.inputs), _specs({name: array[0] for name, array in outputs.items()})

    @abstractmethod
    def _run(self, feeds: dict[str, Array]) -> Mapping[str, Array]:
        """Return the outputs, in arrays of their own, for ``feeds``; raises whatever the runtime raises."""

    def _predict(self, samples: Sequence[Sample], size: int) -> dict[str, Array]:
        parts = [self._checked_run(stack(chunk), len(chunk)) for chunk in chunks(samples, size)]
        return {name: np.concatenate([part[name] for part in parts]) for name in self._outputs}

    def _checked_run(self, feeds: dict[str, Array], count: int) -> dict[str, Array]:
        self._check(feeds)
        try:
            results = self._run(feeds)
        except Exception as error:
            raise ModelError(f"the model failed on the data: {error}") from error
        for name in self._outputs:
            result = results[name]
            if not isinstance(result, np.ndarray) or result.ndim == 0 or len(result) != count:
                shape = getattr(result, "shape", type(result).__name__)
                raise ModelError(f"output '{name}' is {shape} for {count} samples: its first axis must be the batch")
        return {name: results[name] for name in self._outputs}

    def _check(self, feeds: Mapping[str, Array]) -> None:
        """Refuse data that does not fit: some runtimes would cast or reshape it without a word."""
        if set(feeds) != set(self._expected):
            raise ModelError(
                f"the model failed on the data: expected the inputs {sorted(self._expected)}, got {sorted(feeds)}"
            )
        for name, (dtype, shape) in self._expected.items():
            came = feeds[name]
            fits = came.ndim == len(shape) + 1 and all(
                size in (None, length) for size, length in zip(shape, came.shape[1:], strict=True)
            )
            known = came.dtype.name == dtype or (dtype, came.dtype.name) in self.converted
            if not (known and fits):
                wanted = " x ".join("any" if size is None else str(size) for size in shape)
                raise ModelError(
                    f"the model failed on the data: expected {dtype} of shape ({wanted}) for input '{name}', "
                    f"got {came.dtype.name} of shape ({' x '.join(map(str, came.shape[1:]))})"
                )


def _specs(tensors: Mapping[str, Array]) -> tuple[TensorSpec, ...]:
    return tuple(
        TensorSpec(name=name, dtype=array.dtype.name, shape=tuple(array.shape)) for name, array in tensors.items()
    )
