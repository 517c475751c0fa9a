"""What one batch of messages changes about devices and their spools: loaded at once, changed here, written at once.

Which message replaces what is decided here, without a database; :class:`Books` loads and saves. Rows are written in
the order of their keys, so that two processes never wait for each other in a circle. Example::

    books = Books.load(session, batch)
    if books.spools["cam-7", 1795300000123].take(record.number):
        books.devices["cam-7"].take_report(spool.id, record)
    books.write(session, change)
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec
from sqlmodel import Session

from edgeopt_contract.messages import Reported, Status, Telemetry
from edgeopt_fleet.decoding import Incoming, Window
from edgeopt_fleet.hardware import hardware_class
from edgeopt_fleet.sequence import NumberSet
from edgeopt_fleet.store.bulk import fetch_rows, insert_rows, update_rows
from edgeopt_fleet.store.tables import DeviceRow, SpoolRow

__all__ = ["Books", "DeviceBook", "SpoolBook", "json_text"]

_MOST_GAPS = 1000  # a device sends its oldest 64; what comes beyond so many gaps is not taken until they close
_GREATEST_SUM = 2**62  # no count of a device grows beyond it, whatever it claims
_LOADED = (
    "id", "boot", "last_seen", "running", "report_spool", "report_number", "gauges_spool", "gauges_number", "windows",
    "rows", "errors", "tags", "malformed", "newest_window",
)  # fmt: skip
_RANGES = tuple[tuple[int, int], ...]
_SPOOL = ("id", "device", "session", "upto", "beyond", "rows", "errors")


class DeviceBook:
    """One device: what was stored, and what is new."""

    __slots__ = ("_new", "_stored", "id", "told")

    def __init__(self, stored: Mapping[str, Any]) -> None:
        self.id: str = stored["id"]
        self.told = False  # it said something that people and rollouts wait for
        self._stored = stored
        self._new: dict[str, Any] = {}

    @property
    def changes(self) -> dict[str, Any]:
        """The columns that are new."""
        return self._new

    def _get(self, name: str) -> Any:
        return self._new[name] if name in self._new else self._stored[name]

    def seen(self, now: float) -> None:
        """Note that it is there."""
        self._new["last_seen"] = int(now)

    def count_malformed(self, count: int) -> None:
        """Count what it sent and nobody could read."""
        self._new["malformed"] = min(self._get("malformed") + count, _GREATEST_SUM)

    def take_status(self, status: Status, now: float) -> None:
        """Take a birth or death over, unless it is of an earlier start of the agent.

        A retained status repeats what the device ran at its birth, so ``running`` counts for a new start only; later
        changes come as reports.
        """
        if status.boot < self._get("boot"):
            return
        if status.boot > self._get("boot") or self._get("last_seen") is None:
            self._new["running"] = status.running
        can = status.capabilities
        self._new |= {
            "boot": status.boot,
            "online": status.online,
            "agent_version": status.agent_version,
            "capabilities": json_text(can),
            "machine": json_text(status.machine),
            "hardware": hardware_class(msgspec.json.decode(self._get("tags")), can.arch, can.features),
            "last_seen": int(now),
        }
        self.told = True

    def take_report(self, spool: int, record: Reported) -> None:
        """Make it the device's newest report, unless a later one was here before it."""
        self.told = True
        if (spool, record.number) <= (self._get("report_spool"), self._get("report_number")):
            return
        self._new |= {
            "report_spool": spool,
            "report_number": record.number,
            "job": record.job,
            "job_bundle": record.bundle,
            "state": str(record.state),
            "result": None if record.result is None else str(record.result),
            "detail": record.detail,
            "reported_at": record.at,
            "running": record.running,
        }

    def chain_window(self, row: int) -> int:
        """Make ``row`` the window that came last, and return the one before it, 0 for none."""
        previous: int = self._get("newest_window")
        self._new["newest_window"] = row
        return previous

    def take_window(self, spool: int, record: Telemetry | Window) -> None:
        """Count a window, and keep its gauges if it is the newest; windows may arrive in any order."""
        for name, more in (("windows", 1), ("rows", record.rows), ("errors", record.errors)):
            self._new[name] = min(self._get(name) + more, _GREATEST_SUM)
        place = (spool, record.number)
        if record.infrastructure and place > (self._get("gauges_spool"), self._get("gauges_number")):
            self._new |= {
                "gauges": json_text(record.infrastructure),
                "gauges_at": record.end,
                "gauges_spool": spool,
                "gauges_number": record.number,
            }


