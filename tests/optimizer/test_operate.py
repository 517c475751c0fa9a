"""The operator's commands from the command line to a fleet on a real socket, and their exit codes."""

# ruff: noqa: F811  # tests take imported fixtures by their names

from __future__ import annotations

import json
import socket
from pathlib import Path

import pytest

from edgeopt_contract.bundle import BundleContents, write_bundle
from tests.contract.conftest import contents  # noqa: F401  # the fixture
from tests.optimizer.operate_fake import KEY, FakeFleet, Run, fleet, run  # noqa: F401  # the fixtures


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
            ("cohorts",),
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
        assert "aaaaaaaaaaaa confirmed" in out

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

    def test_other_filters_are_the_fleets(self, run: Run, fleet: FakeFleet) -> None:
        """They go into the query; what is not given does not."""
        run("devices", "--health", "failing", "--online", "--hardware", "a", "--hardware", "b", "--cohort", "oslo")
        query = ["cohort=oslo", "hardware=a", "hardware=b", "health=failing", "limit=1000", "online=true"]
        assert query == sorted(fleet.requests[0][1].removeprefix("devices?").split("&"))

    @pytest.mark.parametrize("part", ["reports", "windows", "messages"])
    def test_what_a_device_sent_is_listed(self, run: Run, part: str) -> None:
        """As a table, and as a list for machines."""
        assert 0 == run("devices", part, "cam-1")[0]
        assert part == json.loads(run("devices", part, "cam-1", "--json")[1])[0]["state"]

    def test_tags_are_changed(self, run: Run, fleet: FakeFleet) -> None:
        """All of them at once; what the device has then is shown."""
        tags = ("--tag", "site=lima", "--tag", "line=2")
        assert (0, "cam-1: line=2 site=lima\n") == run("devices", "tags", "cam-1", *tags)[:2]
        assert {"site": "lima", "line": "2"} == fleet.devices[0]["tags"]

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

    def test_a_device_is_revoked_and_shown_as_such(self, run: Run, fleet: FakeFleet) -> None:
        """Edgeopt devices revoke: it says what happened, and when stands on the device's page; an unknown one is 2."""
        assert (0, "cam-1 is revoked and cut off\n") == run("devices", "revoke", "cam-1")[:2]
        assert ("POST", "devices/cam-1/revoke", None) == fleet.requests[-1]
        out = run("devices", "show", "cam-1")[1]
        assert "revoked" in out
        assert "2026-11-21" in out
        assert 1_795_300_200 == json.loads(run("devices", "revoke", "cam-1", "--json")[1])["revoked_at"]
        assert 2 == run("devices", "revoke", "cam-9")[0]


class TestCohorts:
    """edgeopt cohorts."""

    def test_a_cohort_is_saved_and_shown(self, run: Run, fleet: FakeFleet) -> None:
        """Several tags must all match."""
        code, out, _ = run("cohorts", "create", "line-2", "--tag", "site=oslo", "--tag", "line=2")
        assert 0 == code
        assert ["line-2", "line=2", "site=oslo", "-", "-"] == out.splitlines()[1].split()
        assert ("PUT", "cohorts/line-2", {"tags": {"site": "oslo", "line": "2"}}) == fleet.requests[-1]

    def test_list_and_show(self, run: Run) -> None:
        """Machines get a list from one and an object from the other."""
        assert ["all"] == [cohort["name"] for cohort in json.loads(run("cohorts", "list", "--json")[1])]
        assert "all" == json.loads(run("cohorts", "show", "all", "--json")[1])["name"]
        assert "all" in run("cohorts", "show", "all")[1]

    def test_a_filter_of_everything(self, run: Run, fleet: FakeFleet) -> None:
        """Each option reaches the fleet under its own name; what is not given is not sent."""
        options = ("--hardware", "pi-5", "--hardware", "pi-4", "--running", "none", "--health", "ok", "--offline")
        assert 0 == run("cohorts", "create", "x", *options)[0]
        body = {"tags": {}, "hardware": ["pi-5", "pi-4"], "running": "none", "health": "ok", "online": False}
        assert ("PUT", "cohorts/x", body) == fleet.requests[-1]

    def test_a_cohort_is_deleted_once(self, run: Run) -> None:
        """The second time there is none."""
        run("cohorts", "create", "x")
        assert (0, "the cohort x is deleted\n") == run("cohorts", "delete", "x")[:2]
        assert 2 == run("cohorts", "delete", "x")[0]


