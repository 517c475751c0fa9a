"""``edgeopt rollout``: what is asked of the fleet, what is shown, and how watching ends."""

# ruff: noqa: F811  # tests take imported fixtures by their names

from __future__ import annotations

import json
import sys

import pytest

from tests.optimizer.operate_fake import FakeFleet, Run, fleet, problem, rollout_view, run  # noqa: F401  # the fixtures


class TestRollouts:
    """edgeopt rollout."""

    def test_only_what_was_given_is_asked_for(self, run: Run, fleet: FakeFleet) -> None:
        """The fleet's own defaults hold for the rest; units are converted here."""
        code, out, _ = run(
            *("rollout", "create", "v2", "--bundle", "bbbb", "--cohort", "oslo", "--waves", "20%, 50%,100"),
            *("--failure-threshold", "10%", "--bake", "2m", "--minimum-rows", "0", "--max-confidence-drop", "0.05"),
        )
        assert 0 == code
        policy = {"failure_threshold": 0.1, "bake_seconds": 120.0, "minimum_rows": 0, "max_confidence_drop": 0.05}
        assert (
            "POST",
            "rollouts",
            {"name": "v2", "bundle": "bbbb", "cohort": "oslo", "waves": [20, 50, 100], "policy": policy, "start": True},
        ) == fleet.requests[-1]
        assert "v2: digits 2 bbbbbbbbbbbb to cohort all, running" in out

    def test_when_devices_may_switch(self, run: Run, fleet: FakeFleet) -> None:
        """Window, days and the earliest time arrive as the fleet reads them, and --no-recall."""
        code, _, err = run(
            *("rollout", "create", "v2", "--bundle", "bbbb", "--window", "02:00-04:00", "--window-days", "sat,Sun"),
            *("--not-before", "2026-12-01T02:00+01:00", "--no-recall"),
        )
        assert (0, "") == (code, err)
        body = fleet.requests[-1][2]
        window = {"start": "02:00", "end": "04:00", "days": ["sat", "sun"]}
        assert {"window": window, "not_before": 1_796_086_800} == body["policy"]
        assert body["no_recall"] is True

    def test_a_draft_is_not_started(self, run: Run, fleet: FakeFleet) -> None:
        """And without further options the policy is empty."""
        assert "draft" == json.loads(run("rollout", "create", "v2", "--bundle", "b", "--draft", "--json")[1])["state"]
        assert (False, {}) == (fleet.requests[-1][2]["start"], fleet.requests[-1][2]["policy"])

    @pytest.mark.parametrize(
        "option",
        [
            ("--waves", "50%,20%"),
            ("--bake", "soon"),
            ("--failure-threshold", "110%"),
            ("--minimum-rows", "-1"),
            ("--window", "02:00"),
            ("--window", "2-25:00"),
            ("--window-days", "sat,sat"),
            ("--window-days", "someday"),
            ("--window-days", "sat"),
            ("--not-before", "tomorrow"),
        ],
    )
    def test_a_wrong_option_is_named(self, run: Run, fleet: FakeFleet, option: tuple[str, str]) -> None:
        """Exit code 2 with the option's name; the fleet is not asked."""
        code, _, err = run("rollout", "create", "v2", "--bundle", "b", *option)
        assert 2 == code
        assert option[0] in err
        assert [] == fleet.requests

    def test_a_taken_name_is_exit_code_2(self, run: Run) -> None:
        """A conflict is in the fleet's words."""
        code, _, err = run("rollout", "create", "taken", "--bundle", "b")
        assert (2, "error: the fleet refuses: there is a rollout 'taken' already\n") == (code, err)

    def test_orders(self, run: Run, fleet: FakeFleet) -> None:
        """Each order is a command; one that the state does not allow is exit code 2."""
        code, out, _ = run("rollout", "pause", "v2")
        assert 0 == code
        assert "paused" in out
        for order in ("start", "resume", "cancel", "roll-back"):
            code, _, err = run("rollout", order, "v2")
            assert (2, f"error: the fleet refuses: cannot {order} a succeeded one\n") == (code, err)
            assert ("POST", f"rollouts/v2/{order}", None) == fleet.requests[-1]

    def test_list_and_show(self, run: Run, fleet: FakeFleet) -> None:
        """One line a rollout; a page for one of them, with the gate's reasons."""
        fleet.script = [(200, {**rollout_view("running"), "verdicts": [VERDICT]})]
        assert ["v2", "b" * 12, "all", "running", "1", "of", "2"] == run("rollout")[1].splitlines()[1].split()[:7]
        out = run("rollout", "show", "v2")[1]
        assert "gate on wave 1: hold: cam-0 has served 3 of 50 rows" in out
        assert "downloading" in out


