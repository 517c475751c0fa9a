"""Cutting: the same everywhere and for ever, within bounds, and little disturbed by a change."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeopt_contract.blocks import MAX_BLOCK_BYTES, MIN_BLOCK_BYTES, Block
from edgeopt_contract.cutting import cut
from edgeopt_contract.values import digest_of


def noise(size: int, seed: int = 0) -> bytes:
    """Bytes without structure, as quantized weights nearly are; the same for ever, whatever NumPy does."""
    return hashlib.shake_128(b"%d" % seed).digest(size)


# Runs of equal bytes cut badly, noise cuts well: data is a mixture of both, with edges in odd places.
pieces = st.tuples(st.integers(0, 255), st.integers(0, 200_000), st.booleans())
mixtures = st.lists(pieces, max_size=4).map(
    lambda parts: b"".join(noise(n, seed) if rough else bytes([seed]) * n for seed, n, rough in parts)
)


@given(data=mixtures)
def test_blocks_in_order_are_the_file(data: bytes) -> None:
    """Sizes and digests describe consecutive pieces that add up to the whole."""
    start = 0
    for block in cut(data):
        assert digest_of(data[start : start + block.size]) == block.sha256
        start += block.size
    assert len(data) == start


@given(data=mixtures)
def test_only_the_last_block_may_be_small_and_none_is_large(data: bytes) -> None:
    """Brokers with a 128 KB limit carry every block, and no file falls into crumbs."""
    *others, last = [block.size for block in cut(data)] or [MIN_BLOCK_BYTES]
    assert all(MIN_BLOCK_BYTES <= size <= MAX_BLOCK_BYTES for size in others)
    assert 0 < last <= MAX_BLOCK_BYTES


def test_an_empty_file_has_no_block() -> None:
    """There is nothing to transfer."""
    assert () == cut(b"")


def test_cutting_is_part_of_the_format() -> None:
    """Whoever changes where blocks end changes every bundle: these digests were taken with version 1."""
    blocks = cut(noise(1_000_000))
    assert [85972, 28949, 17421, 18941] == [block.size for block in blocks[:4]]
    listing = "\n".join(f"{block.sha256} {block.size}" for block in blocks)
    assert "fe50f433f407bc84af7980b491cbc7a47fe9c1f16a57ca6272b109ca057e7567" == digest_of(listing.encode())


def test_blocks_are_about_64_kib() -> None:
    """The number of messages that a bundle costs can be foretold."""
    data = noise(32 << 20)
    mean = len(data) / len(cut(data))
    assert 56 * 1024 < mean < 72 * 1024


@pytest.mark.parametrize("position", [0, 1, 500_000, 1_999_999])
def test_an_insertion_changes_few_blocks(position: int) -> None:
    """Two versions that differ in one place share all but a few blocks."""
    data = noise(4_000_000)
    before = {block.sha256 for block in cut(data)}
    after = {block.sha256 for block in cut(data[:position] + b"inserted" + data[position:])}
    assert len(after - before) <= 3
    assert len(before) > 50


def test_a_changed_byte_changes_few_blocks() -> None:
    """Retrained weights in one layer cost that layer's blocks."""
    data = bytearray(noise(4_000_000))
    before = {block.sha256 for block in cut(bytes(data))}
    data[2_000_000] ^= 1
    assert 1 <= len({block.sha256 for block in cut(bytes(data))} - before) <= 3


def test_equal_parts_of_two_files_share_blocks() -> None:
    """A backbone that two models share is transferred once."""
    backbone = noise(2_000_000)
    one = {block.sha256 for block in cut(noise(70_000, 1) + backbone)}
    two = {block.sha256 for block in cut(noise(90_001, 2) + backbone)}
    assert len(one & two) >= len(cut(backbone)) - 3


def test_the_rolling_hash_is_the_gear_hash() -> None:
    """The vectorised hash equals the recurrence that the paper gives: h = (h << 1) + gear[byte], modulo 2**32."""
    from edgeopt_contract import cutting

    data = np.frombuffer(noise(200_000), dtype=np.uint8)
    expected = []
    rolling = 0
    for position, byte in enumerate(data):
        rolling = ((rolling << 1) + int(cutting._GEAR[byte])) & 0xFFFFFFFF
        if position >= 31 and rolling < cutting._THRESHOLD:
            expected.append(position + 1)
    found = [int(c) for c in cutting._boundary_candidates(data) if c >= 32]
    assert expected == found


@pytest.mark.parametrize("size", [0, -1, MAX_BLOCK_BYTES + 1])
def test_a_block_of_impossible_size_cannot_be_made(size: int) -> None:
    """A manifest cannot announce what no message could carry."""
    with pytest.raises(ValueError, match="expected a block of 1-131072 bytes"):
        Block("0" * 64, size)
