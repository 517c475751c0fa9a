from __future__ import annotations

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from devices.emulator.conditions import Conditions
from devices.emulator.shaping import Shaper


def test_a_perfect_link_delivers_at_once() -> None:
    """Without conditions a packet arrives when it is sent."""
    assert 5.0 == Shaper(Random(0).random).arrival(now=5.0, size=1400, conditions=Conditions())


def test_delay_is_one_way() -> None:
    """200 ms of delay are 200 ms in this direction."""
    assert 5.2 == pytest.approx(
        Shaper(Random(0).random).arrival(now=5.0, size=1400, conditions=Conditions(delay_ms=200))
    )


def test_rate_makes_packets_wait_for_each_other() -> None:
    """At 8000 bits a second, 1000 bytes take a second, and the second thousand two."""
    shaper, slow = Shaper(Random(0).random), Conditions(rate_bits=8000)
    assert [1.0, 2.0, 11.0] == [
        shaper.arrival(now=0.0, size=1000, conditions=slow),
        shaper.arrival(now=0.5, size=1000, conditions=slow),
        shaper.arrival(now=10.0, size=1000, conditions=slow),
    ]


def test_a_full_queue_drops_and_an_emptied_one_takes_again() -> None:
    """What does not fit into the queue is lost at once, and takes no time of the transmitter."""
    shaper, slow = Shaper(Random(0).random), Conditions(rate_bits=8000, queue_bytes=2000)
    arrivals = [shaper.arrival(now=0.0, size=1000, conditions=slow) for _ in range(3)]
    assert [1.0, 2.0, None] == arrivals
    assert 3.0 == shaper.arrival(now=1.0, size=1000, conditions=slow)


def test_loss_is_as_frequent_as_asked() -> None:
    """Of ten thousand packets at 5 % about five hundred are lost: within 4.6 standard deviations."""
    shaper, lossy = Shaper(Random(1).random), Conditions(loss=0.05)
    lost = sum(shaper.arrival(now=float(n), size=100, conditions=lossy) is None for n in range(10_000))
    assert 400 < lost < 600


def test_the_same_seed_loses_the_same_packets() -> None:
    """What is lost follows the seed and not the clock."""
    lossy = Conditions(loss=0.3, jitter_ms=20)

    def losses(seed: int, start: float) -> list[bool]:
        shaper = Shaper(Random(seed).random)
        return [shaper.arrival(now=start + n, size=100, conditions=lossy) is None for n in range(200)]

    assert losses(3, 0.0) == losses(3, 1e6)
    assert losses(3, 0.0) != losses(4, 0.0)


def test_a_link_that_is_down_loses_everything() -> None:
    """Nothing arrives, and nothing is remembered."""
    shaper = Shaper(Random(0).random)
    assert None is shaper.arrival(now=0.0, size=100, conditions=Conditions(down=True, rate_bits=8))
    assert 1.0 == shaper.arrival(now=0.0, size=1, conditions=Conditions(rate_bits=8))


@given(
    st.lists(st.tuples(st.floats(0, 0.3), st.integers(40, 1400)), max_size=60),
    st.floats(0, 300),
    st.floats(0, 300),
    st.sampled_from([0, 9600, 384_000]),
)
def test_packets_arrive_in_order_and_never_early(
    sent: list[tuple[float, int]], delay: float, jitter: float, rate: float
) -> None:
    """Whatever the jitter: no packet overtakes another, and none is faster than delay and rate allow."""
    shaper = Shaper(Random(0).random)
    conditions = Conditions(delay_ms=delay, jitter_ms=jitter, rate_bits=rate)
    now, before = 0.0, 0.0
    for pause, size in sent:
        now += pause
        arrival = shaper.arrival(now=now, size=size, conditions=conditions)
        if arrival is not None:
            least = now + delay / 1000 + (size * 8 / rate if rate else 0)
            assert arrival >= before
            assert arrival >= least - 1e-9
            before = arrival