VERDICT = {"at": 1, "wave": 0, "verdict": "hold", "reasons": ["cam-0 has served 3 of 50 rows"]}
DOWNLOADING = rollout_view("running")
SECOND_WAVE = {**rollout_view("running", waves=("passed", "running"), confirmed=1), "verdicts": [VERDICT]}
SUCCEEDED = rollout_view("succeeded", waves=("passed", "passed"), confirmed=2)
ROLLED_BACK = rollout_view("rolled_back", waves=("failed", "waiting"))


class TestWatch:
    """edgeopt rollout watch."""

    def test_each_change_is_told_once(self, run: Run, fleet: FakeFleet) -> None:
        """Looking more often tells nothing twice, and the end is exit code 0."""
        fleet.script = [(200, view) for view in (DOWNLOADING, DOWNLOADING, SECOND_WAVE, SECOND_WAVE, SUCCEEDED)]
        code, out, _ = run("rollout", "watch", "v2")
        assert 0 == code
        assert [
            "wave 1: cam-0 downloading",
            "wave 1 (50%) running: 0 of 1 confirmed, 0 failed",
            "rollout v2 running",
            "wave 1: cam-0 confirmed",
            "wave 2: cam-1 downloading",
            "gate on wave 1: hold: cam-0 has served 3 of 50 rows",
            "wave 1 (50%) passed: 1 of 1 confirmed, 0 failed",
            "wave 2 (100%) running: 0 of 1 confirmed, 0 failed",
            "wave 2: cam-1 confirmed",
            "wave 2 (100%) passed: 1 of 1 confirmed, 0 failed",
            "rollout v2 succeeded",
        ] == out.splitlines()

    @pytest.mark.parametrize(("state", "expected"), [("succeeded", 0), ("rolled_back", 3), ("cancelled", 3)])
    def test_exit_code_says_how_it_ended(self, run: Run, fleet: FakeFleet, state: str, expected: int) -> None:
        """In all three ways of showing it a script can rely on the code."""
        fleet.script = [(200, rollout_view(state))]
        assert expected == run("rollout", "watch", "v2")[0]
        assert expected == run("rollout", "watch", "v2", "--json")[0]

    def test_machines_get_a_line_for_each_change(self, run: Run, fleet: FakeFleet) -> None:
        """JSON Lines: the whole rollout each time, and the last line is the end."""
        fleet.script = [(200, view) for view in (DOWNLOADING, DOWNLOADING, ROLLED_BACK)]
        code, out, _ = run("rollout", "watch", "v2", "--json")
        assert 3 == code
        assert [DOWNLOADING, ROLLED_BACK] == [json.loads(line) for line in out.splitlines()]

    def test_a_restarting_fleet_is_waited_for(self, run: Run, fleet: FakeFleet) -> None:
        """A server killed in the middle of a rollout does not end the watching."""
        fleet.script = [(200, DOWNLOADING), problem(503, "starting"), problem(503, "starting"), (200, SUCCEEDED)]
        code, _, err = run("rollout", "watch", "v2")
        assert 0 == code
        assert 1 == err.count("the fleet's events broke off"), "told once"
        assert "not ready (starting)" in err

    def test_a_fleet_that_stays_away_is_exit_code_5(self, run: Run, fleet: FakeFleet) -> None:
        """Patience ends: after as many failures in a row as a restart can explain."""
        fleet.script = [(200, DOWNLOADING), problem(503, "gone")]
        assert 5 == run("rollout", "watch", "v2")[0]

    def test_an_unknown_rollout_is_exit_code_2_at_once(self, run: Run) -> None:
        """There is nothing to wait for."""
        code, _, err = run("rollout", "watch", "v9")
        assert (2, "error: the fleet refuses: there is no rollout v9\n") == (code, err)

    def test_a_terminal_sees_one_page(self, run: Run, fleet: FakeFleet, monkeypatch: pytest.MonkeyPatch) -> None:
        """On a terminal the page is drawn in place, with every device on it."""
        fleet.script = [(200, DOWNLOADING), (200, SUCCEEDED)]
        monkeypatch.setattr(type(sys.stdout), "isatty", lambda _self: True, raising=False)
        monkeypatch.setenv("TERM", "xterm")
        code, out, _ = run("rollout", "watch", "v2")
        assert 0 == code
        assert "cam-1" in out
        assert "succeeded" in out
