"""A long step ends when its time is over."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator

import pytest

from edgeopt.search.deadline import OutOfTime, deadline


def _stubborn() -> None:
    """Go on for ever, whatever fails."""
    while True:
        with contextlib.suppress(Exception):
            while True:
                pass


@pytest.fixture(autouse=True)
def alarm() -> Iterator[None]:
    """Another alarm, far away, such as the test runner's."""
    before = signal.setitimer(signal.ITIMER_REAL, 500)
    yield
    signal.setitimer(signal.ITIMER_REAL, *before)


def test_a_step_without_end_ends() -> None:
    """The block is left by OutOfTime, which no ``except Exception`` inside of it takes for a failure."""
    with pytest.raises(OutOfTime), deadline(0.01):
        _stubborn()


def test_afterwards_the_alarm_is_as_it_was() -> None:
    """A step that ends in time leaves the other alarm, and its handler, in place."""
    before = signal.getsignal(signal.SIGALRM)
    with deadline(60):
        assert before != signal.getsignal(signal.SIGALRM)
    assert before == signal.getsignal(signal.SIGALRM)
    assert 400 < signal.getitimer(signal.ITIMER_REAL)[0] <= 500


@pytest.mark.parametrize("step", ["begins", "has ended"])
def test_time_that_is_over_beside_the_block_leaves_the_alarm_as_it_was(
    step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A busy machine may stop the process there for longer than the limit: the other alarm and its handler go on."""
    handler, really_set = signal.getsignal(signal.SIGALRM), signal.setitimer

    def stopped_meanwhile(which: int, seconds: float, interval: float = 0.0) -> tuple[float, float]:
        ours = 0 < seconds < 100
        if not ours and step == "has ended" and handler != signal.getsignal(signal.SIGALRM):
            monkeypatch.undo()
            signal.raise_signal(signal.SIGALRM)
        before = really_set(which, seconds, interval)
        if ours and step == "begins":
            signal.raise_signal(signal.SIGALRM)
        return before

    monkeypatch.setattr(signal, "setitimer", stopped_meanwhile)
    with pytest.raises(OutOfTime), deadline(60):
        pass
    monkeypatch.undo()
    assert handler == signal.getsignal(signal.SIGALRM)
    assert 400 < signal.getitimer(signal.ITIMER_REAL)[0] <= 500


def test_no_limit_and_other_threads_are_left_alone() -> None:
    """Signals reach the main thread only, so elsewhere nothing is interrupted, and nothing fails."""
    handler = signal.getsignal(signal.SIGALRM)
    with deadline(float("inf")):
        assert handler == signal.getsignal(signal.SIGALRM)
    ended: list[bool] = []

    def work() -> None:
        with deadline(0.0):
            ended.append(True)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert [True] == ended
