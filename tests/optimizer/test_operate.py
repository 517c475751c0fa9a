"""The operator's commands from the command line to a fleet on a real socket, and their exit codes."""

from __future__ import annotations

import json
import socket
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click
import pytest

from edgeopt.cli import operate, operate_rollout
from edgeopt.cli.operate_options import duration, share, tag, waves
from edgeopt_contract.bundle import BundleContents, write_bundle
from edgeopt_contract.commands import run_command
from edgeopt_contract.errors import UnreachableError
from tests.contract.conftest import contents  # noqa: F401  # the fixture
from tests.optimizer.operate_fake import KEY, FakeFleet, device_view, problem, rollout_view, served

Run = Callable[..., tuple[int, str, str]]

ALERT = {
    "id": 1,
    "kind": "drift",
    "cohort": "oslo",
    "feature": "image.mean",
    "source": "input",
    "bundle": "a" * 64,
    "state": "open",
    "opened_at": 1_795_300_000,
    "last_seen": 1_795_300_000,
    "psi": 1.25,
    "p_value": 1e-12,
    "rows": 400,
    "message": "image.mean moved",
}


@pytest.fixture
def fleet() -> FakeFleet:
    """A fleet with three devices at two sites and one open alert."""
    return FakeFleet(
        devices=[
            device_view("cam-1", site="oslo"),
            device_view("cam-2", site="oslo", line="2"),
            device_view("cam-3", site="bergen"),
        ],
        alerts=[dict(ALERT), {**ALERT, "id": 2, "state": "closed", "cohort": "bergen"}],
    )


