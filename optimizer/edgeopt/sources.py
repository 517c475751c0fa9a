"""From what the user gives as data to three splits that share no sample.

One source is split by content, near-duplicates together; three are taken as they are, and refused when they share a
sample or one that is nearly the same. Example::

    splits = read_splits(DataSources(single="examples.digits:data"), seed=0, metric=metric)
    len(splits.certification), splits.roots
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import combinations
from typing import Any

from edgeopt.data import Dataset, fit_to, load_dataset, need_labels
from edgeopt.files.reading import Reading, Shape
from edgeopt.near_duplicates import near_duplicates
from edgeopt.samples import Sample
from edgeopt.scoring import Metric
from edgeopt.splits import MAX_CALIBRATION, Split, assign, merkle_root, overlap, sample_digest, seeded_order
from edgeopt_contract.errors import DataError, UsageError
from edgeopt_contract.values import digest_of

__all__ = ["DataSources", "SplitData", "read_splits"]

Members = dict[Split, list[Sample]]


@dataclass(frozen=True, slots=True, kw_only=True)
class DataSources:
    """Either ``single``, or all three of the others; ``reading`` says how files among them are read."""

    single: str | None = None
    calibration: str | None = None
    selection: str | None = None
    certification: str | None = None
    reading: Reading = field(default_factory=Reading)

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

    def given(self) -> dict[str, Any]:
        """Return the sources that were given, by the purpose they serve, and how they are read if not as usual."""
        named = {
            "data": self.single,
            "calibration": self.calibration,
            "selection": self.selection,
            "certification": self.certification,
        }
        given: dict[str, Any] = {purpose: source for purpose, source in named.items() if source is not None}
        usual = Reading()
        if self.reading.shape != usual.shape:
            given["input_shape"] = list(self.reading.shape or ())
        if self.reading.label_column != usual.label_column:
            given["label_column"] = self.reading.label_column
        if self.reading.tokens is not None:
            given["tokens"] = asdict(self.reading.tokens)
        return given

    def read(self, source: str, shape: Shape | None) -> Dataset:
        """Return what ``source`` holds; ``shape`` is the model's, used where ``reading`` has none."""
        return load_dataset(source, replace(self.reading, shape=self.reading.shape or shape))


@dataclass(frozen=True, slots=True)
class SplitData:
    """The samples of each split, its Merkle root over their contents and labels, and the names of the classes.

    ``near_duplicates`` counts the samples that edgeopt kept in one split with others that are nearly the same.
    """

    calibration: Sequence[Sample]
    selection: Sequence[Sample]
    certification: Sequence[Sample]
    roots: Mapping[Split, str]
    classes: tuple[str, ...] = ()
    near_duplicates: int = 0

    def fitted(self, inputs: Mapping[str, tuple[str, tuple[int | None, ...]]]) -> SplitData:
        """Return the same with the names and dtypes of a model's ``inputs``; see :func:`edgeopt.data.fit_to`."""
        return replace(
            self,
            calibration=fit_to(self.calibration, inputs),
            selection=fit_to(self.selection, inputs),
            certification=fit_to(self.certification, inputs),
        )

    def sizes(self) -> dict[Split, int]:
        """Return how many samples each split has."""
        return {
            Split.CALIBRATION: len(self.calibration),
            Split.SELECTION: len(self.selection),
            Split.CERTIFICATION: len(self.certification),
        }


def read_splits(sources: DataSources, seed: int, metric: Metric, shape: Shape | None = None) -> SplitData:
    """Read and split; ``shape`` is that of the model's only input, if it is known.

    Raises :class:`DataError` for data that is too small, overlaps, lacks labels or names its classes differently.
    """
    read = _split_one if sources.single else _read_three
    samples, classes, near = read(sources, seed, shape)
    if metric.needs_labels:
        for split in (Split.SELECTION, Split.CERTIFICATION):
            need_labels(samples[split], metric.name)
    return SplitData(
        samples[Split.CALIBRATION],
        samples[Split.SELECTION],
        samples[Split.CERTIFICATION],
        {split: merkle_root([_leaf(sample) for sample in members]) for split, members in samples.items()},
        classes,
        near,
    )


