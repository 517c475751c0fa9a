"""Following one thing over events: what is asked, and when; real servers are in ``test_operate_served``."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any, cast

import pytest

from edgeopt.cli import operate_watch
from edgeopt.fleet_client import FleetClient
from edgeopt.fleet_events import Event
from edgeopt_contract.errors import UnreachableError

READY, OTHER, OURS = (
    Event("ready", "1", {}),
    Event("rollout", "2", {"name": "v1"}),
    Event("rollout", "3", {"name": "v2"}),
)


class Told:
    """A fleet that tells these events, and nothing afterwards."""

    def __init__(self, *events: Event | None) -> None:
        self._events = events
        self.left = False

    def events(self, _topic: str, **_options: object) -> Iterator[Event | None]:
        """Tell."""
        try:
            yield from self._events
        finally:
            self.left = True


class Rollout:
    """A rollout whose answers are states, or failures; the last stays."""

    def __init__(self, *answers: str | Exception) -> None:
        self.answers = list(answers)
        self.asked = 0

    def __call__(self, name: str) -> dict[str, Any]:
        """Answer."""
        assert "v2" == name
        self.asked += 1
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return {"state": answer}


def states(fleet: Told, rollout: Rollout) -> list[str]:
    """Follow to the end, and return what was seen."""
    client = cast(FleetClient, fleet)
    found = operate_watch.follow(client, "rollouts", "v2", rollout, lambda answer: answer["state"] == "succeeded")
    return [answer["state"] for answer in found]


@pytest.fixture(autouse=True)
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Note waiting instead of doing it."""
    waited: list[float] = []
    monkeypatch.setattr(time, "sleep", waited.append)
    return waited


def test_it_asks_at_its_own_events_only(waits: list[float]) -> None:
    """Silence and what happens to others cost nothing; the stream is closed at the end."""
    fleet, rollout = (
        Told(READY, None, OTHER, None, None, OTHER, OURS, OURS, OURS),
        Rollout("running", "paused", "succeeded"),
    )
    assert ["running", "paused", "succeeded"] == states(fleet, rollout)
    assert (3, True, []) == (rollout.asked, fleet.left, waits)


def test_what_is_over_already_is_told_at_once() -> None:
    """Without an event of it."""
    assert ["succeeded"] == states(Told(READY), Rollout("succeeded"))


def test_a_stream_that_was_opened_again_is_reason_to_ask() -> None:
    """The fleet may have been restored from a back-up meanwhile."""
    assert ["running", "succeeded"] == states(Told(READY, READY), Rollout("running", "succeeded"))


def test_failures_apart_from_each_other_do_not_add_up(capsys: pytest.CaptureFixture[str], waits: list[float]) -> None:
    """A network that loses a request now and then is no reason to give up, and is told each time."""
    answers: list[str | Exception] = [UnreachableError("lost"), "running"] * 100
    rollout = Rollout(*answers, UnreachableError("lost"), "succeeded")
    assert 101 == len(states(Told(*[READY] * 101), rollout))
    assert (101, 101) == (len(waits), capsys.readouterr().err.count("events broke off (lost)"))


def test_a_fleet_that_stays_away_is_given_up(waits: list[float]) -> None:
    """After half a minute."""
    with pytest.raises(UnreachableError, match="gone"):
        states(Told(READY), Rollout(UnreachableError("gone")))
    assert 30 == len(waits)
