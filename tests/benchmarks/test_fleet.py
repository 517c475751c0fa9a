"""The fleet's benchmark at a size of seconds: every scenario runs, and what must hold at any size holds."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.fleet.claims import CLAIMS, Claim
from benchmarks.fleet.devices import Setting, Swarm
from edgeopt_contract.codec import encode
from edgeopt_contract.messages import Ack
from edgeopt_contract.topics import Topics
from edgeopt_fleet.mqtt.packets import publish_packet
from tests.project.conftest import ROOT

MOSQUITTO = shutil.which("mosquitto", path=f"{os.environ['PATH']}:/usr/sbin")
ALWAYS = {
    "lost",
    "miscounted",
    "unacknowledged",
    "bad",
    "bad_blocks",
    "succeeded",
    "back_share",
}  # at any size and load


@pytest.mark.scenario
@pytest.mark.timeout(1000)  # six servers start in turn; every wait in it has an end of its own
@pytest.mark.skipif(MOSQUITTO is None, reason="mosquitto is not installed (apt-get install mosquitto)")
def test_every_scenario_runs_and_loses_nothing(tmp_path: Path) -> None:
    """Forty devices: telemetry, reads, a rollout with the broker killed, a recall and a storm, in one run."""
    output = tmp_path / "fleet.json"
    command = [sys.executable, "-m", "benchmarks.fleet", "--devices", "40", "--rate", "80", "--seconds", "1"]
    command += ["--size", "20", "--size", "60", "--scale-seconds", "1"]
    command += ["--reads", "20", "--window", "0.5", "--directory", str(tmp_path / "fleet"), "--output", str(output)]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=900
    )  # its own ends come first
    assert 0 == done.returncode, done.stderr[-2000:]
    figures = json.loads(output.read_text())
    checked = [claim for claim in CLAIMS if claim.figure in ALWAYS]
    assert len(ALWAYS) == len({claim.figure for claim in checked})
    assert [] == [claim.text for claim in checked if not claim.holds(figures)]
    assert 8 == figures["recall"]["exposed"]
    assert (2, 60) == (figures["scale"]["sizes"], figures["scale"]["largest"])
    assert figures["scale"]["cpu_seconds_a_device_hour_20"] > 0 < figures["scale"]["server_peak_bytes_60"]
    assert figures["telemetry"]["p99_times_raw"] > 0 < figures["telemetry"]["cores_times_raw"]
    claimed = done.stdout.split("\nclaims\n")[1].split("\n\n")[0].splitlines()
    assert len(CLAIMS) == len(claimed)
    assert {"PASS", "FALLS"} >= {line.split()[0] for line in claimed}
    assert 40 == figures["rollout"]["devices"] == figures["storm"]["devices"]


def test_a_claim_can_be_missed() -> None:
    """A figure beyond its limit is a miss, one within is not, and a scenario that did not run says nothing."""
    claim = Claim("reads", "p99_ms", None, 15, "fast")
    assert not claim.holds({"reads": {"p99_ms": 15.1}})
    assert claim.holds({"reads": {"p99_ms": 15.0}})
    assert claim.holds({}) is None


def test_a_simulated_device_sends_a_lost_message_again_although_later_ones_arrive() -> None:
    """As the agent does: what the fleet acknowledges beyond a gap is no reason to take the gap for delivered."""
    swarm = Swarm(Setting(port=0, window=b'{"number":1,}', bundle="0" * 64), 1)
    device = swarm.devices[0]
    device.online = True
    for number in range(1, 5):
        device.tell()
        if number > 1:  # the first is lost
            ack = encode(Ack(session=1, upto=0, beyond=(number,)))
            device.data_received(publish_packet(Topics.ack(device.device), ack, packet_id=0))
    device.repeat_lost()
    assert 0 == swarm.tally.resent, "it went out a moment ago"
    device.spool[1].sent_at -= 10.0
    device.repeat_lost()
    assert ([1], 1) == (list(device.spool), swarm.tally.resent)
    device.repeat_lost()
    assert 1 == swarm.tally.resent, "it has just been sent again"
