"""The agent as a real process: updates from end to end, and what may go wrong on the way."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from edgeopt_agent.reports.spool import Spool
from edgeopt_contract.bundle import Bundle
from edgeopt_contract.codec import encode
from edgeopt_contract.topics import Topics
from edgeopt_contract.values import digest_of
from tests.agent.conftest import DEVICE, Broker, Device, FakeFleet, blocks_of, wait_until
from tests.tiny import Recipe, tiny_bundle

pytestmark = [pytest.mark.scenario, pytest.mark.timeout(90)]

STRAIGHT_WAY = [
    "offered", "downloading", "verifying", "staged", "self_test", "activating", "baking", "confirmed",
]  # fmt: skip


@pytest.fixture
def old(fleet: FakeFleet, device: Device, tmp_path: Path) -> Bundle:
    """Version 1, confirmed on a running device."""
    bundle = tiny_bundle(tmp_path / "1")
    fleet.publish_bundle(bundle)
    device.start()
    fleet.desire(bundle, "job-old")
    fleet.wait_for("confirmed", "job-old")
    return bundle


def wait_for_rows(fleet: FakeFleet, bundle: Bundle, rows: int = 20) -> None:
    """Wait until ``bundle`` has served ``rows`` more inferences."""
    before = sum(window.rows for window in fleet.telemetry(bundle.digest))
    wait_until("more rows", lambda: sum(w.rows for w in fleet.telemetry(bundle.digest)) >= before + rows)


@pytest.mark.parametrize("broker", ["nats", "mosquitto"], indirect=True)
def test_update_reaches_confirmed(fleet: FakeFleet, device: Device, tmp_path: Path) -> None:
    """A good bundle goes the straight way, serves the named source, and is counted under its own digest."""
    bundle = tiny_bundle(tmp_path / "1")
    fleet.publish_bundle(bundle)
    device.start()
    fleet.desire(bundle)

    confirmed = fleet.wait_for("confirmed")
    wait_for_rows(fleet, bundle)

    assert STRAIGHT_WAY == fleet.states()
    assert ("runs_new", bundle.digest) == (confirmed.result, confirmed.running)
    window = next(w for w in fleet.telemetry() if w.rows)
    assert (bundle.digest, "fp32", 0) == (window.bundle, window.variant, window.errors)
    assert {"x[0]", "confidence", "class"} == set(window.cells)
    under_way = {window.rows - sum(cells) for cells in window.cells.values()}  # features of the last answer
    assert under_way <= {0, 1}
    assert window.rows == sum(window.latency)
    assert "disk_free_bytes" in window.infrastructure
    assert bundle.digest == wait_until("the birth of the new bundle", lambda: fleet.statuses[-1].running)


def test_status_says_what_the_files_say(fleet: FakeFleet, device: Device, old: Bundle) -> None:
    """``status --json`` agrees with what was reported, with the agent running and after a clean stop."""
    wait_for_rows(fleet, old)
    running = device.status()["running"]
    assert running.pop("since") > 0
    assert {"bundle": old.digest, "name": "tiny", "version": "1"} == running
    assert device.process is not None
    assert device.process.pid == device.status()["agent"]

    assert 0 == device.stop()

    status = device.status()
    assert ("job-old", "confirmed", "runs_new") == tuple(status["update"][key] for key in ("job", "state", "result"))
    assert status["spool"]["rows"] == _rows_on_the_way(device, fleet)
    assert wait_until("the death", lambda: not fleet.statuses[-1].online)


def test_clean_stop_keeps_the_open_window(fleet: FakeFleet, device: Device, old: Bundle) -> None:
    """What was counted since the last window is numbered at the stop and arrives after the next start."""
    wait_for_rows(fleet, old)
    assert 0 == device.stop()
    spool = device.status()["spool"]

    device.start("--http", "0")  # no source: nothing new is counted
    wait_until("the rest", lambda: sum(w.rows for w in fleet.telemetry()) >= spool["rows"])
    assert spool["rows"] == sum(w.rows for w in fleet.telemetry())


def test_wrong_golden_outputs_fail_and_the_old_bundle_serves(
    fleet: FakeFleet, device: Device, old: Bundle, tmp_path: Path
) -> None:
    """A bundle that does not reproduce its golden outputs never answers a request."""
    bad = tiny_bundle(tmp_path / "2", Recipe(version="2", golden_error=True))
    fleet.publish_bundle(bad)
    fleet.desire(bad)

    failed = fleet.wait_for("failed")

    assert ("runs_old_untouched", old.digest) == (failed.result, failed.running)
    assert "self-test" in failed.detail
    assert "activating" not in fleet.states()
    wait_for_rows(fleet, old)
    assert [] == fleet.telemetry(bad.digest)
    assert "1" == device.status()["running"]["version"]


def test_first_bundle_that_fails_leaves_nothing_running(fleet: FakeFleet, device: Device, tmp_path: Path) -> None:
    """Without an older bundle the result says that nothing runs, and the agent lives on."""
    bad = tiny_bundle(tmp_path / "1", Recipe(golden_error=True))
    good = tiny_bundle(tmp_path / "2", Recipe(version="2"))
    fleet.publish_bundle(bad)
    fleet.publish_bundle(good)
    device.start()
    fleet.desire(bad)
    failed = fleet.wait_for("failed")
    assert ("runs_nothing", None) == (failed.result, failed.running)

    fleet.desire(good, "job-2")
    assert good.digest == fleet.wait_for("confirmed", "job-2").running


def test_model_that_hangs_in_the_field_falls_back(
    fleet: FakeFleet, device: Device, old: Bundle, tmp_path: Path
) -> None:
    """A bundle that passes its self-test but hangs on real inputs is rolled back, and not tried again."""
    device.stop()
    device.start("--source", "tests.tiny:poisoned_field", "--infer-timeout", "3")
    bad = tiny_bundle(tmp_path / "2", Recipe(version="2", poisonable=True))
    fleet.publish_bundle(bad)
    fleet.desire(bad, bake_seconds=60)

    rolled_back = fleet.wait_for("rolled_back")

    assert ("runs_old_restored", old.digest) == (rolled_back.result, rolled_back.running)
    assert [*STRAIGHT_WAY[:-1], "rolled_back"] == fleet.states()
    wait_for_rows(fleet, old)
    assert 1 <= sum(w.errors for w in fleet.telemetry(bad.digest))
    fleet.publish(Topics.desired(DEVICE), fleet.last_desired)  # as a broker or a fleet that restarted would
    wait_for_rows(fleet, old)
    assert [*STRAIGHT_WAY[:-1], "rolled_back"] == fleet.states()


def test_fallback_works_without_a_network(
    broker: Broker, fleet: FakeFleet, device: Device, old: Bundle, tmp_path: Path
) -> None:
    """A bundle that fails while the broker is away is rolled back at once and reported when it returns."""
    bad = tiny_bundle(tmp_path / "2", Recipe(version="2"))
    fleet.publish_bundle(bad)
    fleet.desire(bad, bake_seconds=60)
    fleet.wait_for("baking")
    broker.kill()

    def serves_the_old_one() -> bool:
        if device.status()["running"]["version"] == "1":
            return True
        for pid in device.runners():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return False

    wait_until("the old bundle", serves_the_old_one)
    broker.start()
    fleet.republish()
    assert old.digest == fleet.wait_for("rolled_back").running


def test_killed_runner_is_started_again(fleet: FakeFleet, device: Device, old: Bundle) -> None:
    """One crash costs a request at most: the runner comes back and the update stays confirmed."""
    _kill_runner(device)
    wait_for_rows(fleet, old, 50)
    assert "confirmed" == device.status()["update"]["state"]
    assert 1 >= sum(w.errors for w in fleet.telemetry())


def test_killed_agent_resumes_its_download(fleet: FakeFleet, device: Device, tmp_path: Path) -> None:
    """Kill -9 while downloading: after the restart only the missing blocks are fetched."""
    bundle = tiny_bundle(tmp_path / "1", Recipe(padding_bytes=2_000_000))
    blocks = blocks_of(bundle)
    last = bundle.manifest.file_with(bundle.manifest.files[0].role.PROFILE).blocks[0].sha256
    fleet.publish_bundle(bundle, leave_out=(last,))
    device.start()
    fleet.desire(bundle)
    incoming = device.data / "incoming"
    wait_until("all blocks but one", lambda: incoming.exists() and len(_whole_blocks(incoming)) == len(blocks) - 1)

    device.kill()
    device.start()
    fleet.publish(Topics.block(last), blocks[last])
    fleet.wait_for("confirmed")

    verifying = next(report for report in fleet.reports() if report.state == "verifying")
    assert f"resumed {len(blocks) - 2}," in verifying.detail  # the manifest is no block of a file
    assert verifying.detail.startswith("fetched 1 blocks")
    assert not incoming.exists()


def test_killed_agent_resumes_its_bake(fleet: FakeFleet, device: Device, old: Bundle, tmp_path: Path) -> None:
    """Kill -9 while baking: the bundle is tested and baked again from the beginning, and confirmed."""
    new = tiny_bundle(tmp_path / "2", Recipe(version="2"))
    fleet.publish_bundle(new)
    fleet.desire(new, bake_seconds=2)
    fleet.wait_for("baking")
    runners = device.runners()

    device.kill()
    wait_until("the runners to end with their agent", lambda: not any(Path(f"/proc/{pid}").exists() for pid in runners))
    device.start()

    assert new.digest == fleet.wait_for("confirmed").running
    assert [*STRAIGHT_WAY[:7], "activating", "baking", "confirmed"] == fleet.states()


@pytest.mark.parametrize("broker", ["nats", "mosquitto"], indirect=True)
def test_killed_broker_loses_and_repeats_nothing(
    broker: Broker, fleet: FakeFleet, device: Device, old: Bundle, tmp_path: Path
) -> None:
    """Kill -9 of the broker: the agent keeps serving, returns, and its books and the fleet's come to the same."""
    new = tiny_bundle(tmp_path / "2", Recipe(version="2"))
    broker.kill()
    issued = device.status()["spool"]["last_number"]
    wait_until("three windows without a broker", lambda: device.status()["spool"]["last_number"] >= issued + 3)
    broker.start()
    fleet.republish()
    fleet.publish_bundle(new)
    fleet.desire(new)
    fleet.wait_for("confirmed")
    wait_for_rows(fleet, new)
    device.stop()
    device.start("--http", "0")

    def agree() -> bool:
        spool = device.status()["spool"]
        rows = sum(w.rows for w in fleet.telemetry())
        return (len(fleet.stored), rows) == (spool["last_number"], spool["rows"])

    wait_until("the books to agree", agree)
    assert {1} == set(_session_counts(fleet).values())


