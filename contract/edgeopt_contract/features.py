"""The records of a profile: features, their cells, and the reference that a bundle carries. No arithmetic, no NumPy.

What the cells mean and how values are counted into them is :mod:`edgeopt_contract.profile`. Example::

    reference = decode(ReferenceProfile, path.read_bytes())
    [(feature.spec.name, feature.spec.cells) for feature in reference.features]
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from math import isfinite
from typing import Any, ClassVar

__all__ = [
    "CONFIDENCE_EDGES",
    "LATENCY_EDGES_US",
    "FeatureSpec",
    "ReferenceFeature",
    "ReferenceProfile",
    "Source",
    "Summary",
]

_SPECIAL_CELLS = 5  # below, above, missing, +inf, -inf

# Fixed for every model, so that confidence compares across versions; finer near one, where classifiers live.
CONFIDENCE_EDGES = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.95, 0.98, 0.99, 0.999, 1.0)
# 10 microseconds to 100 seconds, eight cells a decade; a latency histogram has one cell more than edges.
LATENCY_EDGES_US: tuple[float, ...] = tuple(float(round(10 ** (1 + step / 8), 1)) for step in range(57))


class Source(StrEnum):
    """Whether a feature looks at what goes into the model or at what comes out."""

    INPUT = "input"
    OUTPUT = "output"


class Summary(StrEnum):
    """How one sample of a tensor becomes one number."""

    MEAN = "mean"
    STD = "std"
    SHARPNESS = "sharpness"  # mean absolute difference of neighbours along the last axis
    COLUMN = "column"  # the element at the flat index ``column``
    CONFIDENCE = "confidence"  # the greatest class probability
    ENTROPY = "entropy"  # of the class probabilities, in nats
    TOP1 = "top1"  # index of the greatest score; categorical


@dataclass(frozen=True, slots=True, kw_only=True)
class FeatureSpec:
    """One feature: where it comes from and its cells.

    ``edges`` (strictly increasing, at least two) for a numeric feature, ``categories`` for TOP1.
    ``logits`` says that the output holds unnormalised scores, so a softmax comes first.
    """

    name: str
    source: Source
    tensor: str
    summary: Summary
    column: int | None = None
    logits: bool = False
    edges: tuple[float, ...] = ()
    categories: int = 0

    def __post_init__(self) -> None:
        if self.summary is Summary.TOP1:
            if self.categories < 1 or self.edges:
                raise ValueError(f"{self.name}: a top1 feature has categories and no edges")
        elif (
            len(self.edges) < 2
            or not all(map(isfinite, self.edges))
            or any(a >= b for a, b in zip(self.edges, self.edges[1:], strict=False))
        ):
            raise ValueError(f"{self.name}: expected at least two strictly increasing, finite edges")
        if (self.column is not None) != (self.summary is Summary.COLUMN):
            raise ValueError(f"{self.name}: a column index belongs to, and only to, the summary 'column'")

    @property
    def cells(self) -> int:
        """How many counts this feature has."""
        return self.categories + 1 if self.edges == () else len(self.edges) - 1 + _SPECIAL_CELLS


@dataclass(frozen=True, slots=True, kw_only=True)
class ReferenceFeature:
    """A feature with its counts over the calibration data, and their mean and standard deviation."""

    spec: FeatureSpec
    counts: tuple[int, ...]
    mean: float
    std: float

    def __post_init__(self) -> None:
        if len(self.counts) != self.spec.cells or min(self.counts) < 0:
            raise ValueError(f"{self.spec.name}: expected {self.spec.cells} counts of zero or more")


@dataclass(frozen=True, slots=True, kw_only=True)
class ReferenceProfile:
    """What the model's inputs and outputs looked like when it was packaged; ``profile.json`` of a bundle."""

    SCHEMA: ClassVar[int] = 1
    MAX_BYTES: ClassVar[int] = 1024 * 1024

    rows: int
    features: tuple[ReferenceFeature, ...]
    extra: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        names = [feature.spec.name for feature in self.features]
        if len(set(names)) != len(names):
            raise ValueError("a feature stands twice in the profile")