@pytest.fixture
def run(
    fleet: FakeFleet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Iterator[Run]:
    """Run a command line against the fleet; return exit code, standard output and standard error."""
    monkeypatch.setattr(operate_rollout, "_POLL_SECONDS", 0.001)
    group = click.Group("edgeopt", commands={name: getattr(operate, name) for name in operate.__all__})
    with served(fleet) as url:
        access = tmp_path / "operator.json"
        access.write_text(json.dumps({"url": url, "key": KEY}))
        monkeypatch.setenv("EDGEOPT_FLEET", str(access))

        def invoke(*arguments: str) -> tuple[int, str, str]:
            capfd.readouterr()
            code = run_command(lambda: group.main([*arguments], "edgeopt", standalone_mode=False))
            out, err = capfd.readouterr()
            return code, out, err

        yield invoke


class TestWhichFleet:
    """Finding the fleet."""

    def test_without_one_the_two_ways_are_named(self, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
        """The option and the variable stand in the message."""
        monkeypatch.delenv("EDGEOPT_FLEET")
        code, _, err = run("devices")
        assert 2 == code
        assert "give --fleet FILE, or set EDGEOPT_FLEET" in err

    def test_the_option_wins_over_the_variable(self, run: Run, tmp_path: Path) -> None:
        """A person with several fleets names one."""
        code, _, err = run("devices", "list", "--fleet", str(tmp_path / "other.json"))
        assert 2 == code
        assert "other.json" in err

    @pytest.mark.parametrize(
        "arguments",
        [
            ("devices",),
            ("bundles",),
            ("alerts",),
            ("cohort",),
            ("rollout",),
            ("token", "create"),
            ("rollout", "pause", "v2"),
        ],
    )
    def test_a_fleet_that_is_gone_is_exit_code_5(self, run: Run, tmp_path: Path, arguments: tuple[str, ...]) -> None:
        """One line with the address and the advice; no traceback."""
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            url = f"http://127.0.0.1:{taken.getsockname()[1]}"
            (tmp_path / "operator.json").write_text(json.dumps({"url": url, "key": KEY}))
            code, out, err = run(*arguments)
        assert (5, "") == (code, out)
        assert 1 == len(err.strip().splitlines())
        assert f"the fleet at {url} does not answer" in err


class TestTokens:
    """edgeopt token."""

    def test_only_the_token_is_printed(self, run: Run, fleet: FakeFleet) -> None:
        """TOKEN=$(edgeopt token create) works, and what was asked for reaches the fleet."""
        assert (0, "one-time\n", "") == run("token", "create", "--uses", "5", "--expires", "2h", "--tag", "site=oslo")
        body = {"uses": 5, "expires_in_seconds": 7200, "tags": {"site": "oslo"}}
        assert ("POST", "tokens", body) == fleet.requests[-1]

    def test_machines_get_the_whole_answer(self, run: Run) -> None:
        """With the time when it expires."""
        assert {"token": "one-time", "expires_at": 1_795_400_000} == json.loads(run("token", "create", "--json")[1])

    @pytest.mark.parametrize("uses", ["0", "-1", "many"])
    def test_a_senseless_number_of_uses_is_refused_here(self, run: Run, fleet: FakeFleet, uses: str) -> None:
        """The fleet is not asked."""
        assert 2 == run("token", "create", "--uses", uses)[0]
        assert [] == fleet.requests


class TestDevices:
    """edgeopt devices."""

    @pytest.mark.parametrize("arguments", [("devices",), ("devices", "list")])
    def test_all_devices_are_listed(self, run: Run, arguments: tuple[str, ...]) -> None:
        """List is what the group does by itself; the table is not cut in a pipe."""
        code, out, _ = run(*arguments)
        assert 0 == code
        assert ["cam-1", "cam-2", "cam-3", "3"] == [line.split()[0] for line in out.splitlines()[1:]]
        assert "2026-11-21 22:28:20Z" in out

    def test_tags_filter_without_naming_the_command(self, run: Run) -> None:
        """Edgeopt devices --tag site=bergen."""
        out = run("devices", "--tag", "site=bergen", "--json")[1]
        assert ["cam-3"] == [device["id"] for device in json.loads(out)]

    def test_one_device_is_shown_with_its_processor(self, run: Run) -> None:
        """Everything that decides what it can run."""
        code, out, _ = run("devices", "show", "cam-2")
        assert 0 == code
        assert {"device", "tags", "online", "running", "processor", "runtimes"} <= {
            line.split()[0] for line in out.splitlines()
        }
        assert "line=2 site=oslo" in out
        assert "2 windows, 240 rows, 1 errors" in out

    def test_an_unknown_device_is_exit_code_2(self, run: Run) -> None:
        """In the fleet's own words."""
        code, out, err = run("devices", "show", "cam-9")
        assert (2, "", "error: the fleet refuses: there is no device cam-9\n") == (code, out, err)

    def test_a_typing_error_is_not_taken_for_a_filter(self, run: Run) -> None:
        """Only options list by default; a word that is no command is an error."""
        code, _, err = run("devices", "shwo", "cam-1")
        assert 2 == code
        assert "shwo" in err

    def test_a_device_cannot_paint_the_terminal(self, run: Run, fleet: FakeFleet) -> None:
        """Escape sequences and markup in what a device says are shown, not obeyed."""
        fleet.devices[0]["update"]["detail"] = "\x1b[2J[bold]failed[/bold]\r\n"
        out = run("devices", "show", "cam-1")[1]
        assert "\x1b" not in out
        assert "\N{REPLACEMENT CHARACTER}[2J[bold]failed[/bold]" in out

    def test_an_answer_of_another_version_is_exit_code_2(self, run: Run, fleet: FakeFleet) -> None:
        """What cannot be read is said, with the field; no traceback."""
        fleet.devices[0]["online"] = "perhaps"
        code, _, err = run("devices")
        assert 2 == code
        assert "not a DeviceView: Expected `bool`, got `str` - at `$.online`" in err

    def test_a_field_of_the_future_is_passed_over(self, run: Run, fleet: FakeFleet) -> None:
        """A newer fleet may say more."""
        fleet.devices[0]["moon_phase"] = "full"
        assert 0 == run("devices")[0]


class TestCohorts:
    """edgeopt cohort."""

    def test_a_cohort_is_saved_and_its_devices_are_shown(self, run: Run, fleet: FakeFleet) -> None:
        """Several tags must all match."""
        code, out, _ = run("cohort", "create", "line-2", "--tag", "site=oslo", "--tag", "line=2")
        assert 0 == code
        assert ["line-2", "line=2", "site=oslo", "1", "cam-2"] == out.splitlines()[1].split()
        assert ("PUT", "cohorts/line-2", {"tags": {"site": "oslo", "line": "2"}}) == fleet.requests[-1]

    def test_list_and_show(self, run: Run) -> None:
        """Machines get a list from one and an object from the other."""
        assert ["all"] == [cohort["name"] for cohort in json.loads(run("cohort", "list", "--json")[1])]
        assert "all" == json.loads(run("cohort", "show", "all", "--json")[1])["name"]
        assert "cam-1, cam-2, cam-3" in run("cohort", "show", "all")[1]


class TestPublish:
    """edgeopt publish and edgeopt bundles."""

    def test_the_digest_is_printed_and_nothing_else(
        self,
        run: Run,
        fleet: FakeFleet,
        tmp_path: Path,
        contents: BundleContents,  # noqa: F811  # the fixture
    ) -> None:
        """DIGEST=$(edgeopt publish DIR) works; a second time changes nothing."""
        bundle = write_bundle(tmp_path / "bundle", contents)
        for _ in range(2):
            code, out, _ = run("publish", str(bundle.directory))
            assert (0, f"{bundle.digest}\n") == (code, out)
        assert {bundle.digest} == set(fleet.manifests)
        assert {"digest": bundle.digest, "name": "digits", "version": "1"} == json.loads(
            run("publish", str(bundle.directory), "--json")[1]
        )
        assert ["digits", "1", "yes"] == run("bundles")[1].splitlines()[1].split()[1:4]

    def test_a_changed_byte_stops_it_before_anything_is_sent(
        self,
        run: Run,
        fleet: FakeFleet,
        tmp_path: Path,
        contents: BundleContents,  # noqa: F811  # the fixture
    ) -> None:
        """Exit code 2, the file is named, the fleet knows nothing of the bundle."""
        bundle = write_bundle(tmp_path / "bundle", contents)
        (bundle.directory / "golden.npz").write_bytes(b"goldeN")
        code, out, err = run("publish", str(bundle.directory))
        assert (2, "") == (code, out)
        assert "golden.npz: expected SHA-256" in err
        assert ({}, {}) == (fleet.manifests, fleet.blocks)

    def test_a_bundle_whose_upload_broke_off_is_marked(
        self,
        run: Run,
        fleet: FakeFleet,
        tmp_path: Path,
        contents: BundleContents,  # noqa: F811  # the fixture
    ) -> None:
        """It is told apart, with what to do."""
        run("publish", str(write_bundle(tmp_path / "bundle", contents).directory))
        fleet.blocks.popitem()
        assert "no: publish it again" in run("bundles")[1]

    def test_what_is_no_bundle_is_exit_code_2(self, run: Run, tmp_path: Path) -> None:
        """The message says what to give instead."""
        code, _, err = run("publish", str(tmp_path))
        assert 2 == code
        assert "is not a bundle" in err


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

    def test_a_draft_is_not_started(self, run: Run, fleet: FakeFleet) -> None:
        """And without further options the policy is empty."""
        assert "draft" == json.loads(run("rollout", "create", "v2", "--bundle", "b", "--draft", "--json")[1])["state"]
        assert (False, {}) == (fleet.requests[-1][2]["start"], fleet.requests[-1][2]["policy"])

    @pytest.mark.parametrize(
        "option",
        [("--waves", "50%,20%"), ("--bake", "soon"), ("--failure-threshold", "110%"), ("--minimum-rows", "-1")],
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
            "wave 1 (to 50 %) running: 0 of 1 confirmed, 0 failed",
            "rollout v2 running",
            "wave 1: cam-0 confirmed",
            "wave 2: cam-1 downloading",
            "gate on wave 1: hold: cam-0 has served 3 of 50 rows",
            "wave 1 (to 50 %) passed: 1 of 1 confirmed, 0 failed",
            "wave 2 (to 100 %) running: 0 of 1 confirmed, 0 failed",
            "wave 2: cam-1 confirmed",
            "wave 2 (to 100 %) passed: 1 of 1 confirmed, 0 failed",
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
        assert 0 == run("rollout", "watch", "v2")[0]

    def test_a_fleet_that_stays_away_is_exit_code_5(self, run: Run, fleet: FakeFleet) -> None:
        """Patience ends: after as many failures in a row as a restart can explain."""
        fleet.script = [(200, DOWNLOADING), problem(503, "gone")]
        assert 5 == run("rollout", "watch", "v2")[0]

    def test_failures_apart_from_each_other_do_not_add_up(self) -> None:
        """A network that loses a request now and then is no reason to give up."""
        answers = iter([False, True] * 200)

        def ask() -> dict[str, Any]:
            if not next(answers, True):
                raise UnreachableError("lost")
            asked.append(1)
            return {"state": "succeeded" if len(asked) == 150 else "running"}

        asked: list[int] = []
        assert 150 == len(list(operate_rollout.looks(ask, lambda _seconds: None)))

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


class TestAlerts:
    """edgeopt alerts."""

    def test_open_alerts_name_cohort_and_feature(self, run: Run) -> None:
        """That is what the operator acts upon."""
        code, out, _ = run("alerts")
        assert 0 == code
        assert ["drift", "open", "oslo", "image.mean", "1.25"] == out.splitlines()[1].split()[:5]
        assert "bergen" not in out

    def test_all_alerts_on_request(self, run: Run) -> None:
        """Also those that are over."""
        assert ["oslo", "bergen"] == [alert["cohort"] for alert in json.loads(run("alerts", "--all", "--json")[1])]

    def test_quiet_is_said(self, run: Run, fleet: FakeFleet) -> None:
        """An empty table could be an error."""
        fleet.alerts.clear()
        assert (0, "no open alerts\n", "") == run("alerts")
        assert (0, "[]\n", "") == run("alerts", "--json")


class TestValues:
    """How values are written on the command line."""

    @pytest.mark.parametrize(("text", "seconds"), [("90", 90), ("60s", 60), ("5m", 300), ("1.5h", 5400), ("1d", 86400)])
    def test_durations(self, text: str, seconds: float) -> None:
        """Seconds unless a unit follows."""
        assert seconds == duration(text)

    @pytest.mark.parametrize(("text", "number"), [("10%", 0.1), ("0.1", 0.1), ("0", 0), ("100%", 1), ("2.5%", 0.025)])
    def test_shares(self, text: str, number: float) -> None:
        """Percent or a number up to one."""
        assert pytest.approx(number) == share(text)

    @pytest.mark.parametrize(
        ("text", "percents"), [("100%", (100,)), ("20%,50%,100%", (20, 50, 100)), ("1, 2", (1, 2))]
    )
    def test_waves(self, text: str, percents: tuple[int, ...]) -> None:
        """The percent sign may be left out."""
        assert percents == waves(text)

    def test_a_tag_may_hold_an_equals_sign(self) -> None:
        """Only the first one separates."""
        assert ("key", "a=b") == tag("key=a=b")

    @pytest.mark.parametrize(
        ("read", "text"),
        [
            *((duration, text) for text in ("", "-1", "1w", "1 s", "nan", "1e3")),
            *((share, text) for text in ("", "101%", "1.1", "-1%", "nan", "%")),
            *((waves, text) for text in ("", "0%", "50%,50%", "50%,20%", "101%", "20;50", "20%,", "x")),
            *((tag, text) for text in ("", "=", "=x", "site")),
        ],
    )
    def test_nonsense_is_refused(self, read: Callable[[str], object], text: str) -> None:
        """With what was expected and what came."""
        with pytest.raises(click.BadParameter, match=r"expected .* like .*, got "):
            read(text)
