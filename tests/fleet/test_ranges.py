"""The header Range as RFC 9110, section 14, has it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeopt_fleet.ranges import ByteRange, UnsatisfiableRangeError, wanted_bytes


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("bytes=0-0", (0, 0)),
        ("bytes=10-19", (10, 19)),
        ("bytes=90-", (90, 99)),
        ("bytes=90-1000", (90, 99)),  # section 14.1.2: a last position beyond the end means the end
        ("bytes=-10", (90, 99)),
        ("bytes=-1000", (0, 99)),
    ],
)
def test_a_range_is_what_it_says(header: str, expected: tuple[int, int]) -> None:
    """First and last position, open end, and suffix."""
    wanted = wanted_bytes(header, 100)
    assert wanted is not None
    assert expected == (wanted.first, wanted.last)
    assert f"bytes {wanted.first}-{wanted.last}/100" == str(wanted)


@pytest.mark.parametrize(
    "header", [None, "", "bytes=-", "bytes=5-4", "bytes=0-1,4-5", "items=0-1", "bytes=a-b", "bytes"]
)
def test_what_is_no_range_is_ignored(header: str | None) -> None:
    """Malformed, unknown and several ranges are answered with the whole file."""
    assert wanted_bytes(header, 100) is None


@pytest.mark.parametrize(
    ("header", "size"), [("bytes=100-", 100), ("bytes=100-200", 100), ("bytes=-0", 100), ("bytes=0-", 0)]
)
def test_a_range_outside_of_the_file_is_refused(header: str, size: int) -> None:
    """HTTP 416."""
    with pytest.raises(UnsatisfiableRangeError, match="expected a range within"):
        wanted_bytes(header, size)


@given(st.integers(0, 200), st.integers(0, 200), st.integers(1, 150))
def test_a_range_gives_the_bytes_that_slicing_gives(first: int, last: int, size: int) -> None:
    """Python's slices are the oracle."""
    data = bytes(index % 256 for index in range(size))
    try:
        wanted = wanted_bytes(f"bytes={first}-{last}", size)
    except UnsatisfiableRangeError:
        assert first >= size
        return
    if wanted is None:
        assert last < first
    else:
        assert data[first : last + 1] == data[wanted.first : wanted.last + 1]
        assert len(wanted) == len(data[first : last + 1])
        assert ByteRange(wanted.first, wanted.last, size) == wanted
