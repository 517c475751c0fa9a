"""What there is to know about one bundle: what it holds, who signed it, where it runs, which rollouts bring it.

Example::

    with database.reading() as session:
        facts_of(session, find_bundle(session, "3fa94c")).running_on
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlmodel import Session, col, func, select
from tuf.api.metadata import Root, Targets

from edgeopt_contract.codec import decode
from edgeopt_contract.manifest import Manifest
from edgeopt_contract.profile import ReferenceProfile
from edgeopt_contract.tuf import BundleTarget
from edgeopt_fleet.store.tables import BundleRow, DeviceRow, RolloutRow
from edgeopt_fleet.tuf.metadata import bundles_of, parse, signatures
from edgeopt_fleet.tuf.rows import newest

__all__ = ["BundleFacts", "facts_of"]

_MOST_ROLLOUTS = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class BundleFacts:
    """One bundle as the fleet knows it. ``target`` and ``signed_by`` are None and 0 while it is not in force."""

    row: BundleRow
    manifest: Manifest
    profile: ReferenceProfile | None
    target: BundleTarget | None
    signed_by: int
    threshold: int
    running_on: int
    rollouts: Sequence[RolloutRow]


def facts_of(session: Session, row: BundleRow) -> BundleFacts:
    """Gather what is known about the bundle of ``row``; its newest twenty rollouts are among it, newest first."""
    root, targets = parse(Root, newest(session, Root.type)), parse(Targets, newest(session, Targets.type))
    target = bundles_of(targets).get(row.digest)
    signed_by, threshold = signatures(root, Targets.type, targets)
    running = select(func.count()).select_from(DeviceRow).where(DeviceRow.running == row.digest)
    mine = select(RolloutRow).where(RolloutRow.bundle == row.digest).order_by(col(RolloutRow.created_at).desc())
    return BundleFacts(
        row=row,
        manifest=decode(Manifest, row.manifest),
        profile=None if row.profile is None else decode(ReferenceProfile, row.profile),
        target=target,
        signed_by=0 if target is None else signed_by,
        threshold=threshold,
        running_on=session.exec(running).one(),
        rollouts=session.exec(mine.limit(_MOST_ROLLOUTS)).all(),
    )
