from __future__ import annotations

import random

import pytest

from edgeopt_fleet.rollout import Pace, Pacing, Threshold, allowance, too_many
from edgeopt_fleet.rollout.thresholds import Failure


def offers(pace: Pace, seconds: float, tick: float, draw: random.Random | None = None) -> list[float]:
    """Return when offers were made, ticking for a while; with ``draw`` the server stands still now and then."""
    pacing, now, made = Pacing(), 1000.0, list[float]()
    while now < 1000.0 + seconds:
        number = allowance(pace, pacing, len(made), len(made), now)
        assert number is not None
        pacing = pacing.after(number, pace.rate(len(made), len(made)), now)
        made += [now] * number
        now += tick if draw is None else draw.choice([tick, tick, 7.0, 90.0])
    return made


@pytest.mark.parametrize("tick", [0.05, 1.0, 5.0, 20.0])
def test_a_constant_rate_is_kept_and_spread(tick: float) -> None:
    """As many a minute as allowed, not all of them in its first second."""
    made = offers(Pace(maximum_per_minute=120), 300, tick)
    earned = 120 / 60 * min(tick, 10) * int((60 - tick) / tick)  # by each tick but the first; ten seconds at most
    assert earned <= sum(at < 1060 for at in made) <= 120
    assert sum(at < 1001 for at in made) <= 3


@pytest.mark.parametrize("seed", range(30))
def test_no_minute_sees_more_than_the_rate(seed: int) -> None:
    """Also after the server stood still: what was missed is not made up for."""
    draw = random.Random(seed)
    most = draw.choice([1, 3, 60, 1000])
    made = offers(Pace(maximum_per_minute=most), 900, draw.choice([0.3, 1.0]), draw)
    assert most >= max(sum(at - 60 < other <= at for other in made) for at in made)
    assert made


def test_an_exponential_rate_grows_with_what_was_notified() -> None:
    """10 a minute, doubled with each 20 devices, up to 60."""
    pace = Pace(maximum_per_minute=60, base_rate_per_minute=10, increment_factor=2.0, number_of_notified_things=20)
    assert [10, 10, 20, 40, 60, 60] == [pace.rate(notified, 0) for notified in (0, 19, 20, 40, 60, 10**9)]


def test_a_rate_that_grows_with_success_does_not_grow_without() -> None:
    """Devices that were notified and did not succeed speed nothing up."""
    pace = Pace(maximum_per_minute=60, base_rate_per_minute=10, increment_factor=1.5, number_of_succeeded_things=5)
    assert [10, 10, 15, 22] == [pace.rate(1000, succeeded) for succeeded in (0, 4, 5, 10)]


@pytest.mark.parametrize(
    "wrong",
    [
        {"maximum_per_minute": 0},
        {"maximum_per_minute": 10, "number_of_notified_things": 5},
        {"maximum_per_minute": 10, "base_rate_per_minute": 5},
        {"maximum_per_minute": 10, "base_rate_per_minute": 11, "number_of_notified_things": 5},
        {"maximum_per_minute": 10, "base_rate_per_minute": 5, "number_of_notified_things": 5, "increment_factor": 1.0},
        {
            "maximum_per_minute": 10,
            "base_rate_per_minute": 5,
            "number_of_notified_things": 5,
            "number_of_succeeded_things": 5,
        },
    ],
)
def test_a_rate_that_cannot_be_is_refused(wrong: dict[str, int]) -> None:
    """One criterion, and a base from 1 to the maximum."""
    with pytest.raises(ValueError, match="expected"):
        Pace(**wrong)  # type: ignore[arg-type]  # that is what is tested


def test_a_threshold_has_a_floor_and_counts_what_was_executed() -> None:
    """Exactly the percentage is allowed; below five executed devices nothing is said."""
    threshold = Threshold(Failure.FAILED, 10.0, 5)
    fine = [(0, 0), (4, 4), (1, 10)]
    assert not any(too_many(threshold, executed, {Failure.FAILED: failed}) for failed, executed in fine)
    assert too_many(threshold, 10, {Failure.FAILED: 2})


def test_each_kind_has_its_own_threshold() -> None:
    """Time-outs do not use up what failures may, but any counts all."""
    failed = {Failure.TIMED_OUT: 3, Failure.FAILED: 1}
    assert not too_many(Threshold(Failure.FAILED, 10.0), 10, failed)
    assert too_many(Threshold(Failure.TIMED_OUT, 10.0), 10, failed)
    assert too_many(Threshold(Failure.ANY, 39.0), 10, failed)
    assert not too_many(Threshold(Failure.ANY, 40.0), 10, failed)
