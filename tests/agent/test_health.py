"""When a bundle is at fault, and when not yet."""

from __future__ import annotations

from bisect import bisect_right

import pytest

from edgeopt_agent.inference.health import Health, HealthLimits, latency_fault
from edgeopt_contract.features import LATENCY_EDGES_US

LIMITS = HealthLimits(crashes=2, failures=3, least_rows=10, nonfinite=0.1, latency_us=1000.0)


def latencies(*microseconds: float) -> list[int]:
    """Count into the cells of every device."""
    cells = [0] * (len(LATENCY_EDGES_US) + 1)
    for value in microseconds:
        cells[bisect_right(LATENCY_EDGES_US, value)] += 1
    return cells


def test_crashes_and_failures_count_in_a_row() -> None:
    """The limit is a fault that names the last reason; an answer in between starts the count anew."""
    health = Health(LIMITS)
    health.crashed("signal 11")
    health.failed("bad shape")
    health.failed("bad shape")
    assert "" == health.fault
    health.answered(1, 0)
    health.crashed("signal 11")
    assert "" == health.fault
    health.crashed("signal 9")
    assert "2 runner crashes in a row: signal 9" == health.fault
    health.answered(1, 0)
    assert ("", 0, 3) == (health.fault, health.crashes, health.crashes_in_all)
    for _ in range(3):
        health.failed("bad shape")
    assert "3 failed requests in a row: bad shape" == health.fault


@pytest.mark.parametrize(
    ("answers", "is_fault"),
    [
        ([(1, 1)] * 9, False),
        ([(1, 1)] * 10, True),
        ([(1, 0)] * 18 + [(1, 1)] * 2, False),
        ([(1, 0)] * 17 + [(1, 1)] * 3, True),
        ([(20, 3)], True),
        ([(200, 0), (10, 2)], True),
        ([(100, 0), (10, 2)], False),
    ],
)
def test_outputs_that_are_no_numbers(answers: list[tuple[int, int]], *, is_fault: bool) -> None:
    """More than a tenth of enough answers is a fault; long ago good answers do not excuse it for ever."""
    health = Health(LIMITS)
    for rows, nonfinite in answers:
        health.answered(rows, nonfinite)
    assert is_fault == bool(health.fault)


@pytest.mark.parametrize(
    ("latency", "is_fault"),
    [
        (latencies(*[2000.0] * 9), False),
        (latencies(*[2000.0] * 10), True),
        (latencies(*[900.0] * 95, *[2000.0] * 5), False),
        (latencies(*[900.0] * 94, *[2000.0] * 6), True),
        (latencies(*[1e9] * 10), True),
    ],
)
def test_answers_that_come_too_late(latency: list[int], *, is_fault: bool) -> None:
    """More than one in twenty of enough answers is a fault; without a limit none is."""
    assert is_fault == bool(latency_fault(latency, LIMITS))
    assert "" == latency_fault(latency, HealthLimits())
