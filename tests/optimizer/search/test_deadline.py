"""A long step ends when its time is over."""

from __future__ import annotations

import signal
import threading

import pytest

from edgeopt.search.deadline import OutOfTime, deadline


def _forever() -> None:
    while True:
        pass


def test_a_step_without_end_ends() -> None:
    """The block is left by OutOfTime, which no ``except Exception`` inside of it takes for a failure."""
    with pytest.raises(OutOfTime), deadline(0.01):
        try:
            _forever()
        except Exception:
            pytest.fail("taken for a failure")


def test_afterwards_the_alarm_is_as_it_was() -> None:
    """A step that ends in time leaves no alarm behind."""
    before = signal.getsignal(signal.SIGALRM)
    with deadline(60):
        assert before != signal.getsignal(signal.SIGALRM)
    assert before == signal.getsignal(signal.SIGALRM)
    assert (0.0, 0.0) == signal.getitimer(signal.ITIMER_REAL)


def test_no_limit_and_other_threads_are_left_alone() -> None:
    """Signals reach the main thread only, so elsewhere nothing is interrupted, and nothing fails."""
    with deadline(float("inf")):
        assert (0.0, 0.0) == signal.getitimer(signal.ITIMER_REAL)
    ended: list[bool] = []

    def work() -> None:
        with deadline(0.0):
            ended.append(True)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert [True] == ended
