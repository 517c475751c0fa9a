"""Windows: differences of counts, told as messages."""

from __future__ import annotations

from array import array

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeopt_agent.reports.counts import ERRORS, FEATURES, LATENCY, ROWS, RUNS, Layout
from edgeopt_agent.reports.monitor import Mark, Window, read_marks, write_marks
from edgeopt_contract.errors import MessageError

LAYOUT = Layout(bundle="ab" * 32, variant="int8", features=(("brightness", 3), ("class", 2)))
START = Mark(epoch="e", at=10)
cells = st.lists(st.integers(0, 2**40), min_size=LAYOUT.cells, max_size=LAYOUT.cells).map(lambda n: array("q", n))


@given(st.lists(cells, min_size=1, max_size=4))
def test_windows_add_up_to_the_counts(growths: list[array[int]]) -> None:
    """However a run is cut into windows, their sum is what was counted, cell by cell."""
    mark, counts, windows = START, array("q", bytes(8 * LAYOUT.cells)), []
    for growth in growths:
        counts = array("q", [a + b for a, b in zip(counts, growth, strict=True)])
        windows.append(window := Window.since(mark, LAYOUT, counts, end=20))
        mark = window.mark
    assert list(counts) == [sum(column) for column in zip(*(window.grown for window in windows), strict=True)]


def test_window_says_who_served_when_and_what() -> None:
    """Bundle, variant, times, rows, errors, latencies, cells by feature, and how the machine was."""
    counts = array("q", bytes(8 * LAYOUT.cells))
    counts[ROWS], counts[ERRORS], counts[LATENCY + 3], counts[FEATURES + 1], counts[-1] = 5, 2, 5, 4, 1
    telemetry = Window.since(START, LAYOUT, counts, end=20).telemetry(1, 2, gauges={"memory_bytes": 5.0})
    assert ("ab" * 32, "int8", 10, 20, 5, 2) == (
        telemetry.bundle,
        telemetry.variant,
        telemetry.start,
        telemetry.end,
        telemetry.rows,
        telemetry.errors,
    )
    assert {"brightness": (0, 4, 0), "class": (0, 1)} == telemetry.cells
    assert (5, 5) == (telemetry.latency[3], sum(telemetry.latency))
    assert {"memory_bytes": 5.0} == telemetry.infrastructure


@pytest.mark.parametrize(("cell", "is_empty"), [(RUNS, True), (ROWS, False), (ERRORS, False), (FEATURES, False)])
def test_window_of_features_alone_is_told(cell: int, *, is_empty: bool) -> None:
    """Those of the last answer may be counted after its window; runs of a self-test are no inferences."""
    counts = array("q", bytes(8 * LAYOUT.cells))
    counts[cell] = 1
    assert is_empty is Window.since(START, LAYOUT, counts, end=20).is_empty


def test_clock_set_back_does_not_make_an_invalid_window() -> None:
    """A device without a clock battery may jump to the past; its counts are still sent."""
    window = Window.since(START, LAYOUT, array("q", bytes(8 * LAYOUT.cells)), end=3)
    telemetry = window.telemetry(1, 2, gauges={})
    assert (10, 10) == (telemetry.start, telemetry.end)


@given(st.dictionaries(st.text(max_size=9), cells.map(lambda n: Mark(epoch="e", at=7, cells=n.tobytes())), max_size=2))
def test_marks_survive_being_kept(marks: dict[str, Mark]) -> None:
    """What is written is read, and what was not written is refused."""
    assert marks == read_marks(write_marks(marks))
    with pytest.raises(MessageError, match="marks"):
        read_marks(write_marks(marks)[:-1])