class TestPublish:
    """edgeopt publish and edgeopt bundles."""

    def test_the_digest_is_printed_and_nothing_else(
        self,
        run: Run,
        fleet: FakeFleet,
        tmp_path: Path,
        contents: BundleContents,
    ) -> None:
        """DIGEST=$(edgeopt publish DIR) works; a second time changes nothing."""
        bundle = write_bundle(tmp_path / "bundle", contents)
        for _ in range(2):
            code, out, err = run("publish", str(bundle.directory))
            assert (0, f"{bundle.digest}\n") == (code, out)
            assert not err.strip()  # the bar is for terminals
        assert {bundle.digest} == set(fleet.manifests)
        assert {"digest": bundle.digest, "name": "digits", "version": "1"} == json.loads(
            run("publish", str(bundle.directory), "--json")[1]
        )
        assert ["digits", "1", "yes"] == run("bundles")[1].splitlines()[1].split()[1:4]

    def test_signed_metadata_arrive_with_the_bundle(
        self, run: Run, fleet: FakeFleet, tmp_path: Path, contents: BundleContents
    ) -> None:
        """Root before targets, after the bundle; the digest alone is on standard output."""
        bundle = write_bundle(tmp_path / "bundle", contents)
        signed = tmp_path / "signed.json"
        signed.write_text(json.dumps({"targets": '{"t": 1}', "root": '{"r": 1}'}))
        code, out, err = run("publish", str(bundle.directory), "--signed", str(signed))
        assert (0, f"{bundle.digest}\n") == (code, out)
        assert ["root version 2: in force", "targets version 2: in force"] == err.strip().splitlines()
        assert [("PUT", "tuf/root", {"r": 1}), ("PUT", "tuf/targets", {"t": 1})] == fleet.requests[-2:]

    @pytest.mark.parametrize("text", ["[]", "{", '{"snapshot": ""}', None])
    def test_a_file_that_sign_did_not_write_stops_it(
        self, run: Run, fleet: FakeFleet, tmp_path: Path, text: str | None
    ) -> None:
        """Before anything is sent, naming the file and the command that writes it."""
        signed = tmp_path / "signed.json"
        if text is not None:
            signed.write_text(text)
        code, _, err = run("publish", str(tmp_path), "--signed", str(signed))
        assert (2, []) == (code, fleet.requests)
        assert "edgeopt sign --output" in err

    def test_a_changed_byte_stops_it_before_anything_is_sent(
        self,
        run: Run,
        fleet: FakeFleet,
        tmp_path: Path,
        contents: BundleContents,
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
        contents: BundleContents,
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


class TestAlerts:
    """edgeopt alerts."""

    def test_open_alerts_name_cohort_and_feature(self, run: Run) -> None:
        """That is what the operator acts upon."""
        code, out, _ = run("alerts")
        assert 0 == code
        assert ["1", "drift", "open", "2026-11-21", "22:26Z", "image.mean", "moved"] == out.splitlines()[1].split()
        assert 2 == len(out.splitlines()), "one alert is open"

    def test_one_alert_is_shown_with_all_that_was_measured(self, run: Run) -> None:
        """The cohort, the feature, how far, on how many rows, since when."""
        out = run("alerts", "show", "1")[1]
        for fact in ("oslo", "image.mean (input)", "1.25 (p 1.0e-12)", "400", "2026-11-21 22:26:40Z"):
            assert fact in out

    def test_all_alerts_on_request(self, run: Run) -> None:
        """Also those that are over."""
        assert ["oslo", "bergen"] == [alert["cohort"] for alert in json.loads(run("alerts", "--all", "--json")[1])]

    def test_quiet_is_said(self, run: Run, fleet: FakeFleet) -> None:
        """An empty table could be an error."""
        fleet.alerts.clear()
        assert (0, "no open alerts\n", "") == run("alerts")
        assert (0, "[]\n", "") == run("alerts", "--json")
