"""What changed since somebody looked: devices, rollouts, shadows and alerts as they are now, in the order of changes.

It tells states, not history: what changed three times between two looks is told once. So nothing is kept for
watchers, nobody is too slow, and a watcher that was away for a week goes on where it stopped. Example::

    feed = Feed(database)
    position = feed.position()
    for change in feed.since(position, {Topic.ROLLOUTS}, limit=100):
        position = change.position
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from sqlmodel import Session, and_, col, or_, select

from edgeopt_fleet.store.changes import newest_change
from edgeopt_fleet.store.database import Database
from edgeopt_fleet.store.rollout_reports import RolloutReport
from edgeopt_fleet.store.rollout_reports import summaries as rollout_summaries
from edgeopt_fleet.store.shadow_rows import ShadowReport
from edgeopt_fleet.store.shadow_rows import summaries as shadow_summaries
from edgeopt_fleet.store.tables import AlertRow, DeviceRow, RolloutRow, ShadowRow

__all__ = ["Change", "Feed", "Position", "Topic"]


class Topic(StrEnum):
    """What can be watched, in the order in which changes of one transaction are told."""

    ALERTS = "alerts"
    DEVICES = "devices"
    ROLLOUTS = "rollouts"
    SHADOWS = "shadows"


@dataclass(frozen=True, slots=True, order=True)
class Position:
    """How far somebody has seen: the number of a change, and which of the things that changed with it was the last.

    Without a topic: all of them.
    """

    number: int
    topic: str = "~"  # behind all topics
    key: str = ""

    def __str__(self) -> str:
        return f"{self.number}" if self.topic == "~" else f"{self.number}.{self.topic}.{self.key}"

    @classmethod
    def parse(cls, text: str) -> Position:
        """Read what ``str`` wrote. Raises ``ValueError``."""
        number, _, rest = text.partition(".")
        topic, _, key = rest.partition(".")
        if not (number.isascii() and number.isdigit() and len(number) < 17) or (rest and not key):
            raise ValueError(f"expected the id of an event, got {text[:80]!r}")
        return cls(int(number), str(Topic(topic)), key) if rest else cls(int(number))


@dataclass(frozen=True, slots=True)
class Change:
    """One thing as it is now, and where it stands among the changes."""

    position: Position
    thing: DeviceRow | RolloutReport | ShadowReport | AlertRow


class Feed:
    """Tells what changed."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def position(self) -> Position:
        """Return where the feed ends now."""
        with self._database.reading() as session:
            return Position(newest_change(session))

    def since(self, position: Position, topics: Collection[Topic], limit: int) -> Sequence[Change]:
        """Return up to ``limit`` changes after ``position``, the oldest first."""
        found: list[Change] = []
        with self._database.reading() as session:
            for topic in topics:
                found += _FIND[topic](session, position, limit)
        return sorted(found, key=lambda change: change.position)[:limit]


def _devices(session: Session, position: Position, limit: int) -> list[Change]:
    rows = _rows(session, DeviceRow, DeviceRow.id, Topic.DEVICES, position, limit)
    return [Change(Position(row.changed, Topic.DEVICES, row.id), row) for row in rows]


def _alerts(session: Session, position: Position, limit: int) -> list[Change]:
    rows = _rows(session, AlertRow, AlertRow.id, Topic.ALERTS, position, limit)
    return [Change(Position(row.changed, Topic.ALERTS, f"{row.id:016d}"), row) for row in rows]


def _rollouts(session: Session, position: Position, limit: int) -> list[Change]:
    rows = _rows(session, RolloutRow, RolloutRow.name, Topic.ROLLOUTS, position, limit)
    told = rollout_summaries(session, rows)
    return [
        Change(Position(row.changed, Topic.ROLLOUTS, row.name), report) for row, report in zip(rows, told, strict=True)
    ]


def _shadows(session: Session, position: Position, limit: int) -> list[Change]:
    rows = _rows(session, ShadowRow, ShadowRow.name, Topic.SHADOWS, position, limit)
    told = shadow_summaries(session, rows)
    return [Change(Position(one.row.changed, Topic.SHADOWS, one.row.name), one) for one in told]


def _rows(session: Session, row_class: Any, key: Any, topic: Topic, position: Position, limit: int) -> Sequence[Any]:
    """Return the rows of one table after ``position``, in order."""
    changed = col(row_class.changed)
    after = changed > position.number
    if topic > position.topic:
        after = changed >= position.number
    elif topic == position.topic:
        last = int(position.key) if topic is Topic.ALERTS else position.key
        after = or_(after, and_(changed == position.number, col(key) > last))
    query = select(row_class).where(after, changed > 0).order_by(changed, col(key)).limit(limit)
    return session.exec(query).all()


_FIND = {Topic.DEVICES: _devices, Topic.ROLLOUTS: _rollouts, Topic.SHADOWS: _shadows, Topic.ALERTS: _alerts}
