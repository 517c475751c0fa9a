"""A broker, a fleet's side of the protocol, and one real agent with the settings that it has in the field.

The fleet's side is the tests': it publishes and acknowledges, and costs nothing while it is measured. Example::

    with Rig.start(Path("scratch")) as rig:
        rig.roll_out(bundle)
        rig.agent_pid, rig.runner_pid, rig.http_port
"""

from __future__ import annotations

import contextlib
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from edgeopt_contract.bundle import Bundle
from tests.agent.conftest import Broker, FakeFleet, wait_until, write_identity

__all__ = ["Rig"]

_LISTENS = re.compile(r'"event":"http_listening","port":(\d+)')


@dataclass
class Rig:
    """Everything that runs."""

    broker: Broker
    fleet: FakeFleet
    data: Path
    process: subprocess.Popen[bytes]
    jobs: int = 0

    @classmethod
    @contextlib.contextmanager
    def start(cls, directory: Path, broker_kind: str = "mosquitto") -> Iterator[Rig]:
        """Start broker and agent; end both."""
        broker = Broker(directory / "broker", broker_kind)
        broker.start()
        fleet = FakeFleet(broker.port)
        data = directory / "device"
        try:
            fleet.connect()
            write_identity(data, fleet.signer, fleet.port)
            command = [str(Path(sys.executable).parent / "edgeopt-agent"), "run", "--data", str(data), "--http", "0"]
            with (directory / "agent.log").open("ab") as log:
                process = subprocess.Popen(command, stdout=log, stderr=log)
            try:
                yield cls(broker, fleet, data, process)
            finally:
                process.terminate()
                process.wait(20)
        finally:
            fleet.close()
            broker.kill()

    @property
    def agent_pid(self) -> int:
        """The agent's process."""
        return self.process.pid

    @property
    def runner_pid(self) -> int:
        """The process that has the model."""
        pid = self.process.pid
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        (runner,) = [int(child) for child in children if b"edgeopt_agent.runner" in _command(child)]
        return runner

    @property
    def http_port(self) -> int:
        """Where the agent answers."""
        log = self.data.parent / "agent.log"
        found = wait_until("the agent's port", lambda: _LISTENS.search(log.read_text()))
        return int(found[1])

    def publish(self, bundle: Bundle) -> None:
        """Let the broker have the bundle, so that it waits for the device and not the other way round."""
        self.fleet.publish_bundle(bundle)

    def roll_out(self, bundle: Bundle, bake_seconds: float = 0.0) -> float:
        """Desire a published bundle and return the seconds until the device has confirmed it."""
        self.jobs += 1
        job = f"job-{self.jobs}"
        start = time.perf_counter()
        self.fleet.desire(bundle, job, bake_seconds=bake_seconds)
        while "confirmed" not in self.fleet.states(job):
            if self.process.poll() is not None or time.perf_counter() - start > 120:
                raise RuntimeError(f"{job} is {self.fleet.reports(job)[-1:]}; see {self.data.parent / 'agent.log'}")
            time.sleep(0.001)
        return time.perf_counter() - start


def _command(pid: str) -> bytes:
    with contextlib.suppress(OSError):  # it has ended
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    return b""
