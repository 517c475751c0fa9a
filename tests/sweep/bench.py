"""One device on the bench: an agent that is forked ready to run, disturbed at a call, started again, and looked at.

The agent is the real one, in a process of its own; it and its children are forked from a process that has imported
them, so that a start costs no imports. Beside it runs a source that asks for an inference and writes down who answered.
The bench is also the fleet: it publishes what is desired and acknowledges what the device tells. Example::

    bench = Bench(Path("bench"), "cam-1", port)
    calls = bench.record()
    bench.kill(7)
"""

from __future__ import annotations

import asyncio
import errno
import json
import os
import shutil
import signal
import time
from array import array
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from paho.mqtt.publish import single

from edgeopt_agent import app
from edgeopt_agent.config import AgentConfig
from edgeopt_agent.inference.serving import Serving
from edgeopt_agent.log import configure_logging, log_event
from edgeopt_agent.reports.spool import Spool
from edgeopt_agent.runner.frames import Tensor
from edgeopt_agent.update import lifecycle, updater
from edgeopt_agent.update.journal import Journal
from edgeopt_contract.codec import encode
from edgeopt_contract.commands import run_command
from edgeopt_contract.messages import Ack
from edgeopt_contract.topics import Topics
from edgeopt_contract.values import digest_of
from tests.sweep.disk import Disk
from tests.sweep.forked import fork_children
from tests.sweep.tracer import Call, Traced, Verdict

__all__ = ["JOB", "Bench", "Outcome", "tree_of"]

