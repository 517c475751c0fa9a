"""``edgeopt shadow``: what is asked of the fleet, what is shown, and how each command exits."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from typing import Any, Self

import click
import pytest
from click.testing import CliRunner

from edgeopt.cli import operate_shadow
from edgeopt.fleet_events import Event
from edgeopt_contract.errors import UsageError

BUNDLE = "3fa94c0d1e2b5a68" * 4
WIDEST = 100


def view(state: str = "running", decision: str | None = None, **changes: Any) -> dict[str, Any]:
    """Return a shadow as the fleet shows it."""
    reasons = ["the challenger agrees on 97.20% of requests (surely on 96.10% to 98.04%, at least 95.00% wanted)"]
    said = None if decision is None else {"at": 1764000000.0, "number": 2, "decision": decision, "reasons": reasons}
    return {
        "name": "digits-3-beside-oslo-harbour", "bundle": BUNDLE, "bundle_name": "digits 3", "cohort": "oslo-harbour",
        "share": 0.1, "until": 1764600000, "state": state, "reason": "", "verdict": said,
        "tally": {"done": 3, "rejected": 2, "shadowing": 100, "superseded": 1, "waiting": 14_894},
    } | changes  # fmt: skip


def agreement(devices: int) -> dict[str, Any]:
    """Return how a challenger agrees."""
    return {
        "at": 1764000000.0,
        "look": {"decision": "recommend", "reasons": view(decision="recommend")["verdict"]["reasons"]},
        "members": 15_000,
        "devices": [
            {"device": f"rotterdam-maasvlakte-gate{number:02}-cam-{14_990 + number}", "compared": 48_012_345,
             "agreed": 47_000_000 - number, "errors": 1_204, "champion_us": 5200.0, "challenger_us": 4100.0}
            for number in range(devices)
        ],
        "classes": [{"label": "forklift truck", "agreed": 180, "disagreed": 20}],
    }  # fmt: skip


class Fleet:
    """A fleet that answers with the same shadow, or with one after the other."""

    def __init__(self, *answers: dict[str, Any], devices: int = 1) -> None:
        self.answers = list(answers)
        self.devices = devices
        self.asked: list[tuple[str, Any]] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def shadow(self, name: str) -> dict[str, Any]:
        """Return the next answer; the last stays."""
        self.asked.append(("shadow", name))
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]

    def events(self, topic: str, seconds: int | None = None, lost: object = None) -> Iterator[Event | None]:
        """Tell of another shadow as often as of this one."""
        assert ("shadows", None, True) == (topic, seconds, callable(lost))
        yield Event("ready", "1", {})
        while True:
            yield from (None, Event("shadow", "2", {"name": "other"}), Event("shadow", "3", {"name": "next"}))

    def shadows(self) -> list[dict[str, Any]]:
        """Return all answers."""
        return self.answers

    def shadow_agreement(self, _name: str) -> dict[str, Any]:
        """Return how it agrees."""
        return agreement(self.devices)

    def create_shadow(self, body: dict[str, Any]) -> dict[str, Any]:
        """Note what is asked for."""
        self.asked.append(("create", body))
        return self.answers[0]

    def create_rollout(self, body: dict[str, Any]) -> dict[str, Any]:
        """Note what is asked for."""
        self.asked.append(("rollout", body))
        return {"name": body["name"], "state": "running"}

    def order_shadow(self, name: str, order: str) -> dict[str, Any]:
        """Note the order."""
        self.asked.append((order, name))
        return self.answers[0]

    def replay_shadow(self, name: str, changes: tuple[str, ...]) -> dict[str, Any]:
        """Return two looks, of which one differs when something was changed."""
        self.asked.append(("replay", (name, changes)))
        looks = [{"number": n, "same": not changes or n == 1, "figures": {"decision": "recommend"}} for n in (1, 2)]
        return {"same": not changes, "items": looks}


Ask = Callable[..., tuple[int, str]]


@pytest.fixture
def ask(monkeypatch: pytest.MonkeyPatch) -> Ask:
    """Give a command to a fleet; return exit code and output. It waits for nothing."""
    monkeypatch.setattr(time, "sleep", lambda _seconds: None)

    def give(fleet: Fleet, *words: str) -> tuple[int, str]:
        monkeypatch.setattr(operate_shadow, "connect", lambda _path: fleet)
        answer = CliRunner().invoke(operate_shadow.shadow, words, standalone_mode=False)
        if answer.exception is not None:
            raise answer.exception
        return int(answer.return_value or 0), answer.output

    return give


def test_create_asks_for_what_was_said_and_leaves_the_rest_to_the_fleet(ask: Ask) -> None:
    """Shares, times and rules in their units; what is not given is not sent."""
    fleet = Fleet(view())
    ask(fleet, "create", "next", "--bundle", "3fa94c", "--for", "2h")
    ((_, body),) = fleet.asked
    assert {"name", "bundle", "cohort", "share", "until", "start"} == set(body)
    assert 7100 < body["until"] - time.time() <= 7200
    fleet = Fleet(view())
    ask(
        fleet, "create", "next", "--bundle", "3fa94c", "--share", "50%", "--at-once", "5", "--rows-each", "200",
        "--minimum-agreement", "97%", "--rule", "minimum_rows=80", "--draft",
    )  # fmt: skip
    ((_, body),) = fleet.asked
    assert {"minimum_rows": 80, "minimum_agreement": 0.97} == body["policy"]
    assert (0.5, 5, 200, False) == (body["share"], body["at_once"], body["rows_each"], body["start"])
    with pytest.raises(UsageError, match="FIELD=NUMBER"):
        ask(fleet, "create", "next", "--bundle", "3fa94c", "--rule", "minimum_rows")


@pytest.mark.parametrize("words", [("list",), ("show", "x"), ("start", "x"), ("end", "x")])
def test_what_is_shown_fits_and_says_what_matters(ask: Ask, words: tuple[str, ...]) -> None:
    """At most 100 columns with the names of a real fleet, and the same as JSON."""
    fleet = Fleet(view(decision="recommend"), devices=50)
    _, text = ask(fleet, *words)
    assert max(map(len, text.splitlines())) <= WIDEST, text
    assert "digits-3-beside-oslo-harbour" in text
    _, plain = ask(fleet, *words, "--json")
    assert json.loads(plain)


def test_show_puts_the_worst_device_first_and_says_why(ask: Ask) -> None:
    """Verdict, reasons, devices by agreement, classes."""
    _, text = ask(Fleet(view(decision="recommend"), devices=50), "show", "x")
    lines = text.splitlines()
    assert "  verdict recommended" in lines
    assert any("agrees on 97.20% of requests" in line for line in lines)
    devices = [line.split()[0] for line in lines if "gate" in line]
    assert "rotterdam-maasvlakte-gate49-cam-15039" == devices[0]
    assert "and 30 devices that agree more" in text
    assert "class forklift truck: 90.00% of 200 rows" in text


@pytest.mark.parametrize(
    ("answers", "code"),
    [
        ((view(), view(decision="not_enough"), view(decision="recommend")), 0),
        ((view(), view(decision="do_not_recommend")), 3),
        ((view(decision="not_enough"), view("ended", "not_enough")), 4),
        ((view("ended"),), 4),
    ],
)
def test_watch_ends_when_it_is_known_what_to_do(ask: Ask, answers: tuple[dict[str, Any], ...], code: int) -> None:
    """A line for each change, and an exit code for scripts."""
    fleet = Fleet(*answers)
    got, text = ask(fleet, "watch", "next")
    assert (code, len(answers)) == (got, len(fleet.asked))
    assert len(answers) == len(text.splitlines())


def test_promote_makes_an_ordinary_rollout_of_what_is_recommended(ask: Ask) -> None:
    """Of the challenger, to the shadow's cohort; one that is not recommended needs a word more."""
    fleet = Fleet(view(decision="recommend"))
    ask(fleet, "promote", "next", "--waves", "10%,100%")
    wanted = {"name": "next", "bundle": BUNDLE, "cohort": "oslo-harbour", "waves": [10, 100], "start": True}
    assert ("rollout", wanted) == fleet.asked[-1]
    for answer in (view(), view(decision="not_enough"), view(decision="do_not_recommend")):
        fleet = Fleet(answer)
        with pytest.raises(UsageError, match="is not recommended"):
            ask(fleet, "promote", "next")
        assert "rollout" not in dict(fleet.asked)
        ask(fleet, "promote", "next", "--anyway", "--rollout", "v3", "--cohort", "lima", "--draft")
        assert ("v3", "lima", False) == tuple(fleet.asked[-1][1][key] for key in ("name", "cohort", "start"))


def test_replay_says_what_differs(ask: Ask) -> None:
    """0 when every verdict is the stored one."""
    code, text = ask(Fleet(view()), "replay", "next")
    assert (0, True) == (code, "2 looks judged again: none differ" in text)
    code, text = ask(Fleet(view()), "replay", "next", "--what-if", "minimum_agreement=0.99")
    assert (0, True) == (code, "1 differ" in text)


def test_every_command_has_an_example() -> None:
    """For newcomers."""
    assert isinstance(operate_shadow.shadow, click.Group)
    for name, command in operate_shadow.shadow.commands.items():
        assert f"edgeopt shadow {name}" in (command.epilog or ""), name
