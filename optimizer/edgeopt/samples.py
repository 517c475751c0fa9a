"""One labelled sample in memory, and batches of them.

Pure: it reads nothing. Example::

    sample = Sample(inputs={"input": picture}, label=3)     # no batch dimension
    stack([sample, sample])["input"].shape                  # (2, 1, 8, 8)
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

__all__ = ["Array", "Sample", "chunks", "stack"]

Array = npt.NDArray[Any]
T = TypeVar("T")


@dataclass(frozen=True, slots=True, eq=False)
class Sample:
    """Input tensors by name, without batch dimension, and the label (``None``: unknown)."""

    inputs: Mapping[str, Array]
    label: Any


def stack(samples: Sequence[Sample]) -> dict[str, Array]:
    """Return the inputs of ``samples`` as batches; all must have the same names and shapes."""
    return {name: np.stack([sample.inputs[name] for sample in samples]) for name in samples[0].inputs}


def chunks(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    """Yield ``items`` in order in runs of at most ``size``."""
    for start in range(0, len(items), size):
        yield items[start : start + size]