def _split_one(sources: DataSources, seed: int, shape: Shape | None) -> tuple[Members, tuple[str, ...], int]:
    source = str(sources.single)
    dataset = sources.read(source, shape)
    samples = dataset.samples
    digests = [sample_digest(sample.inputs) for sample in samples]
    groups = near_duplicates([sample.inputs for sample in samples])
    try:
        splits = assign(digests, seed, groups)
    except ValueError as error:
        raise DataError(f"{source} is too small to split: {error}") from error
    members: Members = {split: [] for split in Split}
    for sample, split in zip(samples, splits, strict=True):
        members[split].append(sample)
    members[Split.CALIBRATION] = _drawn(members[Split.CALIBRATION], seed)
    return members, dataset.classes, len(set(digests)) - len(set(groups))


def _read_three(sources: DataSources, seed: int, shape: Shape | None) -> tuple[Members, tuple[str, ...], int]:
    named = {
        Split.CALIBRATION: sources.calibration,
        Split.SELECTION: sources.selection,
        Split.CERTIFICATION: sources.certification,
    }
    datasets = {split: sources.read(source, shape) for split, source in named.items() if source is not None}
    samples = {split: dataset.samples for split, dataset in datasets.items()}
    classes = _same_classes({named[split]: dataset.classes for split, dataset in datasets.items() if dataset.classes})
    shared = overlap(
        {split: [sample_digest(sample.inputs) for sample in members] for split, members in samples.items()}
    )
    if shared:
        found = "; ".join(f"{a} and {b} share {count}" for (a, b), count in shared.items())
        raise DataError(f"the splits overlap: {found} samples; remove them from one, or a pass would prove nothing")
    _refuse_near(samples, named)
    samples[Split.CALIBRATION] = _drawn(samples[Split.CALIBRATION], seed)
    return samples, classes, 0


def _refuse_near(samples: Members, named: Mapping[Split, str | None]) -> None:
    """Raise :class:`DataError` when a sample of one split is nearly the same as one of another."""
    places = [(split, index) for split, members in samples.items() for index in range(len(members))]
    groups = near_duplicates([sample.inputs for members in samples.values() for sample in members])
    met: dict[int, dict[Split, int]] = {}  # by group, the first sample of each split
    for (split, index), group in zip(places, groups, strict=True):
        met.setdefault(group, {}).setdefault(split, index)
    shared: dict[tuple[Split, Split], list[tuple[int, int]]] = {}
    for firsts in met.values():
        for a, b in combinations(firsts, 2):
            shared.setdefault((a, b), []).append((firsts[a], firsts[b]))
    if shared:
        found = "; ".join(
            f"{a} and {b} share {len(pairs)}, for instance sample {pairs[0][0]} of {named[a]} and sample {pairs[0][1]} "
            f"of {named[b]}"
            for (a, b), pairs in shared.items()
        )
        raise DataError(
            f"the splits overlap in samples that are nearly the same (copies that were brightened, compressed or "
            f"shifted): {found} (the first sample is 0); remove them from one, or give all as --data"
        )


def _same_classes(classes: Mapping[str | None, tuple[str, ...]]) -> tuple[str, ...]:
    """Return the classes that all sources share: a class more or less would give the others another label."""
    (first, names), *others = classes.items() or [(None, ())]
    for source, other in others:
        if other != names:
            odd = min(set(names) ^ set(other))
            raise DataError(
                f"{first} and {source} do not have the same classes ({odd!r} is in one of them only), so their labels "
                "would differ: add the class, or name the model's classes in order with --labels"
            )
    return names


def _drawn(samples: Sequence[Sample], seed: int) -> list[Sample]:
    """Return at most 512 samples from the whole set: the first of data ordered by class would ruin the ranges."""
    by_digest = {sample_digest(sample.inputs): sample for sample in samples}
    return [by_digest[digest] for digest in seeded_order(list(by_digest), seed)[:MAX_CALIBRATION]]


def _leaf(sample: Sample) -> str:
    return digest_of(f"{sample_digest(sample.inputs)}\0{sample.label!r}".encode())
