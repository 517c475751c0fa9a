"""Bad links for tests and programs: network namespaces, and a process between them that delays and loses packets.

The *near* end is where servers run, the *far* end where a device does; each is a network namespace with a loopback of
its own. Nothing of it is left when the ``with`` block ends; when this process dies meanwhile, what runs at the ends is
killed. Random losses follow the seed;
when packets come follows the machine. Nothing is sent outside. Example::

    with link(delay_ms=200, loss=0.05, rate_bits=384_000) as line:         # or link(**asdict(PRESETS["3G"]))
        with line.near.entered():                                        # this thread, and what it starts
            broker = subprocess.Popen(["mosquitto", "-c", conf])          # listens on 0.0.0.0
        agent = subprocess.Popen(line.far.command("edgeopt-agent", …))   # connects to line.near.address
        line.change(loss=0.3)
        line.outage(14)
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from devices.emulator.conditions import Conditions, changed
from devices.emulator.namespaces import enter_command, inside, missing, privileged_prefix
from edgeopt_contract.errors import UsageError, WorldError

__all__ = ["Count", "End", "Link", "Network", "link", "network"]

_CHECKOUT = Path(__file__).resolve().parents[2]
_ENDING_SECONDS = 10


@dataclass(frozen=True, slots=True)
class End:
    """A network namespace at an end of a link; ``address`` is its IPv4 address there, ``pid`` holds it open."""

    address: str
    pid: int
    descriptor: int

    def command(self, *command: str) -> list[str]:
        """Return the command line that runs ``command`` there. The process id stays that of the command."""
        return [*enter_command(self.pid, self.descriptor), *command]

    @contextmanager
    def entered(self) -> Iterator[None]:
        """Move the calling thread there: its new sockets, its new threads and what it starts. Not its older threads.

        Raises :class:`UsageError` where only a whole program may (that is, without root): run that under ``unshare``.
        """
        namespace = os.open(f"/proc/{self.pid}/fd/{self.descriptor}", os.O_RDONLY | os.O_CLOEXEC)
        try:
            with inside(namespace):
                yield
        finally:
            os.close(namespace)


@dataclass(frozen=True, slots=True)
class Count:
    """What one direction was given, and how many of the packets it lost."""

    packets: int
    bytes: int
    lost: int


@dataclass(frozen=True, slots=True)
class Link:
    """A link of a :class:`Network`, with both its ends."""

    network: Network
    name: str
    near: End
    far: End

    def change(self, **conditions: float | bool) -> Conditions:
        """Change some conditions (see :class:`Conditions`) from now on; return all. Raises :class:`UsageError`."""
        return Conditions(**self.network.ask({"change": self.name, "conditions": conditions}))

    def outage(self, seconds: float) -> None:
        """Let the link lose everything for ``seconds`` from now; 0 ends an outage."""
        self.network.ask({"outage": self.name, "seconds": seconds})

    def count(self) -> tuple[Count, Count]:
        """Return what went up (from far to near) and what went down."""
        answer = self.network.ask({"count": self.name})
        return Count(**answer["up"]), Count(**answer["down"])


class Network:
    """A near end, and the links that lead to it. Use :func:`network`."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self.near = self._end(self._answer())

    def attach(self, name: str, conditions: Conditions) -> Link:
        """Add a link with a new namespace at its far end. Raises :class:`UsageError` for a name that is taken."""
        return Link(self, name, self.near, self._end(self.ask({"attach": name, "conditions": asdict(conditions)})))

    def end(self) -> None:
        """Say that the links are not needed any more; what still runs at their ends is left alone."""
        if self._process.poll() is None:
            self.ask({"end": True})

    def ask(self, request: dict[str, Any]) -> dict[str, Any]:
        """Send a request to the process that is the links, as :mod:`devices.emulator.wire` describes them."""
        assert self._process.stdin is not None  # it was started with pipes
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise WorldError(f"the emulated links ended with code {self._process.wait(_ENDING_SECONDS)}")
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise UsageError(answer["error"])
        return answer

    def _end(self, answer: dict[str, Any]) -> End:
        return End(answer["address"], self._process.pid, answer["namespace"])


@contextmanager
def network(*, seed: int = 0) -> Iterator[Network]:
    """Start a near end without links; it ends with the block, or with this process, however that ends.

    Raises :class:`UsageError` that says why, where links cannot be emulated.
    """
    reason = missing()
    if reason is not None:
        raise UsageError(reason)
    command = [*privileged_prefix(), sys.executable, "-m", "devices.emulator.wire", str(seed)]
    process = subprocess.Popen(
        command, cwd=_CHECKOUT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    with process:  # closes its standard input, upon which it ends
        made = Network(process)
        try:
            yield made
        finally:
            made.end()


def link(*, seed: int = 0, **conditions: float | bool) -> AbstractContextManager[Link]:
    """Start one link; ``conditions`` are those of :class:`Conditions`. Raises as :func:`network` and for bad ones."""
    return _one_link(seed, changed(Conditions(), conditions))


@contextmanager
def _one_link(seed: int, conditions: Conditions) -> Iterator[Link]:
    with network(seed=seed) as made:
        yield made.attach("device", conditions)
