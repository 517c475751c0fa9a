"""What the benchmark of calibration says of its figures."""

from __future__ import annotations

import itertools

import pytest

from benchmarks.optimizer.calibration import FEW, MANY, Measured, claims, table

ONE, FOUR = "edgeopt, one calibrator", "edgeopt, four calibrators"
TOOLS = (ONE, FOUR, "onnxruntime, percentile", "onnxruntime, entropy")


def rows(*, growth: float, cost: float) -> list[Measured]:
    """Return figures in which memory grows and four calibrators cost as said."""
    return [
        Measured(
            tool=tool,
            samples=samples,
            seconds=2.0 * (cost if tool == FOUR else 1.0),
            peak_mib=100.0 * (growth if samples == MANY else 1.0),
        )
        for samples, tool in itertools.product((FEW, MANY), TOOLS)
    ]


@pytest.mark.parametrize(
    ("growth", "cost", "expected"),
    [(1.1, 1.2, ["MET", "MET"]), (1.2, 1.2, ["MISSED", "MET"]), (1.1, 1.4, ["MET", "MISSED"])],
)
def test_each_claim_is_met_or_missed(growth: float, cost: float, expected: list[str]) -> None:
    """By the limits of issue and guide: 1.15 times the memory, 1.3 times the time."""
    assert expected == [claim.partition(":")[0] for claim in claims(rows(growth=growth, cost=cost))]


def test_the_table_has_a_line_for_each_measurement() -> None:
    """With ratios to edgeopt's one calibrator on as many samples."""
    head, *lines = table(rows(growth=1.0, cost=1.25)).splitlines()
    assert 8 == len(lines)
    assert "ratio" in head
    assert "1.25" in lines[1]
