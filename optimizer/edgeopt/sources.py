"""From what the user gives as data to three splits that share no sample.

One source is split by content; three are taken as they are, and refused when they overlap. Example::

    splits = read_splits(DataSources(single="examples.digits:data"), seed=0, metric=metric)
    len(splits.certification), splits.roots
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from edgeopt.data import fit_to, load_samples, need_labels
from edgeopt.samples import Sample
from edgeopt.scoring import Metric
from edgeopt.splits import MAX_CALIBRATION, Split, assign, merkle_root, overlap, sample_digest, seeded_order
from edgeopt_contract.errors import DataError, UsageError
from edgeopt_contract.values import digest_of

__all__ = ["DataSources", "SplitData", "read_splits"]


@dataclass(frozen=True, slots=True, kw_only=True)
class DataSources:
    """Either ``single``, or all three of the others."""

    single: str | None = None
    calibration: str | None = None
    selection: str | None = None
    certification: str | None = None

    def __post_init__(self) -> None:
        three = (self.calibration, self.selection, self.certification)
        if self.single is not None and any(three):
            raise UsageError(
                "give either --data, or the three of --calibration-data, --selection-data, --certification-data"
            )
        if self.single is None and not all(three):
            raise UsageError(
                "data is missing: give --data (edgeopt splits it), or all of --calibration-data, --selection-data "
                "and --certification-data"
            )

    def given(self) -> dict[str, str]:
        """Return the sources that were given, by the purpose they serve."""
        named = {
            "data": self.single,
            "calibration": self.calibration,
            "selection": self.selection,
            "certification": self.certification,
        }
        return {purpose: source for purpose, source in named.items() if source is not None}


@dataclass(frozen=True, slots=True)
class SplitData:
    """The samples of each split, and its Merkle root over their contents and labels."""

    calibration: Sequence[Sample]
    selection: Sequence[Sample]
    certification: Sequence[Sample]
    roots: Mapping[Split, str]

    def fitted(self, inputs: Mapping[str, tuple[str, tuple[int | None, ...]]]) -> SplitData:
        """Return the same with the names and dtypes of a model's ``inputs``; see :func:`edgeopt.data.fit_to`."""
        return SplitData(
            fit_to(self.calibration, inputs),
            fit_to(self.selection, inputs),
            fit_to(self.certification, inputs),
            self.roots,
        )

    def sizes(self) -> dict[Split, int]:
        """Return how many samples each split has."""
        return {
            Split.CALIBRATION: len(self.calibration),
            Split.SELECTION: len(self.selection),
            Split.CERTIFICATION: len(self.certification),
        }


def read_splits(sources: DataSources, seed: int, metric: Metric) -> SplitData:
    """Read and split. Raises :class:`DataError` for data that is too small, overlaps or lacks labels."""
    samples = _split_one(sources.single, seed) if sources.single else _read_three(sources, seed)
    if metric.needs_labels:
        for split in (Split.SELECTION, Split.CERTIFICATION):
            need_labels(samples[split], metric.name)
    return SplitData(
        samples[Split.CALIBRATION],
        samples[Split.SELECTION],
        samples[Split.CERTIFICATION],
        {split: merkle_root([_leaf(sample) for sample in members]) for split, members in samples.items()},
    )


def _split_one(source: str, seed: int) -> dict[Split, list[Sample]]:
    samples = load_samples(source)
    digests = [sample_digest(sample.inputs) for sample in samples]
    try:
        splits = assign(digests, seed)
    except ValueError as error:
        raise DataError(f"{source} is too small to split: {error}") from error
    members: dict[Split, list[Sample]] = {split: [] for split in Split}
    for sample, split in zip(samples, splits, strict=True):
        members[split].append(sample)
    members[Split.CALIBRATION] = _drawn(members[Split.CALIBRATION], seed)
    return members


def _read_three(sources: DataSources, seed: int) -> dict[Split, list[Sample]]:
    named = {
        Split.CALIBRATION: sources.calibration,
        Split.SELECTION: sources.selection,
        Split.CERTIFICATION: sources.certification,
    }
    samples = {split: load_samples(source) for split, source in named.items() if source is not None}
    shared = overlap(
        {split: [sample_digest(sample.inputs) for sample in members] for split, members in samples.items()}
    )
    if shared:
        found = "; ".join(f"{a} and {b} share {count}" for (a, b), count in shared.items())
        raise DataError(f"the splits overlap: {found} samples; remove them from one, or a pass would prove nothing")
    samples[Split.CALIBRATION] = _drawn(samples[Split.CALIBRATION], seed)
    return samples


def _drawn(samples: Sequence[Sample], seed: int) -> list[Sample]:
    """Return at most 512 samples from the whole set: the first of data ordered by class would ruin the ranges."""
    by_digest = {sample_digest(sample.inputs): sample for sample in samples}
    return [by_digest[digest] for digest in seeded_order(list(by_digest), seed)[:MAX_CALIBRATION]]


def _leaf(sample: Sample) -> str:
    return digest_of(f"{sample_digest(sample.inputs)}\0{sample.label!r}".encode())
