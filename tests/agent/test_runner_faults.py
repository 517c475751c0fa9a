"""Models that turn out bad after they were confirmed: the one before serves again, and no caller is left hanging.

One agent, one broker, one fleet for all of it. For each fault the fleet rolls out a bundle that passes its self-test
and its bake time; then poison comes.
"""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeopt_contract.bundle import Bundle
from edgeopt_contract.topics import Topics
from edgeopt_contract.values import digest_of
from tests.agent.conftest import Broker, Device, FakeFleet, wait_until, write_identity
from tests.tiny import POISON, Recipe, samples, tiny_bundle
from tests.treacherous import register

pytestmark = pytest.mark.runner

GOOD = samples(1, 1)[0]
BAD = np.full(4, POISON, np.float32)
CALLERS = 4
LIMIT_SECONDS = 1.0  # the infer timeout
LONGEST_SECONDS = 20.0  # an answer or a refusal comes within the timeout, on a machine that is busy with other things
CRASHES = 3  # in a row, after which the bundle is at fault


@dataclass
class Caller:
    """Asks over HTTP and notes what it got, and how long it took."""

    port: int
    seen: Counter[tuple[int, str]] = field(default_factory=Counter)
    longest: float = 0.0

    def ask(self, value: np.ndarray) -> tuple[int, Any]:
        """Return the status and the body; count status and version."""
        tensor = {"name": "x", "shape": [1, 4], "datatype": "FP32", "data": value.tolist()}
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        start = time.monotonic()
        connection.request("POST", "/v2/models/tiny/infer", json.dumps({"inputs": [tensor]}))
        answer = connection.getresponse()
        body = json.loads(answer.read())
        self.longest = max(self.longest, time.monotonic() - start)
        connection.close()
        self.seen[answer.status, body.get("model_version", "")] += 1
        return answer.status, body


@dataclass
class Field:
    """A device that serves, and the fleet that updates it."""

    fleet: FakeFleet
    device: Device
    root: Path
    port: int
    good: Bundle
    jobs: int = 0

    def roll_out(self, bundle: Bundle, **fields: Any) -> str:
        """Bring ``bundle`` to the device and return the job once it is confirmed."""
        self.jobs += 1
        job = f"job-{self.jobs}"
        self.fleet.publish_bundle(bundle)
        self.fleet.desire(bundle, job, **fields)
        self.fleet.wait_for("confirmed", job, 60)
        return job

    def make(self, **recipe: Any) -> Bundle:
        """Make a bundle of a version of its own."""
        version = str(self.jobs + 100)
        return tiny_bundle(self.root / f"bundle-{version}", Recipe(version=version, **recipe))


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Field]:
    """A device with a good bundle, version 'good', that answers over HTTP."""
    root = tmp_path_factory.mktemp("faults")
    broker = Broker(root / "broker", "nats")
    broker.start()
    fleet = FakeFleet(broker.port)
    fleet.connect()
    options = ("--http", "0", "--infer-timeout", str(LIMIT_SECONDS), "--memory-limit", "400")
    device = Device(root / "device", options)
    write_identity(device.data, fleet.signer, fleet.port)
    register(root / "packages")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", f"{root / 'packages'}:{Path.cwd()}")
        device.start()
    try:
        found = wait_until("the port", lambda: re.search(r"http_listening\W+port\W+(\d+)", device.log.read_text()))
        good = tiny_bundle(root / "good", Recipe(version="good", sharpness=2.0))
        yield Field(fleet, device, root, int(found[1]), good)
        device.stop()
    finally:
        device.kill()
        fleet.close()
        broker.kill()


FAULTS: dict[str, dict[str, Any]] = {
    "dies of signal 11": {"runtime": "segfaulting"},
    "computes for ever": {"poisonable": True},
    "is stopped": {"runtime": "stopping"},
    "asks for 32 GiB": {"poison_eats_memory": True},
    "hoards shared memory": {"runtime": "hoarding"},
    "answers NaN": {"poison_gives_nan": True},
}