class SpoolBook:
    """One spool session of one device: which numbers are stored, and which came in this batch."""

    __slots__ = ("device", "errors", "fresh", "id", "numbers", "rows", "session")

    def __init__(self, row: Sequence[Any]) -> None:
        self.id: int
        self.device: str
        self.session: int
        self.id, self.device, self.session, upto, beyond, self.rows, self.errors = row
        self.numbers = NumberSet(upto, () if beyond == "[]" else msgspec.json.decode(beyond, type=_RANGES))
        self.fresh: list[int] = []

    def take(self, number: int) -> bool:
        """Say whether ``number`` is new; if so it is stored with this batch."""
        self.fresh.append(number)
        if number in self.numbers or (number > self.numbers.upto + 1 and len(self.numbers.beyond) >= _MOST_GAPS):
            return False
        self.numbers = self.numbers.add(number)
        return True

    def count(self, record: Telemetry | Window) -> None:
        """Count what a window served."""
        self.rows = min(self.rows + record.rows, _GREATEST_SUM)
        self.errors = min(self.errors + record.errors, _GREATEST_SUM)


class Books:
    """All devices and spools that a batch touches."""

    def __init__(self, devices: Iterable[DeviceBook], spools: Iterable[SpoolBook]) -> None:
        self.devices = {device.id: device for device in devices}
        self.spools = {(spool.device, spool.session): spool for spool in spools}

    @classmethod
    def load(cls, session: Session, batch: Sequence[Incoming], malformed: Mapping[str, int]) -> Books:
        """Load what a batch touches; spools that are new get their rows, in the order of arrival."""
        names = sorted({message.device for message in batch} | malformed.keys())
        rows = fetch_rows(session, DeviceRow, _LOADED, {"id": names})
        devices = {row[0]: DeviceBook(dict(zip(_LOADED, row, strict=True))) for row in rows}
        for name, count in malformed.items():
            if name in devices:
                devices[name].count_malformed(count)
        wanted = {
            (message.device, message.record.session): None
            for message in batch
            if not isinstance(message.record, Status) and message.device in devices
        }
        if not wanted:
            return cls(devices.values(), ())
        spools = _spools(session, wanted)
        new = [(*key, 0, "[]", 0, 0) for key in wanted if key not in spools]
        if new:
            insert_rows(session, SpoolRow, _SPOOL[1:], new)
            spools = _spools(session, wanted)
        return cls(devices.values(), (spools[key] for key in wanted))

    def write(self, session: Session, change: int) -> None:
        """Write what is new; ``change`` goes to the devices that told something."""
        spools = [
            (spool.id, spool.numbers.upto, json_text(spool.numbers.beyond), spool.rows, spool.errors)
            for _, spool in sorted(self.spools.items())
        ]
        update_rows(session, SpoolRow, ("id",), ("upto", "beyond", "rows", "errors"), spools)
        groups: dict[tuple[str, ...], list[tuple[Any, ...]]] = {}
        for _, device in sorted(self.devices.items()):
            changes = device.changes | ({"changed": change} if device.told else {})
            if changes:
                groups.setdefault(tuple(changes), []).append((device.id, *changes.values()))
        for names, group in groups.items():
            update_rows(session, DeviceRow, ("id",), names, group)


def json_text(value: object) -> str:
    """Return ``value`` as the text that a JSON column takes."""
    return msgspec.json.encode(value).decode()


def _spools(session: Session, wanted: Iterable[tuple[str, int]]) -> dict[tuple[str, int], SpoolBook]:
    rows = fetch_rows(session, SpoolRow, _SPOOL, {"device": sorted({device for device, _ in wanted})})
    return {(row[1], row[2]): SpoolBook(row) for row in rows}
