"""Windows that have no number yet: nobody outside has seen them, so they may still be put together.

A window gets its number when it comes among the messages that are sent next, and is never changed afterwards. Until
then it waits here, packed; when the spool needs room, windows of one bundle and variant become one: those of an hour,
then those of a day, of 30 days, and at last all, old ones first. Time resolution is lost, no count is. It begins
and ends no transaction: that is :mod:`edgeopt_agent.reports.spool`. Example::

    waiting = Waiting(connection)
    waiting.put(pack(telemetry))
    while spool_is_too_large and waiting.coarsen(session):
        …
    waiting.take()                              # the oldest one, or None
"""

from __future__ import annotations

import sqlite3

from edgeopt_agent.reports.packing import Packed, merge, unpack
from edgeopt_contract.codec import encode
from edgeopt_contract.errors import MessageError

__all__ = ["GREATEST_NUMBER", "SCHEMA", "Waiting"]

SCHEMA = (
    "CREATE TABLE IF NOT EXISTS layouts (id INTEGER PRIMARY KEY, content BLOB NOT NULL)",
    """CREATE TABLE IF NOT EXISTS windows (
        id INTEGER PRIMARY KEY, layout INTEGER NOT NULL, start INTEGER NOT NULL, end INTEGER NOT NULL,
        rows INTEGER NOT NULL, errors INTEGER NOT NULL, content BLOB NOT NULL
    )""",
)
GREATEST_NUMBER = 2**53 - 1  # the longest that a number becomes in JSON
_HOUR, _DAY = 3600, 86_400
# Spans into which windows are put together, and how long before the newest one they must lie.
_STAGES = (
    (_HOUR, _DAY), (_DAY, 7 * _DAY), (_HOUR, 0), (_DAY, 0), (30 * _DAY, 0), (GREATEST_NUMBER, 0),
)  # fmt: skip
_COLUMNS = "w.id, l.content, w.start, w.end, w.rows, w.errors, w.content"


class Waiting:
    """See the module."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def __len__(self) -> int:
        return self._value("SELECT COUNT(*) FROM windows") or 0

    def put(self, window: Packed) -> None:
        """Let ``window`` wait, behind all others."""
        layout = self._value("SELECT id FROM layouts WHERE content = ?", window.layout)
        if layout is None:
            insert = "INSERT INTO layouts (content) VALUES (?)"
            layout = self._connection.execute(insert, (window.layout,)).lastrowid
        self._connection.execute(
            "INSERT INTO windows (layout, start, end, rows, errors, content) VALUES (?, ?, ?, ?, ?, ?)",
            (layout, window.start, window.end, window.rows, window.errors, window.content),
        )

    def take(self) -> Packed | None:
        """Remove and return the window that has waited longest."""
        found = self._select("ORDER BY w.id LIMIT 1")
        if not found:
            return None
        (number, window) = found[0]
        self._remove([number])
        return window

    def coarsen(self, session: int) -> bool:
        """Put the windows of one span together, the first that can be; say whether there were any."""
        newest = self._value("SELECT MAX(end) FROM windows")
        if newest is None:
            return False
        for span, age in _STAGES:
            groups = self._connection.execute(
                "SELECT layout, start / ? AS bucket FROM windows WHERE start <= ? GROUP BY layout, bucket "
                "HAVING COUNT(*) > 1 ORDER BY MIN(id)",
                (span, newest - age),
            ).fetchall()
            for layout, bucket in groups:
                if self._put_together(session, layout, bucket * span, min((bucket + 1) * span, newest - age + 1)):
                    return True
        return False

    def _put_together(self, session: int, layout: int, begin: int, end: int) -> bool:
        """Make one window of those of ``layout`` that start from ``begin`` to before ``end``, if it can be sent."""
        found = self._select("WHERE w.layout = ? AND w.start >= ? AND w.start < ? ORDER BY w.id", layout, begin, end)
        try:
            whole = merge([window for _, window in found])
            encode(unpack(whole, session=session, number=GREATEST_NUMBER))
        except MessageError:  # too large for one message: these stay apart
            return False
        first, *others = [number for number, _ in found]
        self._connection.execute(
            "UPDATE windows SET start = ?, end = ?, rows = ?, errors = ?, content = ? WHERE id = ?",
            (whole.start, whole.end, whole.rows, whole.errors, whole.content, first),
        )
        self._remove(others)
        return True

    def _remove(self, numbers: list[int]) -> None:
        self._connection.executemany("DELETE FROM windows WHERE id = ?", [(number,) for number in numbers])
        self._connection.execute("DELETE FROM layouts WHERE id NOT IN (SELECT layout FROM windows)")

    def _select(self, where: str, *values: int) -> list[tuple[int, Packed]]:
        query = f"SELECT {_COLUMNS} FROM windows w JOIN layouts l ON l.id = w.layout {where}"  # noqa: S608  # own text
        return [
            (number, Packed(layout=layout, start=start, end=end, rows=rows, errors=errors, content=content))
            for number, layout, start, end, rows, errors, content in self._connection.execute(query, values)
        ]

    def _value(self, query: str, *values: int | bytes) -> int | None:
        row = self._connection.execute(query, values).fetchone()
        return row[0] if row else None