def test_unacknowledged_messages_are_sent_again(fleet: FakeFleet, device: Device, tmp_path: Path) -> None:
    """A fleet that stores but cannot acknowledge is asked again; the spool empties once it acknowledges."""
    bundle = tiny_bundle(tmp_path / "1")
    fleet.publish_bundle(bundle)
    fleet.acknowledges = False
    device.start()
    fleet.desire(bundle)
    fleet.wait_for("confirmed")
    waiting = device.status()["spool"]["unacknowledged"]
    assert len(STRAIGHT_WAY) <= waiting

    fleet.acknowledges = True

    wait_until("the spool to empty", lambda: device.status()["spool"]["unacknowledged"] <= 2)


def test_damaged_block_is_asked_for_again(fleet: FakeFleet, device: Device, tmp_path: Path) -> None:
    """A block with wrong bytes is refused, and fetched once it is right; the detail counts it."""
    bundle = tiny_bundle(tmp_path / "1", Recipe(padding_bytes=300_000))
    blocks = blocks_of(bundle)
    victim = bundle.manifest.files[0].blocks[0].sha256
    fleet.publish_bundle(bundle)
    fleet.publish(Topics.block(victim), b"not what the topic says")
    device.start()
    fleet.desire(bundle)
    wait_until("the damage to be seen", lambda: device.logged('"event":"block_damaged"'))

    fleet.publish(Topics.block(victim), blocks[victim])

    fleet.wait_for("confirmed")
    verifying = next(report for report in fleet.reports() if report.state == "verifying")
    assert "refetched 0 damaged" not in verifying.detail


