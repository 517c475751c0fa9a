"""Which devices' desired states are still to be published.

The flag is set in the transaction that changes what a device should run, by whatever process, and cleared once it was
published, unless it has changed again meanwhile. Publishing is not done here. Example::

    waiting = announcements.waiting()                # {'cam-7': 'v2/1'}
    await link.announce(waiting)
    announcements.done(waiting)
"""

from __future__ import annotations

from collections.abc import Mapping

from sqlalchemy import bindparam, update
from sqlmodel import col, select

from edgeopt_fleet.store.database import Database
from edgeopt_fleet.store.tables import DeviceRow

__all__ = ["Announcements"]

_MOST = 5000  # at a time


class Announcements:
    """Reads and clears the flags."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def waiting(self) -> dict[str, str | None]:
        """Return devices whose desired state was not published yet, with the job that it was just now."""
        query = select(DeviceRow.id, DeviceRow.desired_job).where(col(DeviceRow.desired_pending)).limit(_MOST)
        with self._database.reading() as session:
            return dict(session.exec(query).all())

    def done(self, published: Mapping[str, str | None]) -> None:
        """Take note that these jobs, or newer ones, were published; a newer one is published once more."""
        table = DeviceRow.__table__  # type: ignore[attr-defined]  # SQLModel makes it
        statement = (
            update(table)
            .where(
                table.c.id == bindparam("published_to"),
                table.c.desired_job.is_not_distinct_from(bindparam("published")),
            )
            .values(desired_pending=False)
        )
        rows = [{"published_to": device, "published": job} for device, job in sorted(published.items())]
        if rows:
            with self._database.transaction(lock="announcements") as session:
                session.connection().execute(statement, rows)
