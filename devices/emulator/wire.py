"""The process that is the links: packets from a TUN device in one namespace to one in another, late or never.

One namespace is *near* (the servers'), each attached one is *far* (a device's) and reaches only the near one. Requests
are JSON, one a line, on standard input; each is answered by a line on standard output. It ends with standard input. If
that ends without a request to end, the process that started it has died: then everything that runs in the namespaces is
killed, so that nothing outlives a test that was. Example::

    $ python -m devices.emulator.wire 7
    {"namespace": 3, "address": "10.77.0.1"}
    {"attach": "pi4", "conditions": {"delay_ms": 200}}
    {"namespace": 6, "address": "10.77.0.2"}
    {"change": "pi4", "conditions": {"loss": 0.3}}
    {}
    {"outage": "pi4", "seconds": 14}
    {}
    {"count": "pi4"}
    {"up": {"packets": 9, "bytes": 5403, "lost": 2}, "down": {"packets": 7, "bytes": 3201, "lost": 0}}
    {"end": true}
    {}
"""

from __future__ import annotations

import contextlib
import heapq
import json
import os
import select
import signal
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from random import Random
from typing import Any

from devices.emulator.conditions import Conditions, changed
from devices.emulator.namespaces import inside, new_namespace, open_tun
from devices.emulator.shaping import Shaper
from edgeopt_contract.errors import EdgeoptError, UsageError

__all__ = ["Wire", "main"]

_NETWORK = "10.77.0"
_MOST_LINKS = 200
_LARGEST_PACKET = 65_535


@dataclass(slots=True)
class _Direction:
    """One direction of a link: where its packets come out, and what became of them."""

    shaper: Shaper
    out: int
    packets: int = 0
    bytes: int = 0
    lost: int = 0


@dataclass(slots=True)
class _Link:
    """A far namespace and the two directions between it and the near one."""

    namespace: int
    address: str
    conditions: Conditions
    up: _Direction
    down: _Direction
    out_until: float = 0.0  # an outage ends by itself

    def at(self, now: float) -> Conditions:
        return replace(self.conditions, down=True) if now < self.out_until else self.conditions


@dataclass(order=True, slots=True)
class _Flight:
    """A packet under way; those that arrive together keep their order."""

    arrival: float
    number: int
    packet: bytes = field(compare=False)
    link: _Link = field(compare=False)
    direction: _Direction = field(compare=False)