def test_shared_blocks_are_not_fetched_and_going_back_fetches_nothing(
    fleet: FakeFleet, device: Device, tmp_path: Path
) -> None:
    """What a version shares with the one on the device stays there; going back needs no block at all."""
    first = tiny_bundle(tmp_path / "1", Recipe(padding_bytes=1_000_000))
    second = tiny_bundle(tmp_path / "2", Recipe(version="2", padding_bytes=1_000_000, poisonable=True))
    for bundle in (first, second):
        fleet.publish_bundle(bundle)
    device.start()
    fleet.desire(first, "job-1")
    fleet.wait_for("confirmed", "job-1")
    fleet.desire(second, "job-2")
    fleet.wait_for("confirmed", "job-2")
    verifying = next(report for report in fleet.reports("job-2") if report.state == "verifying")
    shared = len(set(blocks_of(first)) & set(blocks_of(second)))
    assert shared > 8
    assert f"reused {shared}," in verifying.detail

    fleet.desire(first, "job-3")
    assert first.digest == fleet.wait_for("confirmed", "job-3").running
    verifying = next(report for report in fleet.reports("job-3") if report.state == "verifying")
    assert "all of it is on the device already" == verifying.detail


def test_new_job_for_the_running_bundle_is_confirmed_at_once(fleet: FakeFleet, device: Device, old: Bundle) -> None:
    """A recall to what serves already disturbs nothing: self-test, then CONFIRMED."""
    fleet.desire(old, "job-again")
    fleet.wait_for("confirmed", "job-again")
    assert ["offered", "confirmed"] == fleet.states("job-again")


