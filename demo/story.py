"""The five chapters of the demo. Each does one thing for real, checks it, and returns what it saw.

A chapter that did not happen raises :class:`DidNotHappenError` (or the error that stopped it). Nothing is printed here
but through the ``say`` that is passed in.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from demo.system import System, wait_until

__all__ = ["CHAPTERS", "DidNotHappenError", "Story"]

DEVICES = {f"{site}-{number}": {"site": site} for site in ("oslo", "lima") for number in (1, 2, 3)}
WAVES = "20%,50%,100%"
FLEET_OPTIONS = ("--tick-seconds", "0.3", "--drift-look-seconds", "3")
AGENT_OPTIONS = ("--interval", "0.01", "--window", "1")


class DidNotHappenError(Exception):
    """Something ran to its end, but not with the outcome that the chapter is about."""


@dataclass
class Story:
    """What the chapters share: the running system and what they made so far."""

    system: System
    say: Callable[[str], None]
    digests: dict[str, str] = field(default_factory=dict)

    @property
    def report(self) -> Path:
        """The HTML report of the first version."""
        return self._bundle_directory("1") / "report.html"

    # --- chapters -------------------------------------------------------------------------------------------------

    def quantize(self) -> str:
        """A: quantize with PASS and a report."""
        report = self._quantize("1", "model", "2%")
        (target,) = report["targets"]
        if target["verdict"] != "PASS" or not self.report.exists():
            raise DidNotHappenError(f"verdict {target['verdict']}: {target['reasons']}")
        chosen = next(variant for variant in target["variants"] if variant["name"] == target["chosen"])
        metric, speed = chosen["metric"], chosen["speed"]
        return (
            f"PASS: {target['chosen']}, accuracy {metric['value']:.2%} (drop ≤ {metric['drop_upper']:.2%} "
            f"at {metric['confidence']:.0%} on {metric['n']} samples), {chosen['size_bytes'] / 1000:.0f} kB "
            f"of {report['baseline']['size_bytes'] / 1000:.0f} kB, {speed['ratio']:.2f} times as fast as fp32"
        )

    def roll_out(self) -> str:
        """B: a three-wave rollout, every device CONFIRMED on the right digest."""
        self._start_everything()
        self._publish("1")
        self._create_rollout("digits-1", "1")
        view = self.system.wait_for_rollout("digits-1", "succeeded", "rolled_back", "paused", "cancelled")
        confirmed = [m["device"] for m in view["members"] if m["state"] == "confirmed"]
        running = {device["id"]: device["running"] for device in self.system.get("devices")["items"]}
        if view["state"] != "succeeded" or sorted(confirmed) != sorted(DEVICES):
            raise DidNotHappenError(f"{view['state']}: {view['verdicts'][-1:]}")
        if set(running.values()) != {self.digests["1"]}:
            raise DidNotHappenError(f"expected every device on {self.digests['1'][:12]}, got {running}")
        sizes = [len(wave["devices"]) for wave in view["waves"]]
        return f"waves of {sizes} devices passed; all {len(confirmed)} confirmed on {self.digests['1'][:12]}"

    def stop_a_bad_version(self) -> str:
        """C: a version that installs fine but computes wrongly is stopped in the first wave and rolled back."""
        self._quantize("2", "mis_scaled_model", "5%")
        self._publish("2")
        self._create_rollout("digits-2", "2")
        view = self.system.wait_for_rollout("digits-2", "succeeded", "rolled_back", "paused", "cancelled")
        verdict = view["verdicts"][-1]
        if view["state"] != "rolled_back" or view["wave"] != 0:
            raise DidNotHappenError(f"{view['state']} in wave {view['wave'] + 1}: {verdict}")
        first_wave = {m["device"] for m in view["members"] if m["wave"] == 0}
        exposed = {m["device"] for m in view["members"] if m["state"] != "waiting"}
        if exposed != first_wave:
            raise DidNotHappenError(f"expected only {first_wave} to have been offered version 2, got {exposed}")
        self._wait_until_all_run("1")
        reason = next(r for r in reversed(verdict["reasons"]) if "confidence" in r)
        return f"rolled back by itself after {', '.join(sorted(exposed))}: {reason}"

    def notice_drift(self) -> str:
        """D: one cohort's pictures become brighter; an alert names cohort and feature, the others stay quiet."""
        early = self.system.get("alerts")["items"]
        if early:
            raise DidNotHappenError(f"expected no alert before anything changed, got {early}")
        self._switch.touch()
        self.say("the cameras in Oslo see brighter pictures from now on")

        def alert() -> Any:
            found = self.system.get("alerts?state=open")["items"]
            return next((a for a in found if a["feature"] == "brightness"), None)

        found = wait_until("a drift alert on brightness", alert, 40)
        self._wait_for_rows(600)  # as long again for the other cohort to stay quiet
        cohorts = {a["cohort"] for a in self.system.get("alerts")["items"]}
        self._switch.unlink()
        if found["cohort"] != "oslo" or cohorts != {"oslo"}:
            raise DidNotHappenError(f"expected alerts of the cohort oslo only, got {sorted(cohorts)}")
        return str(found["message"])

    def survive_kills(self) -> str:
        """E: agent, broker and server killed -9 in the middle of a rollout; it still ends right, no count is off."""
        self._quantize("1.1", "model", "2%")
        self._publish("1.1")
        self._create_rollout("digits-1.1", "1.1")
        victim = self._member_under_way("digits-1.1")
        self.say(f"kill -9 the agent of {victim}")
        self.system.agents[victim].kill()
        self.system.agents[victim].start()
        self.say("kill -9 the broker")
        self.system.kill_broker()
        wait_until("the second wave", lambda: self._wave_of("digits-1.1") >= 1, 60)
        self.say("kill -9 the server")
        assert self.system.server is not None
        self.system.server.kill()
        self.system.start_fleet()
        view = self.system.wait_for_rollout("digits-1.1", "succeeded", "rolled_back", "paused", "cancelled")
        if view["state"] != "succeeded":
            raise DidNotHappenError(f"{view['state']}: {view['verdicts'][-1:]}")
        self._wait_until_all_run("1.1")
        counts = [self._compare_counts(device) for device in DEVICES]
        return f"rollout succeeded; {sum(counts)} messages of {len(DEVICES)} devices stored, none lost, none twice"

    # --- steps ----------------------------------------------------------------------------------------------------

    @property
    def _switch(self) -> Path:
        return self.system.directory.absolute() / "bright"

    def _bundle_directory(self, version: str) -> Path:
        return self.system.directory / "bundles" / version

    def _quantize(self, version: str, factory: str, max_drop: str) -> Any:
        self.say(f"edgeopt quantize examples.digits:{factory} --max-drop {max_drop} --version {version}")
        printed = self.system.edgeopt(
            "quantize", f"examples.digits:{factory}", "--data", "examples.digits:data", "--max-drop", max_drop,
            "--name", "digits", "--version", version, "-o", str(self._bundle_directory(version)), "--json",
            "--no-tracking",
        )  # fmt: skip
        return json.loads(printed)

    def _start_everything(self) -> None:
        self.say("edgeopt-fleet init, serve; six agents enrol and run, each its own process")
        self.system.start_fleet(*FLEET_OPTIONS)
        self.system.enrol(DEVICES)
        for number, (device, tags) in enumerate(DEVICES.items()):
            environment = {"EDGEOPT_DEMO_SEED": str(number)}
            if tags["site"] == "oslo":
                environment["EDGEOPT_DEMO_SWITCH"] = str(self._switch)
            self.system.start_agent(
                device, "--source", "examples.digits:field", *AGENT_OPTIONS, environment=environment
            )
        for site in ("oslo", "lima"):
            self.system.edgeopt("cohorts", "create", site, "--tag", f"site={site}")
        wait_until("all agents to be online", lambda: all(d["online"] for d in self.system.get("devices")["items"]))

    def _publish(self, version: str) -> None:
        self.say(f"edgeopt publish: version {version}")
        self.digests[version] = json.loads(
            self.system.edgeopt("publish", str(self._bundle_directory(version)), "--json")
        )["digest"]

    def _create_rollout(self, name: str, version: str) -> None:
        self.say(f"edgeopt rollout create {name} --cohort all --waves {WAVES}")
        self.system.edgeopt(
            "rollout", "create", name, "--bundle", self.digests[version], "--cohort", "all", "--waves", WAVES,
            "--failure-threshold", "10%", "--bake", "2s", "--minimum-rows", "150", "--json",
        )  # fmt: skip

    def _wave_of(self, rollout: str) -> int:
        with contextlib.suppress(httpx.TransportError):
            return int(self.system.rollout(rollout)["wave"])
        return -1

    def _member_under_way(self, rollout: str) -> str:
        def probe() -> str | None:
            for member in self.system.rollout(rollout)["members"]:
                if member["state"] in ("downloading", "verifying", "staged", "self_test", "activating", "baking"):
                    return str(member["device"])
            return None

        return wait_until("a device to be in the middle of its update", probe, 30, every=0.05)

    def _wait_until_all_run(self, version: str) -> None:
        wait_until(
            f"every device to run version {version}",
            lambda: {d["running"] for d in self.system.get("devices")["items"]} == {self.digests[version]},
        )

    def _wait_for_rows(self, rows: int) -> None:
        """Wait until every device has served ``rows`` more inferences, as the server counts them."""

        def served() -> dict[str, int]:
            return {d["id"]: d["telemetry"]["rows"] for d in self.system.get("devices")["items"]}

        before = served()
        wait_until(f"{rows} more rows of each device", lambda: all(n >= before[d] + rows for d, n in served().items()))

    def _compare_counts(self, device: str) -> int:
        """Compare what the device numbered with what the server stored; return the number of messages."""

        def equal() -> int | None:
            spool = self.system.agent_status(device)["spool"]
            stored = self.system.get(f"devices/{device}/messages")["items"]
            if len(stored) != 1:
                raise DidNotHappenError(f"{device}: expected one spool session, got {stored}")
            ours, theirs = spool, stored[0]
            same = (ours["last_number"], ours["rows"], ours["errors"]) == (
                theirs["upto"],
                theirs["rows"],
                theirs["errors"],
            )
            return int(theirs["stored"]) if same and theirs["stored"] == theirs["upto"] else None

        return wait_until(f"the counts of {device} and the server to agree", equal, 30)


CHAPTERS: tuple[tuple[str, str, Callable[[Story], str]], ...] = (
    ("a", "quantize, with a verdict and a report", Story.quantize),
    ("b", "roll out in three waves", Story.roll_out),
    ("c", "stop a version that computes wrongly", Story.stop_a_bad_version),
    ("d", "notice that one cohort's world changed", Story.notice_drift),
    ("e", "survive kill -9 of agent, broker and server", Story.survive_kills),
)
