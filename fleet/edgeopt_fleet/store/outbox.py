"""What the fleet publishes: TUF metadata, what each device should run or shadow, and the blocks of those bundles.

It follows from what is stored, so it can be published again at any time. Example::

    outbox.desired()                             # {'cam-7': Desired(…), 'cam-8': None}
    outbox.delivery(digest).blocks
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import msgspec
from sqlmodel import col, select

from edgeopt_contract.messages import Desired, Shadow
from edgeopt_contract.windows import Window
from edgeopt_fleet.store.bundles import Bundles, Delivery
from edgeopt_fleet.store.database import Database
from edgeopt_fleet.store.shadow_outbox import ShadowOutbox
from edgeopt_fleet.store.tables import DeviceRow
from edgeopt_fleet.tuf.repository import Repository

__all__ = ["Outbox"]

_AT_ONCE = 1000  # devices in one question
_COLUMNS = (
    DeviceRow.id, DeviceRow.desired_job, DeviceRow.desired_bundle, DeviceRow.desired_bake_seconds,
    DeviceRow.desired_not_before, DeviceRow.desired_window,
)  # fmt: skip


class Outbox:
    """Reads what is to be published."""

    def __init__(self, database: Database, bundles: Bundles, repository: Repository) -> None:
        self._database = database
        self._bundles = bundles
        self._repository = repository
        self._shadows = ShadowOutbox(database)

    def desired(self, devices: Collection[str] | None = None) -> dict[str, Desired | None]:
        """Return the desired state of ``devices``, or of all that ever had one; None wants nothing of the device."""
        query = select(*_COLUMNS).where(col(DeviceRow.desired_job).is_not(None))  # type: ignore[call-overload]  # six columns; SQLModel types four
        names = None if devices is None else sorted(devices)
        wanted: dict[str, Desired | None] = {}
        with self._database.reading() as session:
            connection = session.connection()
            if names is None:
                return {row.id: _desired(row) for row in connection.execute(query)}
            for start in range(0, len(names), _AT_ONCE):
                some = query.where(col(DeviceRow.id).in_(names[start : start + _AT_ONCE]))
                wanted |= {row.id: _desired(row) for row in connection.execute(some)}
        return wanted

    def shadows(self, devices: Collection[str] | None = None) -> dict[str, Shadow | None]:
        """Return what ``devices``, or all that were ever asked, are to run beside what serves."""
        return self._shadows.orders(devices)

    def metadata(self) -> bytes:
        """Return the TUF metadata that devices verify bundles with."""
        return self._repository.message()

    def delivery(self, bundle: str) -> Delivery:
        """Return manifest and block hashes of a complete bundle."""
        return self._bundles.delivery(bundle)

    def block(self, sha256: str) -> bytes:
        """Return one block."""
        return self._bundles.block(sha256)


def _desired(row: Any) -> Desired | None:
    if row.desired_bundle is None:
        return None
    return Desired(
        job=row.desired_job,
        bundle=row.desired_bundle,
        bake_seconds=row.desired_bake_seconds,
        not_before=row.desired_not_before,
        window=None if row.desired_window is None else msgspec.convert(row.desired_window, Window),
    )