def test_newer_offer_supersedes_one_that_bakes(fleet: FakeFleet, device: Device, old: Bundle, tmp_path: Path) -> None:
    """A recall in the middle of a bake: SUPERSEDED, the old bundle answers, and its job is confirmed."""
    new = tiny_bundle(tmp_path / "2", Recipe(version="2"))
    fleet.publish_bundle(new)
    fleet.desire(new, bake_seconds=60)
    fleet.wait_for("baking")

    fleet.desire(old, "job-recall")

    assert old.digest == fleet.wait_for("confirmed", "job-recall").running
    superseded = fleet.wait_for("superseded")
    assert ("runs_old_restored", old.digest) == (superseded.result, superseded.running)


def desire_forged(fleet: FakeFleet, seconds: int) -> None:
    """Offer what nobody signed, until a deadline."""
    forged = fleet.signer.desired("ee" * 32, "job-forged", deadline=int(time.time()) + seconds)
    fleet.publish(Topics.desired(DEVICE), encode(forged))


def test_forged_offer_does_not_disturb_a_download(
    fleet: FakeFleet, device: Device, old: Bundle, tmp_path: Path
) -> None:
    """What nobody signed waits at the door until its deadline, while the update that is under way goes on beside it."""
    new = tiny_bundle(tmp_path / "2", Recipe(version="2", sharpness=5.0))
    fleet.publish_bundle(new, leave_out=(min(set(blocks_of(new)) - set(blocks_of(old)) - {new.digest}),))
    fleet.desire(new, bake_seconds=0)
    fleet.wait_for("downloading")
    desire_forged(fleet, seconds=600)
    wait_until("the reason", lambda: fleet.reports("job-forged"))
    desire_forged(fleet, seconds=2)

    rejected = fleet.wait_for("rejected", "job-forged")
    assert ("runs_old_untouched", old.digest) == (rejected.result, rejected.running)
    reasons = [report.detail for report in fleet.reports("job-forged")]
    assert any("is not among the signed targets" in reason for reason in reasons)
    assert "downloading" == fleet.states()[-1]
    assert "downloading" == device.status()["update"]["state"]

    fleet.publish_bundle(new)
    assert new.digest == fleet.wait_for("confirmed").running
    assert STRAIGHT_WAY == fleet.states()


