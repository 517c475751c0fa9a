"""A broker with two bundles, a device that runs the older one, and two workers who disturb its update."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import pytest

from edgeopt_contract.codec import encode
from tests.agent.conftest import MOSQUITTO, Broker, Device, FakeFleet, wait_until, write_identity
from tests.sweep.bench import AGAIN, JOB
from tests.sweep.tracer import why_not_traceable
from tests.tiny import Recipe, tiny_bundle

_WORKERS = 2
_PAGE = ("pwrite64", "agent.db-wal")
PADDINGS = (120_000, 60_000, 120_000)  # of v0, v1, v2: what v2 needs lies partly in the one slot, partly in the other


@dataclass
class Sweep:
    """Workers that take orders, and the calls of an undisturbed update."""

    workers: list[subprocess.Popen[str]]
    recorded: list[list[dict[str, Any]]]  # by each worker

    @property
    def calls(self) -> list[dict[str, Any]]:
        """The calls of one update, in order."""
        return self.recorded[0]

    def for_kills(self) -> list[int]:
        """All points, but of the pages of one SQLite commit only the first and the last.

        In between a kill leaves the same by construction: a commit without its end, which SQLite does not read.
        """
        kept = [number for commit in self._commits() for number in {commit[0], commit[-1]}]
        return sorted([*self._others(), *kept])

    def for_errors(self) -> list[int]:
        """All points, but of the pages of one SQLite commit only one, another each time.

        SQLite answers an error at any of them in the same way: it takes the whole commit back and reports it.
        """
        kept = [commit[turn % len(commit)] for turn, commit in enumerate(self._commits())]
        return sorted([*self._others(), *kept])

    def _commits(self) -> list[list[int]]:
        """The points at which pages of each SQLite commit are written."""
        commits: list[list[int]] = [[]]
        for call in self.calls:
            if (call["name"], call["path"]) == _PAGE:
                commits[-1].append(call["number"])
            elif commits[-1]:
                commits.append([])
        return [commit for commit in commits if commit]

    def _others(self) -> list[int]:
        return [call["number"] for call in self.calls if (call["name"], call["path"]) != _PAGE]

    def all(self, orders: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Have all ``orders`` carried out; return the outcomes in their order."""
        free: SimpleQueue[subprocess.Popen[str]] = SimpleQueue()
        for worker in self.workers:
            free.put(worker)

        def carry_out(order: dict[str, Any]) -> dict[str, Any]:
            worker = free.get()
            try:
                return ask(worker, order)
            finally:
                free.put(worker)

        with ThreadPoolExecutor(len(self.workers)) as pool:
            return list(pool.map(carry_out, orders))


def ask(worker: subprocess.Popen[str], order: dict[str, Any]) -> Any:
    """Have one order carried out."""
    assert worker.stdin is not None
    assert worker.stdout is not None
    worker.stdin.write(json.dumps(order) + "\n")
    worker.stdin.flush()
    answer = worker.stdout.readline()
    assert answer, f"the worker died at {order}"
    return json.loads(answer)


@pytest.fixture(scope="session")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sweep]:
    """A device that runs v1 (v0 lies in the other slot) and is offered v2, which shares blocks with both."""
    reason = why_not_traceable() or (MOSQUITTO is None and "mosquitto is not installed (apt-get install mosquitto)")
    if reason:
        pytest.skip(reason)
    root = tmp_path_factory.mktemp("sweep")
    broker = Broker(root / "broker", "mosquitto")
    broker.start()
    workers: list[subprocess.Popen[str]] = []
    try:
        _prepare(root, broker.port)
        command = [sys.executable, "-m", "tests.sweep.worker", str(root)]
        workers += [
            subprocess.Popen(
                [*command, f"cam-{i}", str(broker.port)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
            )
            for i in range(2, 2 + _WORKERS)
        ]
        yield Sweep(workers, [ask(worker, {"do": "record"}) for worker in workers])
    finally:
        for worker in workers:
            worker.kill()
            worker.communicate()
        broker.kill()


def _prepare(root: Path, port: int) -> None:
    """Make ``base``, a device with v0 and v1 in its slots, and the plan that the workers read."""
    fleet = FakeFleet(port)
    fleet.connect()
    device = Device(root / "base")
    write_identity(device.data, fleet.signer, port)
    bundles = [
        tiny_bundle(root / f"v{n}", Recipe(version=str(n), sharpness=4.0 + n, padding_bytes=padding))
        for n, padding in enumerate(PADDINGS)
    ]
    device.start("--window", "3600")
    for n, bundle in enumerate(bundles):
        fleet.publish_bundle(bundle)
        if n < 2:
            fleet.desire(bundle, f"to-v{n}", bake_seconds=0)
            fleet.wait_for("confirmed", f"to-v{n}")
    wait_until("the acknowledgements", lambda: device.status()["spool"]["unacknowledged"] == 0)
    device.stop()
    fleet.close()
    offers = {
        job: base64.b64encode(encode(fleet.signer.desired(bundles[2].digest, job, bake_seconds=0))).decode()
        for job in (JOB, AGAIN)
    }
    plan = {"old": bundles[1].digest, "new": bundles[2].digest, "offers": offers}
    (root / "plan.json").write_text(json.dumps(plan))
