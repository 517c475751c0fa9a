from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeopt_fleet import rates
from edgeopt_fleet.rates import Limiter, Rate

pytestmark = pytest.mark.rights


def test_a_burst_then_the_rate() -> None:
    """After the burst it is one request each fifth of a second, and the wait that is named is enough."""
    limiter = Limiter(Rate(per_second=5, burst=3))
    assert [0.0, 0.0, 0.0] == [limiter.take("a", 100.0) for _ in range(3)]
    wait = limiter.take("a", 100.0)
    assert 0.2 == pytest.approx(wait)
    assert 0.0 == limiter.take("a", 100.0 + wait)
    assert 0.0 < limiter.take("a", 100.0 + wait)


def test_one_does_not_use_up_another_s(subtests: pytest.Subtests) -> None:
    """Buckets are apart; one that was given back can be taken again; a rate of zero is no limit."""
    limiter = Limiter(Rate(per_second=1, burst=1))
    assert 0.0 == limiter.take("a", 0.0)
    assert 0.0 == limiter.take("b", 0.0)
    limiter.give_back("a")
    assert 0.0 == limiter.take("a", 0.0)
    unlimited = Limiter(Rate(per_second=0, burst=0))
    assert {0.0} == {unlimited.take("a", 0.0) for _ in range(1000)}
    for per_second, burst in ((-1, 1), (1, 0)):
        with subtests.test(burst=burst), pytest.raises(ValueError, match="expected a rate"):
            Rate(per_second, burst)


@given(gaps=st.lists(st.floats(0, 3), min_size=1, max_size=60), rate=st.floats(0.1, 20), burst=st.integers(1, 10))
def test_never_more_than_burst_and_rate_allow(gaps: list[float], rate: float, burst: int) -> None:
    """Whatever comes whenever: in any stretch of time no more gets through than burst + rate x time."""
    limiter = Limiter(Rate(rate, burst))
    now, through = 0.0, []
    for gap in gaps:
        now += gap
        if limiter.take("a", now) == 0.0:
            through.append(now)
    for first in range(len(through)):
        for last in range(first, len(through)):
            assert last - first + 1 <= burst + rate * (through[last] - through[first]) + 1e-6


def test_many_addresses_do_not_fill_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the latest are remembered."""
    monkeypatch.setattr(rates, "_MOST_BUCKETS", 10)
    limiter = Limiter(Rate(per_second=1, burst=1))
    for number in range(100):
        limiter.take(str(number), 0.0)
    assert 10 == len(limiter._buckets)
    assert 0.0 < limiter.take("99", 0.0)