def test_withdrawn_offer_ends_a_download(fleet: FakeFleet, device: Device, old: Bundle, tmp_path: Path) -> None:
    """An empty desired state ends an update that has not switched; the device keeps what it runs."""
    new = tiny_bundle(tmp_path / "2", Recipe(version="2"))
    fleet.publish(Topics.block(new.digest), blocks_of(new)[new.digest])
    fleet.desire(new)
    fleet.wait_for("downloading")

    fleet.publish(Topics.desired(DEVICE), b"")

    superseded = fleet.wait_for("superseded")
    assert ("runs_old_untouched", old.digest) == (superseded.result, superseded.running)


def test_hostile_desired_states_are_refused(fleet: FakeFleet, device: Device, old: Bundle, tmp_path: Path) -> None:
    """An unknown schema is logged and never becomes an update; the device serves on."""
    unknown = json.loads(encode(fleet.signer.desired(old.digest, "job-unknown"))) | {"schema": 3}
    fleet.publish(Topics.desired(DEVICE), json.dumps(unknown).encode())
    wait_until("the refusal", lambda: device.logged("expected schema 2, got 3"))
    assert [] == fleet.states("job-unknown")
    wait_for_rows(fleet, old)


@pytest.mark.parametrize(
    ("recipe", "reason"),
    [
        (Recipe(version="2", features=("sse-from-mars",)), "needs the CPU features sse-from-mars"),
        (Recipe(version="2", model=b"this is no model"), "cannot be loaded"),
    ],
)
def test_bundle_that_cannot_run_here_is_turned_down(
    fleet: FakeFleet, device: Device, old: Bundle, tmp_path: Path, recipe: Recipe, reason: str
) -> None:
    """A device that cannot run a bundle says why, and goes on with what it has."""
    new = tiny_bundle(tmp_path / "2", recipe)
    fleet.publish_bundle(new)
    fleet.desire(new)
    ended = wait_until("the end", lambda: next((r for r in fleet.reports() if r.result), None))
    assert ended.state in ("rejected", "failed")
    assert reason in ended.detail
    wait_for_rows(fleet, old)


def test_manifest_that_is_none_is_rejected(fleet: FakeFleet, device: Device, tmp_path: Path) -> None:
    """Signed bytes that are no manifest end as REJECTED with the reason."""
    nonsense = b'{"schema": 1}'
    fleet.publish(Topics.block(digest_of(nonsense)), nonsense)
    fleet.signer.sign(digest_of(nonsense), len(nonsense))
    fleet.publish_metadata()
    device.start()
    fleet.publish(Topics.desired(DEVICE), encode(fleet.signer.desired(digest_of(nonsense))))
    assert "Manifest" in fleet.wait_for("rejected").detail


def test_broken_source_does_not_take_the_agent_down(fleet: FakeFleet, device: Device, tmp_path: Path) -> None:
    """A source that raises is logged and ends; updates go on."""
    bundle = tiny_bundle(tmp_path / "1")
    fleet.publish_bundle(bundle)
    device.start("--source", "tests.tiny:broken_field", "--source", "tests.tiny:short_field")
    fleet.desire(bundle)
    fleet.wait_for("confirmed")
    wait_until("the broken source", lambda: device.logged("RuntimeError: the camera was unplugged"))
    wait_until("six rows", lambda: 6 == sum(w.rows for w in fleet.telemetry()))


