"""Windows packed, put together, and back again."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeopt_agent.reports.packing import merge, pack, unpack
from edgeopt_contract.codec import encode
from edgeopt_contract.errors import MessageError
from edgeopt_contract.messages import Telemetry
from edgeopt_contract.profile import merge_cells

SIZES = {"x": 5, "label": 3}
counts = st.integers(0, 2**53 // 100)


@st.composite
def windows(draw: st.DrawFn) -> Telemetry:
    """Any window of one bundle."""
    start = draw(st.integers(0, 2**40))
    values: dict[str, Any] = {
        "start": start,
        "end": start + draw(st.integers(0, 10**6)),
        "rows": draw(counts),
        "errors": draw(counts),
        "cells": {name: tuple(draw(counts) for _ in range(size)) for name, size in SIZES.items()},
        "latency": tuple(draw(counts) for _ in range(4)),
        "infrastructure": draw(st.dictionaries(st.text(max_size=5), st.floats(-1e6, 1e6), max_size=3)),
        "extra": draw(st.dictionaries(st.sampled_from(["hint", "later"]), st.integers(0, 9), max_size=2)),
    }
    return Telemetry(session=7, number=3, bundle="ab" * 32, variant="int8", **values)


@given(windows())
def test_nothing_is_lost_by_packing(window: Telemetry) -> None:
    """Every field comes back, under whatever number; so do the bytes on the wire."""
    assert window == unpack(pack(window), session=7, number=3)
    assert encode(window) == encode(unpack(pack(window), session=7, number=3))


@given(st.lists(windows(), min_size=1, max_size=5))
def test_counts_add_up(parts: list[Telemetry]) -> None:
    """The fleet's own arithmetic is the judge: any grouping gives the same counts, from the first start to the end."""
    packed = [pack(part) for part in parts]
    whole = unpack(merge(packed), session=1, number=1)
    assert merge_cells(*(part.cells for part in parts)) == whole.cells
    assert tuple(map(sum, zip(*(part.latency for part in parts), strict=True))) == whole.latency
    assert (sum(p.rows for p in parts), sum(p.errors for p in parts)) == (whole.rows, whole.errors)
    assert (min(p.start for p in parts), max(p.end for p in parts)) == (whole.start, whole.end)
    assert parts[-1].infrastructure == whole.infrastructure
    if len(packed) > 2:
        assert whole == unpack(merge([merge(packed[:2]), *packed[2:]]), session=1, number=1)


def test_windows_of_other_bundles_have_another_layout() -> None:
    """What may not be added up does not look alike."""
    values: dict[str, Any] = {"session": 1, "number": 1, "start": 0, "end": 1, "rows": 1, "errors": 0, "latency": (1,)}
    layouts = [
        pack(Telemetry(bundle=bundle, variant=variant, cells=cells, **values)).layout
        for bundle, variant, cells in [
            ("ab" * 32, "int8", {"x": (1, 0)}),
            ("ba" * 32, "int8", {"x": (1, 0)}),
            ("ab" * 32, "fp32", {"x": (1, 0)}),
            ("ab" * 32, "int8", {"x": (1, 0, 0)}),
            ("ab" * 32, "int8", {}),
        ]
    ]
    assert 5 == len(set(layouts))


def test_damaged_content_is_a_message_error() -> None:
    """A flipped byte of the spool's file gives the reason, not a wrong count."""
    window = pack(
        Telemetry(
            session=1, number=1, bundle="ab" * 32, variant="v", start=0, end=1, rows=1, errors=0, cells={}, latency=(1,)
        )
    )
    for content in (b"", b"\x93\x80\x80\xc4\x02xx", window.content[:-1]):
        with pytest.raises(MessageError, match="cannot be read"):
            unpack(dataclasses.replace(window, content=content), session=1, number=1)
