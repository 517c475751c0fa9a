"""Splits depend on content and seed alone, and share nothing."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeopt.splits import (
    MAX_CALIBRATION,
    MAX_SELECTION,
    Split,
    assign,
    merkle_root,
    overlap,
    sample_digest,
    seeded_order,
)


def _digest(number: int) -> str:
    return hashlib.sha256(str(number).encode()).hexdigest()


numbers = st.lists(st.integers(0, 200), min_size=1, max_size=120).filter(lambda drawn: len(set(drawn)) >= 3)


@given(drawn=numbers, seed=st.integers(0, 5), order=st.randoms())
def test_the_order_of_the_data_does_not_matter(drawn: list[int], seed: int, order: object) -> None:
    """Each sample's split is the same however the data is shuffled."""
    digests = [_digest(number) for number in drawn]
    shuffled = list(digests)
    order.shuffle(shuffled)
    assert dict(zip(digests, assign(digests, seed), strict=True)) == dict(
        zip(shuffled, assign(shuffled, seed), strict=True)
    )


@given(drawn=numbers, seed=st.integers(0, 5))
def test_identical_samples_land_together_and_no_split_is_empty(drawn: list[int], seed: int) -> None:
    """A sample that comes twice never stands in two splits."""
    splits = assign([_digest(number) for number in drawn], seed)
    where: dict[int, set[Split]] = {}
    for number, split in zip(drawn, splits, strict=True):
        where.setdefault(number, set()).add(split)
    assert all(len(found) == 1 for found in where.values())
    assert set(Split) == set(splits)


def test_sizes() -> None:
    """A fifth each for calibration and selection, up to their limits; the rest certifies."""
    small = assign([_digest(number) for number in range(1000)], 0)
    assert [200, 200, 600] == [small.count(split) for split in Split]
    large = assign([_digest(number) for number in range(20_000)], 0)
    assert [MAX_CALIBRATION, MAX_SELECTION] == [large.count(Split.CALIBRATION), large.count(Split.SELECTION)]


def test_another_seed_draws_other_splits() -> None:
    """The seed decides, so that a lucky split can be told from a good model."""
    digests = [_digest(number) for number in range(100)]
    assert assign(digests, 0) != assign(digests, 1)
    assert sorted(digests) == sorted(seeded_order(digests, 1))


def test_too_few_samples_are_refused() -> None:
    """Two distinct samples cannot make three splits, however often they are repeated."""
    with pytest.raises(ValueError, match="at least 3 distinct samples, got 2"):
        assign([_digest(1), _digest(2)] * 10, 0)


def test_a_digest_sees_content_only() -> None:
    """Equal arrays have equal digests; another value, shape, dtype or name has another one."""
    array = np.arange(6, dtype=np.float32)
    same = sample_digest({"x": array})
    assert same == sample_digest({"x": array.copy()[::1]})
    others = [{"x": array + 1}, {"x": array.reshape(2, 3)}, {"x": array.astype(np.float64)}, {"y": array}]
    assert same not in {sample_digest(other) for other in others}


def test_one_duplicate_among_a_thousand_is_found() -> None:
    """Overlap counts distinct shared samples for each pair of splits."""
    shared = overlap(
        {
            Split.CALIBRATION: [_digest(n) for n in range(500)],
            Split.SELECTION: [_digest(n) for n in range(500, 800)],
            Split.CERTIFICATION: [_digest(n) for n in range(799, 1500)],
        }
    )
    assert {(Split.CERTIFICATION, Split.SELECTION): 1} == shared


class TestMerkleRoot:
    """The hash of a split."""

    def test_order_does_not_count_but_every_leaf_does(self) -> None:
        """The same samples in another order are the same split; one other sample is another."""
        leaves = [_digest(number) for number in range(7)]
        assert merkle_root(leaves) == merkle_root(leaves[::-1])
        assert merkle_root(leaves) != merkle_root([*leaves[:-1], _digest(99)])
        assert merkle_root(leaves) != merkle_root(leaves[:-1])

    def test_known_values(self) -> None:
        """Leaf and node are hashed with the prefixes of RFC 6962, section 2.1."""
        one = hashlib.sha256(b"\x00" + bytes.fromhex(_digest(1))).digest()
        two = hashlib.sha256(b"\x00" + bytes.fromhex(_digest(2))).digest()
        first, second = (one, two) if _digest(1) < _digest(2) else (two, one)
        assert one.hex() == merkle_root([_digest(1)])
        assert hashlib.sha256(b"\x01" + first + second).hexdigest() == merkle_root([_digest(1), _digest(2)])
        assert hashlib.sha256(b"").hexdigest() == merkle_root([])


class TestGroups:
    """Samples that are nearly the same."""

    @given(drawn=numbers, seed=st.integers(0, 5), order=st.randoms(), modulus=st.integers(3, 60))
    def test_a_group_stays_together_in_any_order(
        self, drawn: list[int], seed: int, order: object, modulus: int
    ) -> None:
        """Whatever number a group has, its samples share one split, and no split is empty."""
        if len({number % modulus for number in drawn}) < 3:
            return
        shuffled = list(drawn)
        order.shuffle(shuffled)
        found = []
        for numbered, shift in ((drawn, 0), (shuffled, 1000)):
            groups = [number % modulus + shift for number in numbered]
            splits = assign([_digest(number) for number in numbered], seed, groups)
            assert set(Split) == set(splits)
            assert len(set(groups)) == len(set(zip(groups, splits, strict=True)))
            found.append(dict(zip(numbered, splits, strict=True)))
        assert found[0] == found[1]

    def test_groups_of_one_change_nothing(self) -> None:
        """Data without near-duplicates is split as ever."""
        digests = [_digest(number) for number in range(500)]
        assert assign(digests, 3) == assign(digests, 3, range(500))

    def test_a_giant_group_certifies(self) -> None:
        """Calibration and selection keep their sizes, in samples."""
        splits = assign([_digest(number) for number in range(100)], 0, [max(0, number - 60) for number in range(100)])
        assert [20, 19, 61] == [splits.count(split) for split in Split]

    def test_too_few_groups_are_refused(self) -> None:
        """Copies of two pictures cannot make three splits."""
        with pytest.raises(ValueError, match="at least 3 distinct samples that are not nearly the same, got 2"):
            assign([_digest(number) for number in range(10)], 0, [number % 2 for number in range(10)])