def test_http_inference_on_loopback(fleet: FakeFleet, device: Device, tmp_path: Path) -> None:
    """The V2 protocol answers over HTTP: not ready before the first bundle, then health, metadata and inference."""
    bundle = tiny_bundle(tmp_path / "1")
    fleet.publish_bundle(bundle)
    device.start("--http", "0")
    port = wait_until("the port", lambda: _http_port(device))
    assert (200, {"live": True}) == _http(port, "/v2/health/live")
    assert 503 == _http(port, "/v2/health/ready")[0]

    fleet.desire(bundle)
    fleet.wait_for("confirmed")

    assert (200, {"ready": True}) == _http(port, "/v2/health/ready")
    assert [-1, 4] == _http(port, "/v2/models/tiny")[1]["inputs"][0]["shape"]
    request = {"id": "7", "inputs": [{"name": "x", "shape": [2, 4], "datatype": "FP32", "data": [0.5] * 8}]}
    status, answer = _http(port, "/v2/models/tiny/infer", request)
    assert (200, "7", [2, 3]) == (status, answer["id"], answer["outputs"][0]["shape"])
    assert 404 == _http(port, "/v2/models/other/infer", request)[0]
    request["inputs"][0]["shape"] = [2, 2, 2]
    status, answer = _http(port, "/v2/models/tiny/infer", request)
    assert (400, True) == (status, "expected the shape [rows, 4]" in answer["error"])


def test_second_agent_on_the_same_data_is_refused(fleet: FakeFleet, device: Device, old: Bundle) -> None:
    """Two agents never share a directory: exit code 2 and one line."""
    second = _run("run", "--data", str(device.data))
    assert 2 == second.returncode
    assert "another edgeopt-agent runs" in second.stderr
    assert "Traceback" not in second.stderr


def test_broker_that_is_down_is_waited_for(broker: Broker, fleet: FakeFleet, device: Device, tmp_path: Path) -> None:
    """The agent starts without a broker, logs it, and works when the broker comes."""
    bundle = tiny_bundle(tmp_path / "1")
    broker.kill()
    device.start()
    wait_until("the failure in the log", lambda: device.log.exists() and device.logged('"event":"link_lost"'))
    broker.start()
    fleet.publish_bundle(bundle)
    fleet.desire(bundle)
    fleet.wait_for("confirmed")


def test_agent_process_does_not_load_the_runtime(fleet: FakeFleet, device: Device, old: Bundle) -> None:
    """Only the runner maps ONNX Runtime into its memory."""
    assert device.process is not None
    assert "onnxruntime" not in Path(f"/proc/{device.process.pid}/maps").read_text()
    assert any("onnxruntime" in Path(f"/proc/{pid}/maps").read_text() for pid in device.runners())


def _kill_runner(device: Device) -> None:
    """Kill the runner and wait for the next one."""
    before = wait_until("a runner", device.runners)
    for pid in before:
        os.kill(pid, signal.SIGKILL)
    wait_until("another runner", lambda: device.runners() and set(device.runners()) != set(before))


def _whole_blocks(directory: Path) -> list[str]:
    """The blocks that are written to their end: one that is being written has its name already."""
    return [path.name for path in directory.iterdir() if path.name == digest_of(path.read_bytes())]


def _rows_on_the_way(device: Device, fleet: FakeFleet) -> int:
    """Return the rows that the fleet or the spool has: after a stop that came before an acknowledgement, both do."""
    spool = Spool.look_into(device.data / "agent.db")
    assert spool is not None
    records = [json.loads(message.payload) for message in spool.unacknowledged(1000)]
    spool.close()
    rows = {(one["session"], one["number"]): one.get("rows", 0) for one in records}
    rows |= {(window.session, window.number): window.rows for window in fleet.telemetry()}
    return sum(rows.values())


def _session_counts(fleet: FakeFleet) -> dict[int, int]:
    sessions = {session for session, _ in fleet.stored}
    return {session: len(sessions) for session in sessions}


def _http_port(device: Device) -> int | None:
    for line in device.log.read_text().splitlines():
        if '"event":"http_listening"' in line:
            return int(json.loads(line)["port"])
    return None


def _http(port: int, path: str, body: Any = None) -> tuple[int, Any]:
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}{path}", data=None if body is None else json.dumps(body).encode()
    )
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.load(error)


def _run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [str(Path(sys.executable).parent / "edgeopt-agent"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=20)