class Wire:
    """All links of one near namespace."""

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self.near = new_namespace()
        with inside(self.near):
            self._near_tun = open_tun("link0", f"{_NETWORK}.1")
        self._links: dict[str, _Link] = {}
        self._by_tun: dict[int, _Link] = {}
        self._by_address: dict[bytes, _Link] = {}
        self._flights: list[_Flight] = []
        self._number = 0
        self.asked_to_end = False
        self._poll = select.poll()
        self._poll.register(self._near_tun, select.POLLIN)

    def run(self, on_requests: Callable[[], bool]) -> None:
        """Carry packets until ``on_requests``, called when standard input has something, returns ``False``."""
        self._poll.register(sys.stdin.fileno(), select.POLLIN)
        while True:
            ready = self._poll.poll(self._wait())
            for descriptor, _ in ready:
                if descriptor != sys.stdin.fileno():
                    self._take_in(descriptor)
                elif not on_requests():
                    return
            self._deliver()

    def answer(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Do what a request asks for. Raises :class:`UsageError` for one that makes no sense."""
        match request:
            case {"attach": str(name), "conditions": dict(conditions)} if name not in self._links:
                return self._attach(name, changed(Conditions(), conditions))
            case {"change": str(name), "conditions": dict(conditions)} if name in self._links:
                link = self._links[name]
                link.conditions = changed(link.conditions, conditions)
                return asdict(link.conditions)
            case {"outage": str(name), "seconds": int() | float() as seconds} if name in self._links:
                self._links[name].out_until = time.monotonic() + seconds
                return {}
            case {"count": str(name)} if name in self._links:
                return {way: self._count(getattr(self._links[name], way)) for way in ("up", "down")}
            case {"end": True}:
                self.asked_to_end = True
                return {}
        known = ", ".join(self._links) or "none"
        raise UsageError(f"expected attach, change, outage, count (of {known}) or end, got {request!r}")

    def kill_inhabitants(self) -> None:
        """SIGKILL every process in one of the namespaces."""
        namespaces = {os.fstat(fd).st_ino for fd in (self.near, *(link.namespace for link in self._links.values()))}
        for process in Path("/proc").glob("[0-9]*"):
            # gone meanwhile, or somebody else's
            with contextlib.suppress(FileNotFoundError, ProcessLookupError, PermissionError):
                if (process / "ns" / "net").stat().st_ino in namespaces:
                    os.kill(int(process.name), signal.SIGKILL)

    def _attach(self, name: str, conditions: Conditions) -> dict[str, Any]:
        if len(self._links) >= _MOST_LINKS:
            raise UsageError(f"expected at most {_MOST_LINKS} links, got one more")
        address = f"{_NETWORK}.{len(self._links) + 2}"
        namespace = new_namespace()
        with inside(namespace):
            tun = open_tun("link0", address)
        up = _Direction(self._shaper(name, "up"), self._near_tun)
        down = _Direction(self._shaper(name, "down"), tun)
        link = _Link(namespace, address, conditions, up, down)
        self._links[name] = self._by_tun[tun] = self._by_address[_packed(address)] = link
        self._poll.register(tun, select.POLLIN)
        return {"namespace": namespace, "address": address}

    def _shaper(self, name: str, way: str) -> Shaper:
        return Shaper(Random(f"{self._seed}/{name}/{way}").random)  # noqa: S311  (losses are no secret)

    @staticmethod
    def _count(direction: _Direction) -> dict[str, int]:
        return {"packets": direction.packets, "bytes": direction.bytes, "lost": direction.lost}

    def _wait(self) -> float | None:
        """Return how long to wait for packets, in milliseconds."""
        return max(0.0, self._flights[0].arrival - time.monotonic()) * 1000 if self._flights else None

    def _take_in(self, tun: int) -> None:
        """Read what a namespace sends, and send it on its way."""
        while True:
            try:
                packet = os.read(tun, _LARGEST_PACKET)
            except BlockingIOError:
                return
            if packet[0] >> 4 != 4:
                continue  # IPv6's neighbour discovery: these links speak IPv4
            source, target = packet[12:16], packet[16:20]
            near = tun == self._near_tun
            link = self._by_address.get(target) if near else self._by_tun[tun]
            if link is None or (not near and (source, target) != (_packed(link.address), _packed(f"{_NETWORK}.1"))):
                continue  # to nobody, or from one device to another
            self._send(link, link.down if near else link.up, packet)

    def _send(self, link: _Link, direction: _Direction, packet: bytes) -> None:
        now = time.monotonic()
        direction.packets += 1
        direction.bytes += len(packet)
        arrival = direction.shaper.arrival(now=now, size=len(packet), conditions=link.at(now))
        if arrival is None:
            direction.lost += 1
            return
        self._number += 1
        heapq.heappush(self._flights, _Flight(arrival, self._number, packet, link, direction))

    def _deliver(self) -> None:
        """Write what has arrived by now; what arrives while the link is down is lost."""
        now = time.monotonic()
        while self._flights and self._flights[0].arrival <= now:
            flight = heapq.heappop(self._flights)
            if flight.link.at(now).down:
                flight.direction.lost += 1
            else:
                os.write(flight.direction.out, flight.packet)


def _packed(address: str) -> bytes:
    return bytes(int(part) for part in address.split("."))


class _Requests:
    """Lines of standard input, answered on standard output."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        self._rest = b""

    def __call__(self) -> bool:
        data = os.read(sys.stdin.fileno(), 65_536)
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            _say(self._answer(line))
        return bool(data)

    def _answer(self, line: bytes) -> dict[str, Any]:
        try:
            request = json.loads(line)
            if not isinstance(request, dict):
                raise UsageError(f"expected a JSON object, got {line.decode(errors='replace')}")
            return self._wire.answer(request)
        except (EdgeoptError, ValueError) as error:
            return {"error": str(error)}


def _say(answer: dict[str, Any]) -> None:
    print(json.dumps(answer), flush=True)


def main(arguments: list[str]) -> None:
    """Start with a seed, and carry packets until standard input ends."""
    wire = Wire(int(arguments[0]))
    _say({"namespace": wire.near, "address": f"{_NETWORK}.1"})
    wire.run(_Requests(wire))
    if not wire.asked_to_end:
        wire.kill_inhabitants()


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except EdgeoptError as error:
        _say({"error": str(error)})
        sys.exit(error.exit_code)
