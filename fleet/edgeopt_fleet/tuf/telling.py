"""Telling the audit log what changed in the TUF metadata: versions and digests of what is in force and of drafts.

Example::

    with told(session, "tuf.accept", now, {"role": "targets"}):
        …                                        # nothing is told when nothing changed
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

from sqlmodel import Session, col, select

from edgeopt_contract.values import digest_of
from edgeopt_fleet.store.audit import Change, append
from edgeopt_fleet.store.tables import DraftRow, MetadataRow

__all__ = ["told"]


@contextlib.contextmanager
def told(session: Session, operation: str, now: float, detail: Mapping[str, Any] | None = None) -> Iterator[None]:
    """Append an entry at the end of the block, within the transaction, if the metadata are not what they were."""
    before = _state(session)
    yield
    after = _state(session)
    if after != before:
        versions = {role: version for role, (version, _) in after["in_force"].items()}
        change = Change(
            operation=operation,
            subject="tuf/metadata",
            before=before if before["in_force"] else None,
            after=after,
            detail={**(detail or {}), "versions": versions, "drafts": sorted(after["drafts"])},
        )
        append(session, change, now)


def _state(session: Session) -> dict[str, dict[str, Any]]:
    session.flush()
    rows = session.exec(select(MetadataRow).order_by(col(MetadataRow.version))).all()
    drafts = session.exec(select(DraftRow)).all()
    return {
        "in_force": {row.role: (row.version, digest_of(row.data)) for row in rows},
        "drafts": {row.role: digest_of(row.data) for row in drafts},
    }
