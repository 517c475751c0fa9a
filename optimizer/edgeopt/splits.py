"""Which sample serves which purpose: calibration, selection and certification never share one.

A split is decided by the content of a sample and a seed alone: the same data gives the same splits in any order, and
samples that are identical, or grouped as near-duplicates (:mod:`edgeopt.near_duplicates`), always land together.
Calibration sets the ranges, selection chooses between candidates,
certification judges the one that was chosen, and so gets the most.

Pure: no I/O; a digest is made from arrays in memory. Example::

    digests = [sample_digest(inputs) for inputs in samples]
    names = assign(digests, seed=0)              # Split.CALIBRATION, Split.CERTIFICATION, …
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = [
    "MAX_CALIBRATION",
    "MAX_SELECTION",
    "SHARE",
    "Split",
    "assign",
    "merkle_root",
    "overlap",
    "sample_digest",
    "seeded_order",
]

SHARE = 0.2  # of the distinct samples, for calibration and for selection each
MAX_CALIBRATION = 512  # ranges hardly move beyond a few hundred samples
MAX_SELECTION = 2000  # enough to tell candidates apart; what is left serves the certification


class Split(StrEnum):
    """What a sample is for."""

    CALIBRATION = "calibration"
    SELECTION = "selection"
    CERTIFICATION = "certification"


def sample_digest(inputs: Mapping[str, npt.NDArray[Any]]) -> str:
    """Return the SHA-256 (hex) of a sample's input tensors: names, dtypes, shapes and bytes. Labels do not count."""
    sha = hashlib.sha256()
    for name in sorted(inputs):
        array = np.ascontiguousarray(inputs[name])
        sha.update(f"{name}\0{array.dtype.str}\0{array.shape}\0".encode())
        sha.update(array.tobytes())
    return sha.hexdigest()


def assign(digests: Sequence[str], seed: int, groups: Sequence[int] | None = None) -> list[Split]:
    """Return the split of each sample, given its digest; samples with the same number in ``groups`` stay together.

    Of the distinct digests, at most a fifth (and 512) goes to calibration, a fifth (and 2,000) to selection, the rest
    to certification; a group that is too large for the first two certifies. Raises ``ValueError`` for fewer than three
    groups of distinct samples: each split needs one.
    """
    members: dict[Any, set[str]] = {}
    for digest, group in zip(digests, digests if groups is None else groups, strict=True):
        members.setdefault(group, set()).add(digest)
    named = {min(together): together for together in members.values()}  # by content: numbers depend on the order
    order = seeded_order(sorted(named), seed)
    if len(order) < len(Split):
        alike = " that are not nearly the same" if len(set(digests)) >= len(Split) else ""
        raise ValueError(f"expected at least {len(Split)} distinct samples{alike}, got {len(order)}")
    sizes = {name: len(together) for name, together in named.items()}
    share = max(1, int(SHARE * sum(sizes.values())))
    calibration = _taken(order, sizes, min(MAX_CALIBRATION, share), leave=2)
    rest = [name for name in order if name not in calibration]
    selection = _taken(rest, sizes, min(MAX_SELECTION, share), leave=1)
    split_of = dict.fromkeys(set(digests), Split.CERTIFICATION)
    for names, split in ((calibration, Split.CALIBRATION), (selection, Split.SELECTION)):
        split_of.update({digest: split for name in names for digest in named[name]})
    return [split_of[digest] for digest in digests]


def _taken(order: Sequence[str], sizes: Mapping[str, int], quota: int, leave: int) -> set[str]:
    """Return the first groups of ``order`` that fit into ``quota`` samples, at least the smallest one."""
    taken: set[str] = set()
    count = 0
    for name in order:
        if count + sizes[name] <= quota and len(taken) < len(order) - leave:
            taken.add(name)
            count += sizes[name]
    return taken or {min(order, key=lambda name: sizes[name])}


def seeded_order(digests: Sequence[str], seed: int) -> list[str]:
    """Return ``digests`` in an order drawn by ``seed`` that does not depend on the order they came in."""
    return sorted(digests, key=lambda digest: hashlib.sha256(f"{seed}\0{digest}".encode()).digest())


def overlap(splits: Mapping[Split, Sequence[str]]) -> dict[tuple[Split, Split], int]:
    """Return how many distinct samples each pair of splits shares; only pairs that share any."""
    names = sorted(splits)
    pairs = [(a, b) for index, a in enumerate(names) for b in names[index + 1 :]]
    shared = {(a, b): len(set(splits[a]) & set(splits[b])) for a, b in pairs}
    return {pair: count for pair, count in shared.items() if count}


def merkle_root(leaves: Sequence[str]) -> str:
    """Return the root (hex) of the Merkle tree over ``leaves`` (hex digests), sorted, as in RFC 6962.

    Sorted, so that the order in which a data source yields its samples does not change it.
    """
    level = [hashlib.sha256(b"\x00" + bytes.fromhex(leaf)).digest() for leaf in sorted(leaves)]
    if not level:
        return hashlib.sha256(b"").hexdigest()
    while len(level) > 1:
        pairs = zip(level[0::2], level[1::2], strict=False)
        odd = level[-1:] if len(level) % 2 else []
        level = [hashlib.sha256(b"\x01" + left + right).digest() for left, right in pairs] + odd
    return level[0].hex()
