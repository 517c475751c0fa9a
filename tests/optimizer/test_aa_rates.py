"""A/A: the stopwatch calls equal models equal, on a machine that is busy with other things; figures printed.

The full series of 200 is ``python -m benchmarks.optimizer.aa_timing``.
"""

from __future__ import annotations

import pytest
from scipy import stats

from benchmarks.optimizer.aa_timing import busy, called_different, models
from edgeopt.timing import Plan

pytestmark = pytest.mark.gate_rates

RUNS = 20
RATE = 0.05


@pytest.mark.parametrize("name", ["tiny MLP", "digits int8"])
def test_equal_models_are_seldom_called_different(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """At most as often as a true rate of 5 % gives with a probability of 99.9 %."""
    model, feeds = models()[name]
    with busy(1, seconds=120):
        share = called_different(name, model, feeds, Plan(seconds=0.16), RUNS)
    with capsys.disabled():
        print(f"\n  A/A {share}", end="")
    assert stats.binom.ppf(0.999, RUNS, RATE) >= share.different
