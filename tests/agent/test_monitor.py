"""Windows: every request is counted once, in the right place."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeopt_agent.monitor import Serves, Window
from edgeopt_contract.messages import Telemetry
from edgeopt_contract.profile import (
    FeatureSpec,
    ReferenceFeature,
    Source,
    Summary,
    count_latency,
    count_values,
    summarize,
)

SPEC = FeatureSpec(name="m", source=Source.INPUT, tensor="x", summary=Summary.MEAN, edges=(-1.0, 0.0, 1.0))
FEATURES = [ReferenceFeature(spec=SPEC, counts=(0,) * SPEC.cells, mean=0, std=1)]
SERVES = Serves("ab" * 32, "int8")


def close(window: Window, **options: object) -> Telemetry:
    """Close ``window`` as number 2 of session 1."""
    return window.close(1, 2, **({"end": 20, "gauges": {}} | options))  # type: ignore[arg-type]  # passed on


@given(st.lists(st.tuples(st.floats(-3, 3), st.floats(1, 1e8)), min_size=1, max_size=100))
def test_counts_are_those_of_all_rows_together(rows: list[tuple[float, float]]) -> None:
    """Counting in small batches gives what counting everything at once gives."""
    window = Window(SERVES, FEATURES, start=10)
    for value, microseconds in rows:
        window.count_row({"x": np.full((1, 4), value, np.float32)}, {"y": np.zeros((1, 2))}, microseconds)
    telemetry = close(window)
    batch = np.array([[value] * 4 for value, _ in rows], dtype=np.float32).reshape(-1, 4)
    assert tuple(count_values(SPEC, summarize(SPEC, batch))) == telemetry.cells["m"]
    assert tuple(count_latency([microseconds for _, microseconds in rows])) == telemetry.latency
    assert (len(rows), 0) == (telemetry.rows, telemetry.errors)


def test_window_says_who_served_when_and_how_the_machine_was() -> None:
    """Bundle, variant, times, errors and gauges stand in the message."""
    window = Window(SERVES, FEATURES, start=10)
    window.count_error()
    telemetry = close(window, gauges={"memory_bytes": 5.0})
    assert ("ab" * 32, "int8", 10, 20, 1, {"memory_bytes": 5.0}) == (
        telemetry.bundle,
        telemetry.variant,
        telemetry.start,
        telemetry.end,
        telemetry.errors,
        telemetry.infrastructure,
    )


def test_clock_set_back_does_not_make_an_invalid_window() -> None:
    """A device without a clock battery may jump to the past; its counts are still sent."""
    assert (10, 10) == ((telemetry := close(Window(SERVES, FEATURES, start=10), end=3)).start, telemetry.end)


def test_closing_again_gives_the_same_counts() -> None:
    """A window that could not be kept is closed again later, with everything in it."""
    window = Window(SERVES, FEATURES, start=10)
    row = ({"x": np.zeros((1, 4))}, {"y": np.zeros((1, 2))}, 5.0)
    window.count_row(*row)
    assert 1 == sum(close(window).cells["m"])
    window.count_row(*row)
    assert (2, 2) == (sum(close(window).cells["m"]), sum(close(window).latency))


@pytest.mark.parametrize("rows", [[(1, 3), (1, 5)], [(1, 3), (1, 3)]])
def test_rows_of_varying_shape_are_counted(rows: list[tuple[int, int]]) -> None:
    """A model may answer in another shape each time."""
    window = Window(SERVES, FEATURES, start=10)
    for shape in rows:
        window.count_row({"x": np.zeros(shape)}, {"y": np.zeros(shape)}, 1.0)
    assert len(rows) == sum(close(window).cells["m"])