JOB = "to-v2"
AGAIN = "to-v2-again"
_UNTIL_THE_NEXT_START = ("left behind", "missing: counts/")  # without their file, counts lie in memory till then
_SAMPLE = Tensor("x", "float32", (4,), array("f", [1, 2, 3, 4]).tobytes())
_PATIENCE_SECONDS = 60.0
_ACK_AGAIN_SECONDS = 0.5


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a disturbed update; ``faults`` is empty when everything holds that must hold."""

    call: str = ""
    way: str = ""  # how it came to an end: in words, to be counted
    refetched: int = 0
    faults: list[str] = field(default_factory=list)


class Probe:
    """A source that asks again and again, and writes down who answers when that changes."""

    async def run(self, serving: Serving) -> None:
        """Ask until cancelled."""
        last = ""
        while True:
            await serving.wait_until_serving()
            inference = await serving.infer([_SAMPLE])
            if inference.bundle != last:
                last = inference.bundle
                log_event("answered", bundle=last)
            await asyncio.sleep(0.02)


class Watch:
    """Follows what an agent prints, plays the fleet, and ends the agent when its update is over."""

    def __init__(self, bench: Bench, pid: int, job: str) -> None:
        self._bench = bench
        self._pid = pid
        self._job = job
        self._log = bench.log.open("r")
        self._log.seek(0, os.SEEK_END)
        self._until = time.monotonic() + _PATIENCE_SECONDS
        self._stage = "under way"
        self._acknowledged_at = 0.0
        self.state = ""
        self.answered: list[str] = []
        self.delivery: dict[str, Any] = {}
        self.fetched = 0

    def look(self) -> None:
        """Read on, and do what is due."""
        for line in self._log:
            words: dict[str, Any] = json.loads(line) if line.startswith("{") else {}
            match words.get("event"):
                case "answered":
                    self.answered.append(words["bundle"])
                case "delivery":
                    self.delivery = words
                case "update" if words["state"] == "verifying" and words.get("detail", "").startswith("fetched "):
                    self.fetched = int(words["detail"].split()[1])
                case "update" if words["job"] == self._job and "result" in words:
                    self.state = words["state"]
        if self._stage == "under way" and self.state and self._has_answered():
            self._acknowledge()
        elif self._stage == "acknowledged" and not self._bench.unacknowledged():
            os.kill(self._pid, signal.SIGTERM)
            self._stage = "ending"
        elif self._stage == "acknowledged" and time.monotonic() > self._acknowledged_at + _ACK_AGAIN_SECONDS:
            self._acknowledge()  # the disk refused the first: a fleet acknowledges what is sent again
        if time.monotonic() > self._until and self._stage != "given up":
            self._stage = "given up"
            os.kill(self._pid, signal.SIGKILL)

    def _acknowledge(self) -> None:
        self._bench.acknowledge()
        self._stage, self._acknowledged_at = "acknowledged", time.monotonic()

    def _has_answered(self) -> bool:
        return bool(self.answered) and (self.state != "confirmed" or self.answered[-1] == self._bench.new)


class Bench:
    """See the module. ``root`` holds ``base`` (a device that runs v1) and whatever the bench makes beside it."""

    def __init__(self, root: Path, device: str, port: int, digests: tuple[str, str], offers: dict[str, bytes]) -> None:
        self.old, self.new = digests
        self._root = root
        self._device = device
        self._port = port
        self._offers = offers
        self._offered = ""
        self.data = root / f"data-{device}"
        self._disk: Disk | None = None
        self.log = root / f"{device}.log"
        self.log.touch()
        self.expected: dict[str, bytes | None] = {}
        self.to_fetch = 0

    # --- what is done to the device -------------------------------------------------------------------------------

    def record(self) -> list[Call]:
        """Let an undisturbed update run; return every call by which it changed the disk."""
        calls: list[Call] = []
        traced, watch = self._start_traced()

        def judge(call: Call) -> Verdict:
            calls.append(call)
            return Verdict()

        code = traced.run(judge, watch.look)
        assert (0, "confirmed") == (code, watch.state), self._tail()
        self.expected = tree_of(self.data)
        self.to_fetch = int(watch.delivery["missing"]) + 1  # and the manifest
        return calls

    def kill(self, number: int) -> Outcome:
        """Kill the agent before its call ``number`` takes effect, and start it again."""
        seen: list[Call] = []

        def judge(call: Call) -> Verdict:
            if call.number == number:
                seen.append(call)
            return Verdict(kill=call.number == number)

        traced, watch = self._start_traced()
        traced.run(judge, watch.look)
        if not seen:
            return Outcome(way="not reached", faults=[f"there was no call {number}"])
        return self._recover(str(seen[0]), "killed")

    def fail(self, number: int, error: int) -> Outcome:
        """Let the call ``number`` of the agent fail once; start the agent again if it ended."""
        seen: list[Call] = []

        def judge(call: Call) -> Verdict:
            if call.number == number:
                seen.append(call)
            return Verdict(error=error if call.number == number else 0)

        traced, watch = self._start_traced()
        code = traced.run(judge, watch.look)
        if not seen:
            return Outcome(way="not reached", faults=[f"there was no call {number}"])
        name = f"{errno.errorcode[error]} at {seen[0]}"
        if code == 0 and watch.state == "confirmed":
            faults = self._faults(watch)
            if faults and all(fault.startswith(_UNTIL_THE_NEXT_START) for fault in faults):
                return self._recover(name, "went on, put in order at the next start", AGAIN)
            return Outcome(name, "went on", faults=faults)
        if code < 0 or (code == 0 and not watch.state):
            return Outcome(name, "died", faults=[f"it ended with {code} in state {watch.state!r}", *self._tail()])
        if watch.state:
            return self._recover(name, f"{watch.state}, offered again", AGAIN)
        return self._recover(name, "ended with a message, started again")

    def cut(self, number: int) -> Outcome:
        """Unplug the disk and the agent before its call ``number`` takes effect; start both again. Needs root."""
        disk, plain = Disk(self._root / self._device), self.data
        seen: list[Call] = []
        synced: set[str] = set()

        def judge(call: Call) -> Verdict:
            if call.number == number:
                seen.append(call)
                disk.cut()
            elif call.number < number and call.name == "fsync" and call.path.startswith("incoming/"):
                synced.add(call.path)
            return Verdict(kill=call.number == number)

        disk.make()
        try:
            self.data, self._disk = disk.mounted / "data", disk
            traced, watch = self._start_traced()
            # Once the disk is unplugged nobody can look into the spool, while the agent that was killed still ends.
            traced.run(judge, lambda: None if seen else watch.look())
            if not seen:
                return Outcome(way="not reached", faults=[f"there was no call {number}"])
            disk.mount_again()
            return self._recover(str(seen[0]), "unplugged", saved=len(synced))
        finally:
            self.data, self._disk = plain, None
            disk.remove()

    # --- what must hold -------------------------------------------------------------------------------------------

    def _recover(self, call: str, way: str, job: str = JOB, saved: int | None = None) -> Outcome:
        """Start the agent once more, undisturbed, and look whether everything holds.

        ``saved`` blocks must not be fetched again; by default those that are on the disk.
        """
        if saved is None:
            saved = sum(digest_of(path.read_bytes()) == path.name for path in self.data.glob("incoming/*"))
        self.offer(job)
        settled = self._settled(job)
        pid = self._fork()
        watch = Watch(self, pid, job)
        watch.state = settled
        code = _wait(pid, watch.look)
        faults = [f"the next start ended with {code}"] if code else []
        faults += self._faults(watch)
        again = watch.fetched
        refetched = max(0, again + saved - self.to_fetch) if again else 0
        if refetched > 1:
            faults.append(f"{refetched} blocks were fetched again")
        return Outcome(call, way, refetched, faults + (self._tail() if faults else []))

    def _faults(self, watch: Watch) -> list[str]:
        faults = []
        if watch.state != "confirmed":
            faults.append(f"the update came to {watch.state or 'no end'}")
        if not watch.answered or watch.answered[0] not in (self.old, self.new):
            faults.append(f"nobody answered: {watch.answered}")
        found = tree_of(self.data)
        faults += [f"left behind: {name}" for name in sorted(found.keys() - self.expected.keys())]
        gone = self.expected.keys() - found.keys() - self._told_from_memory()
        faults += [f"missing: {name}" for name in sorted(gone)]
        both = found.keys() & self.expected.keys()
        faults += [f"differs: {name}" for name in sorted(both) if found[name] != self.expected[name]]
        return faults

    def _told_from_memory(self) -> set[str]:
        """Return the file that v1 need not leave: it waits for the next window, unless v1 counted in memory.

        The agent has said so, and has told at its end what was there.
        """
        if '"event":"counts_in_memory"' not in self.log.read_text():
            return set()
        return {name for name in self.expected if name.startswith(f"counts/{self.old[:16]}.")}

    def _tail(self) -> list[str]:
        return self.log.read_text().splitlines()[-25:]

    # --- the fleet's part -----------------------------------------------------------------------------------------

    def offer(self, job: str) -> None:
        """Publish the desired state, if it is not published yet."""
        if job != self._offered:
            self._publish(Topics.desired(self._device), self._offers[job], retain=True)
            self._offered = job

    def acknowledge(self) -> None:
        """Acknowledge all that the device has numbered."""
        totals = self._totals()
        self._publish(Topics.ack(self._device), encode(Ack(session=totals.session, upto=totals.last_number)))

    def unacknowledged(self) -> int:
        """Return how many messages the device still keeps."""
        return int(self._totals().unacknowledged)

    def _settled(self, job: str) -> str:
        """Return the state in which ``job`` came to rest before this start, or an empty text."""
        spool = Spool.look_into(self.data / "agent.db")
        if spool is None:
            return ""
        try:
            update = Journal(spool).load()
        finally:
            spool.close()
        return str(update.state) if update.settled and update.job == job else ""

    def _totals(self) -> Any:
        spool = Spool.look_into(self.data / "agent.db")
        assert spool is not None
        try:
            return spool.totals()
        finally:
            spool.close()

    def _publish(self, topic: str, payload: bytes, *, retain: bool = False) -> None:
        single(topic, payload, qos=1, retain=retain, hostname="127.0.0.1", port=self._port)

    # --- starting -------------------------------------------------------------------------------------------------

    def _start_traced(self) -> tuple[Traced, Watch]:
        self.offer(JOB)
        self.put_back()
        traced = Traced(self._run_agent, self.data)
        return traced, Watch(self, traced.pid, JOB)

    def put_back(self) -> None:
        """Bring the device into its starting state."""
        shutil.rmtree(self.data, ignore_errors=True)
        shutil.copytree(self._root / "base", self.data, symlinks=True)
        identity = self.data / "device.json"
        identity.write_text(identity.read_text().replace('"cam-1"', f'"{self._device}"'))
        if self._disk is not None:
            os.sync()  # the starting state is safe
        self.log.write_text("")

    def _fork(self) -> int:
        pid = os.fork()
        if pid:
            return pid
        try:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGCHLD})
            code = self._run_agent()
        finally:
            os._exit(code)

    def _run_agent(self) -> int:
        log = os.open(self.log, os.O_WRONLY | os.O_APPEND)
        os.dup2(log, 1)
        os.dup2(log, 2)
        configure_logging()
        fork_children()
        updater._DISK_RETRY_SECONDS = 0.05
        lifecycle._FIRST_PAUSE_SECONDS = 0.05
        app.make_sources = lambda _: [Probe()]  # type: ignore[assignment,list-item]  # in this forked process only
        config = AgentConfig(data=self.data, window_seconds=3600, resend_seconds=5, block_timeout_seconds=2)
        return run_command(lambda: asyncio.run(app.run_agent(config)))


def tree_of(data: Path) -> dict[str, bytes | None]:
    """Return every path below ``data`` with its content; None where that holds times or counts."""
    tree: dict[str, bytes | None] = {}
    for path in data.rglob("*"):
        name = str(path.relative_to(data))
        if path.is_symlink():
            tree[name] = os.fsencode(path.readlink())
        elif path.is_file():
            tree[name] = path.read_bytes() if name.startswith("slots/") or name == "device.json" else None
        else:
            tree[name] = b"/"
    return tree


def _wait(pid: int, look: Callable[[], None]) -> int:
    """Wait until the child ``pid`` has ended; return its exit code."""
    while True:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        look()
        signal.sigtimedwait({signal.SIGCHLD}, 0.01)
