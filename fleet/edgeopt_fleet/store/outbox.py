"""What the fleet publishes: what each device should run, and the blocks of those bundles.

It follows from what is stored, so it can be published again at any time. Example::

    outbox.desired()                             # {'cam-7': Desired(…), 'cam-8': None}
    outbox.delivery(digest).blocks
"""

from __future__ import annotations

from collections.abc import Collection

import msgspec
from sqlmodel import col, select

from edgeopt_contract.messages import Desired, Signature
from edgeopt_fleet.store.bundles import Bundles, Delivery
from edgeopt_fleet.store.database import Database
from edgeopt_fleet.store.tables import BundleRow, DeviceRow

__all__ = ["Outbox"]


class Outbox:
    """Reads what is to be published."""

    def __init__(self, database: Database, bundles: Bundles) -> None:
        self._database = database
        self._bundles = bundles

    def desired(self, devices: Collection[str] | None = None) -> dict[str, Desired | None]:
        """Return the desired state of ``devices``, or of all that ever had one; None wants nothing of the device."""
        query = select(DeviceRow).where(col(DeviceRow.desired_job).is_not(None))
        with self._database.transaction() as session:
            rows = [row for row in session.exec(query) if devices is None or row.id in devices]
            signatures = dict(session.exec(select(BundleRow.digest, BundleRow.signature)).all())
        wanted: dict[str, Desired | None] = {}
        for row in rows:
            if row.desired_job is None or row.desired_bundle is None:
                wanted[row.id] = None
                continue
            wanted[row.id] = Desired(
                job=row.desired_job,
                bundle=row.desired_bundle,
                signature=msgspec.convert(signatures[row.desired_bundle], Signature),
                bake_seconds=row.desired_bake_seconds,
            )
        return wanted

    def delivery(self, bundle: str) -> Delivery:
        """Return manifest and block hashes of a complete bundle."""
        return self._bundles.delivery(bundle)

    def block(self, sha256: str) -> bytes:
        """Return one block."""
        return self._bundles.block(sha256)
