"""The rows of the fleet's metadata, read and written inside somebody's transaction.

Example::

    with database.transaction() as session:
        root = parse(Root, newest(session, Root.type))
        put(session, signed)                              # True when it is new
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlmodel import Session, col, delete, select
from tuf.api.metadata import Metadata, Root, Snapshot, Targets, Timestamp

from edgeopt_contract.codec import encode
from edgeopt_contract.errors import MessageError
from edgeopt_contract.tuf import MAX_ROOTS, TufMetadata
from edgeopt_fleet.problems import InvalidError
from edgeopt_fleet.store.changes import Counter, next_change
from edgeopt_fleet.store.tables import DraftRow, MetadataRow
from edgeopt_fleet.tuf.metadata import parse, render, signatures

__all__ = ["Standing", "draft_of", "message_of", "newest", "parse_role", "put", "row_of", "standing_of"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """How far signed metadata have come."""

    role: str
    version: int
    signatures: int
    threshold: int
    in_force: bool


def message_of(session: Session) -> bytes:
    """Return the payload of the topic ``tuf``. Raises :class:`InvalidError` when it would be too large."""
    query = select(MetadataRow).where(MetadataRow.role == Root.type).order_by(col(MetadataRow.version).desc())
    roots = [row.data.decode() for row in session.exec(query.limit(MAX_ROOTS))]
    try:
        message = TufMetadata(
            roots=tuple(reversed(roots)),
            timestamp=newest(session, Timestamp.type).decode(),
            snapshot=newest(session, Snapshot.type).decode(),
            targets=newest(session, Targets.type).decode(),
        )
        return encode(message)
    except (MessageError, ValueError) as error:
        raise InvalidError(
            f"the metadata would be too large ({error}); retire bundles: edgeopt sign --retire"
        ) from error


def row_of(session: Session, role: str) -> MetadataRow | None:
    """Return the newest row of ``role``, if there is one."""
    query = select(MetadataRow).where(MetadataRow.role == role).order_by(col(MetadataRow.version).desc())
    return session.exec(query.limit(1)).first()


def newest(session: Session, role: str) -> bytes:
    """Return the newest metadata of ``role``."""
    row = row_of(session, role)
    assert row is not None  # create_fleet makes one of each
    return row.data


def draft_of(session: Session, role: str) -> Metadata[Any] | None:
    """Return what waits for signatures in ``role``, if there is something."""
    row = session.get(DraftRow, role)
    return None if row is None else parse_role(role, row.data)


def parse_role(role: str, data: bytes) -> Metadata[Any]:
    """Read metadata of the role called ``role``. Raises :class:`MessageError`."""
    kinds = {Root.type: Root, Targets.type: Targets, Snapshot.type: Snapshot, Timestamp.type: Timestamp}
    return parse(kinds[role], data)


def put(session: Session, metadata: Metadata[Any]) -> bool:
    """Keep ``metadata`` as the newest of its role and say whether it is new; of roots all versions are kept."""
    role, version = metadata.signed.type, metadata.signed.version
    if session.get(MetadataRow, (role, version)) is not None:
        return False
    if role != Root.type:
        session.execute(delete(MetadataRow).where(col(MetadataRow.role) == role))
    session.add(MetadataRow(role=role, version=version, data=render(metadata)))
    session.flush()
    next_change(session, Counter.METADATA)
    return True


def standing_of(session: Session, role: str, metadata: Metadata[Any]) -> Standing:
    """Compare ``metadata`` with the keys that must sign it: those of the draft root, if one is on its way."""
    root = parse(Root, newest(session, Root.type))
    draft = draft_of(session, Root.type)
    above = [root, metadata] if role == Root.type else [draft or root]
    counts = [signatures(one, role, metadata) for one in above]
    signed, threshold = min(counts, key=lambda count: (count[0] - count[1], -count[1]))
    in_force = parse_role(role, newest(session, role))
    return Standing(
        role=role,
        version=metadata.signed.version,
        signatures=signed,
        threshold=threshold,
        in_force=in_force.signed.version >= metadata.signed.version,
    )
