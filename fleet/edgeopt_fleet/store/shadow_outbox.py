"""What the fleet publishes of shadows: for each device that was ever asked, the order in force, or that there is none.

It follows from the members' rows, so it can be published again at any time. A member's flag is set in the transaction
that changes what its device is to run, and cleared once that was published, unless it has changed again. Example::

    waiting = outbox.waiting()                       # {('next', 'cam-7'): True}
    await link.announce_shadows({device for _, device in waiting})
    outbox.done(waiting)
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from sqlalchemy import bindparam, update
from sqlmodel import col, select

from edgeopt_contract.messages import Shadow
from edgeopt_fleet.store.database import Database
from edgeopt_fleet.store.tables import ShadowMemberRow, ShadowRow

__all__ = ["ShadowOutbox"]

_MOST = 5000  # at a time
_AT_ONCE = 1000  # devices in one question


class ShadowOutbox:
    """Reads what is to be published, and what was not yet."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def orders(self, devices: Collection[str] | None = None) -> dict[str, Shadow | None]:
        """Return the shadow that ``devices``, or all that were ever asked, are to run; None for those without one."""
        query = (
            select(ShadowMemberRow.device, ShadowMemberRow.open, ShadowRow)
            .join(ShadowRow, col(ShadowRow.name) == col(ShadowMemberRow.shadow))
            .where(col(ShadowMemberRow.offered).is_(True))
            .order_by(col(ShadowMemberRow.device), col(ShadowMemberRow.open))  # one that is open, if any, last
        )
        orders: dict[str, Shadow | None] = {}
        with self._database.reading() as session:
            if devices is None:
                return {device: _order(row) if wanted else None for device, wanted, row in session.exec(query)}
            names = sorted(devices)
            for start in range(0, len(names), _AT_ONCE):
                some = query.where(col(ShadowMemberRow.device).in_(names[start : start + _AT_ONCE]))
                orders |= {device: _order(row) if wanted else None for device, wanted, row in session.exec(some)}
        return orders

    def waiting(self) -> dict[tuple[str, str], bool]:
        """Return shadows and devices whose order was not published yet, and whether it is one to run."""
        query = select(ShadowMemberRow.shadow, ShadowMemberRow.device, ShadowMemberRow.open)
        with self._database.reading() as session:
            found = session.exec(query.where(col(ShadowMemberRow.pending).is_(True)).limit(_MOST))
            return {(shadow, device): wanted for shadow, device, wanted in found}

    def done(self, published: Mapping[tuple[str, str], bool]) -> None:
        """Take note that these were published; what has changed meanwhile is published once more."""
        table = ShadowMemberRow.__table__  # type: ignore[attr-defined]  # SQLModel makes it
        keys = (table.c.shadow == bindparam("of_shadow"), table.c.device == bindparam("to_device"))
        statement = update(table).where(*keys, table.c.open == bindparam("was_open")).values(pending=False)
        rows = [
            {"of_shadow": shadow, "to_device": device, "was_open": wanted}
            for (shadow, device), wanted in sorted(published.items())
        ]
        if rows:
            with self._database.transaction(lock="announcements") as session:
                session.connection().execute(statement, rows)


def _order(row: ShadowRow) -> Shadow:
    return Shadow(job=row.name, bundle=row.bundle, share=row.share, until=row.until)