@pytest.mark.parametrize("fault", FAULTS)
def test_previous_model_serves_again(place: Field, fault: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The bundle before serves again; until then every request is answered or refused, and few are tried in vain."""
    place.roll_out(place.good)
    bad = place.make(**FAULTS[fault])
    job = place.roll_out(bad)
    callers = [Caller(place.port) for _ in range(CALLERS)]
    assert (200, bad.manifest.version) == _version(callers[0].ask(GOOD))

    back = threading.Event()
    threads = [threading.Thread(target=_ask_until, args=(caller, back)) for caller in callers]
    start = time.monotonic()
    for thread in threads:
        thread.start()
    report = place.fleet.wait_for("rolled_back", job, 90)
    seconds = time.monotonic() - start
    back.set()
    for thread in threads:
        thread.join(60)

    seen = sum((caller.seen for caller in callers), Counter())
    tried = sum(count for (status, version), count in seen.items() if status == 500 or version == bad.manifest.version)
    refused = sum(count for (status, _), count in seen.items() if status == 503)
    longest = max(caller.longest for caller in callers)
    with capsys.disabled():
        print(
            f"\n  {fault}: the model before serves after {seconds:.1f} s; {tried} requests tried in vain, "
            f"{refused} refused at once, longest {longest:.2f} s"
        )
    assert ("runs_old_restored", place.good.digest) == (report.result, report.running), report.detail
    assert set(seen) <= {(200, "good"), (200, bad.manifest.version), (500, ""), (503, "")}, seen
    assert (200, "good") == _version(callers[0].ask(GOOD))
    assert longest < LONGEST_SECONDS
    # Crashes in a row, or the answers that it takes to be sure of NaN; one more of each caller may be on its way.
    assert tried <= (1 if "NaN" not in fault else 40) + CRASHES + CALLERS


def _version(answer: tuple[int, Any]) -> tuple[int, str]:
    status, body = answer
    return status, body.get("model_version", "")


def _ask_until(caller: Caller, back: threading.Event) -> None:
    """Send poison, as fast as answers come; back off a little when refused, as a client should."""
    while not back.is_set():
        status, _ = caller.ask(BAD)
        if status == 503:
            back.wait(0.02)


def test_runtime_that_does_not_work_here_gives_way_to_the_next_variant(place: Field) -> None:
    """A runtime that is installed and cannot be imported: the other variant serves, and the fleet hears why."""
    bundle = place.make(preferred_runtime="absent")
    for path in (entry.path for entry in bundle.manifest.files):
        data = (bundle.directory / path).read_bytes()
        place.fleet.publish(Topics.block(digest_of(data)), data)
    job = place.roll_out(bundle)
    states = place.fleet.states(job)
    assert ["downloading", "verifying", "staged", "self_test"] * 2 == states[1:9]
    (report,) = [report for report in place.fleet.reports(job) if "does not run on this board" in report.detail]
    assert "the variant preferred" in report.detail
    assert "the runtime absent cannot be imported" in report.detail
    assert (200, bundle.manifest.version) == _version(Caller(place.port).ask(GOOD))


def test_runner_that_was_killed_is_missed_by_one_request_at_most(
    place: Field, capsys: pytest.CaptureFixture[str]
) -> None:
    """Signals from outside: each runner is replaced; rows and errors of all windows are what was answered."""
    place.roll_out(place.good)
    before = _totals(place)
    caller = Caller(place.port)
    for number in (signal.SIGSEGV, signal.SIGKILL, signal.SIGSTOP):
        (runner,) = _runners(place.device)
        os.kill(runner, number)
        wait_until("another runner to answer", lambda: caller.ask(GOOD)[0] == 200, 30)
    answered, failed = caller.seen[200, "good"], caller.seen[500, ""]
    rows, errors = wait_until("the windows", lambda: _grown(place, before, answered + failed), 30)
    with capsys.disabled():
        print(f"\n  runners killed: {answered} answered, {failed} failed; told: {rows} rows, {errors} errors")
    assert failed <= 3
    assert (answered, failed) == (rows, errors)


def _runners(device: Device) -> list[int]:
    return [pid for pid in device.runners() if b"edgeopt_agent.runner" in Path(f"/proc/{pid}/cmdline").read_bytes()]


def _totals(place: Field) -> tuple[int, int]:
    windows = place.fleet.telemetry(place.good.digest)
    return sum(window.rows for window in windows), sum(window.errors for window in windows)


def _grown(place: Field, before: tuple[int, int], requests: int) -> tuple[int, int] | None:
    rows, errors = (now - then for now, then in zip(_totals(place), before, strict=True))
    return (rows, errors) if rows + errors >= requests else None
