"""A fleet server, its broker and some agents as real processes on this machine.

It starts, kills (-9) and restarts them, and speaks to them only as a user would: through the three commands and
the HTTP API. Example::

    with System(directory) as system:
        system.start_fleet()
        system.enrol({"cam-1": {"site": "oslo"}})
        system.start_agent("cam-1", source="examples.digits:field")
        system.edgeopt("publish", "bundle")
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import httpx

__all__ = ["CommandError", "Program", "System", "wait_until"]

_STOP_SECONDS = 10.0
T = TypeVar("T")


class CommandError(Exception):
    """A command ended with another exit code than expected; the text holds what it printed."""


def wait_until(what: str, probe: Callable[[], T | None], seconds: float = 120.0, every: float = 0.1) -> T:
    """Return the first truthy value of ``probe``. Raises :class:`TimeoutError`, which names ``what``."""
    deadline = time.monotonic() + seconds
    while True:
        value = probe()
        if value:
            return value
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited {seconds:.0f} s for {what}")
        time.sleep(every)


@dataclass
class Program:
    """One long-running process and the file that holds what it prints."""

    command: Sequence[str]
    log: Path
    environment: Mapping[str, str]
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it; its output is appended to the log."""
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                self.command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, env={**os.environ, **self.environment}
            )

    @property
    def pid(self) -> int:
        """The process id of the running process."""
        assert self.process is not None
        return self.process.pid

    def kill(self) -> None:
        """``kill -9``."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def stop(self) -> int | None:
        """Ask it to end, insist after a while, and return its exit code; ``None`` if it never ran."""
        if self.process is None:
            return None
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(_STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self.kill()
        return self.process.returncode


@dataclass
class System:
    """Everything that runs, below one directory; leaving the context stops all of it."""

    directory: Path
    server: Program | None = None
    agents: dict[str, Program] = field(default_factory=dict)

    def __enter__(self) -> Self:
        self.directory.mkdir(parents=True, exist_ok=True)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        for agent in self.agents.values():  # ask all before waiting for each
            if agent.process is not None and agent.process.poll() is None:
                agent.process.terminate()
        for agent in self.agents.values():
            agent.stop()
        if self.server is not None:
            self.server.stop()

    # --- commands -------------------------------------------------------------------------------------------------

    @property
    def operator_file(self) -> Path:
        """What ``edgeopt --fleet`` needs."""
        return self.directory / "fleet" / "operator.json"

    def command(
        self, program: str, *arguments: str, expect: int = 0, environment: Mapping[str, str] | None = None
    ) -> str:
        """Run one command to its end and return what it printed on standard output."""
        executable = Path(sys.executable).parent / program
        done = subprocess.run(
            [str(executable), *arguments],
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, "EDGEOPT_FLEET": str(self.operator_file), **(environment or {})},
        )
        if done.returncode != expect:
            raise CommandError(
                f"{program} {' '.join(arguments)}: expected exit code {expect}, got {done.returncode}\n"
                f"{done.stdout}{done.stderr}"
            )
        return done.stdout

    def edgeopt(self, *arguments: str, expect: int = 0) -> str:
        """Run ``edgeopt …`` as the operator."""
        return self.command("edgeopt", *arguments, expect=expect)

    # --- the server -----------------------------------------------------------------------------------------------

    def start_fleet(self, *init_options: str) -> None:
        """Create the fleet on the first call, then serve it; returns when it is connected to its broker."""
        home = self.directory / "fleet"
        if not home.exists():
            self.command("edgeopt-fleet", "init", str(home), *init_options)
        if self.server is None:
            executable = Path(sys.executable).parent / "edgeopt-fleet"
            self.server = Program([str(executable), "serve", str(home)], self.directory / "fleet.log", {})
        self.server.start()
        wait_until("the fleet server", self._fleet_is_ready)

    def broker_pid(self) -> int:
        """The process id of the embedded broker."""
        return int((self.directory / "fleet" / "run" / "broker.pid").read_text())

    def kill_broker(self) -> None:
        """``kill -9`` the broker; the server starts it again."""
        os.kill(self.broker_pid(), signal.SIGKILL)

    def get(self, path: str) -> Any:
        """``GET /api/v1/<path>`` as the operator."""
        access = json.loads(self.operator_file.read_text())
        answer = httpx.get(
            f"{access['url']}/api/v1/{path}",
            headers={"Authorization": f"Bearer {access['key']}"},
            timeout=10,
            verify=_trust(access),
        )
        answer.raise_for_status()
        return answer.json()

    def _fleet_is_ready(self) -> bool:
        with contextlib.suppress(OSError, httpx.HTTPError):
            access = json.loads(self.operator_file.read_text())
            answer = httpx.get(f"{access['url']}/healthz", timeout=2, verify=_trust(access))
            return bool(answer.json()["broker"] == "connected")
        return False

    # --- devices --------------------------------------------------------------------------------------------------

    def home_of(self, device: str) -> Path:
        """The data directory of one agent."""
        return self.directory / "devices" / device

    def enrol(self, devices: Mapping[str, Mapping[str, str]]) -> None:
        """Give each of ``devices`` (name to tags) an identity, with one token that is good for all of them."""
        token = json.loads(self.edgeopt("token", "create", "--uses", str(len(devices)), "--json"))["token"]
        url = json.loads(self.operator_file.read_text())["url"]

        def enrol(device: str) -> None:
            tag_options = [part for key, value in devices[device].items() for part in ("--tag", f"{key}={value}")]
            self.command(
                "edgeopt-agent", "enroll", "--server", url, "--token", token, "--device", device,
                "--data", str(self.home_of(device)), *tag_options,
            )  # fmt: skip

        with ThreadPoolExecutor() as pool:
            list(pool.map(enrol, devices))

    def start_agent(self, device: str, *options: str, environment: Mapping[str, str] | None = None) -> None:
        """Start the agent of an enrolled device; ``options`` go to ``edgeopt-agent run``."""
        executable = Path(sys.executable).parent / "edgeopt-agent"
        command = [str(executable), "run", "--data", str(self.home_of(device)), *options]
        program = Program(command, self.directory / f"{device}.log", environment or {})
        self.agents[device] = program
        program.start()

    def agent_status(self, device: str) -> Any:
        """What ``edgeopt-agent status --json`` says; it reads the agent's files."""
        return json.loads(self.command("edgeopt-agent", "status", "--data", str(self.home_of(device)), "--json"))

    # --- rollouts -------------------------------------------------------------------------------------------------

    def rollout(self, name: str) -> Any:
        """The rollout as the API shows it."""
        return self.get(f"rollouts/{name}")

    def wait_for_rollout(self, name: str, *states: str, seconds: float = 90) -> Any:
        """Wait until the rollout is in one of ``states`` and return it."""

        def probe() -> Any:
            with contextlib.suppress(httpx.TransportError):
                view = self.rollout(name)
                return view if view["state"] in states else None
            return None

        return wait_until(f"rollout {name} to be {' or '.join(states)}", probe, seconds, every=0.2)


def _trust(access: Mapping[str, str]) -> ssl.SSLContext:
    """Return whom to believe over HTTPS: the CA that operator.json names, or the system's."""
    return ssl.create_default_context(cadata=access.get("ca"))
