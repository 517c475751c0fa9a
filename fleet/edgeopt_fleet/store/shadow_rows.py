"""Shadows as they are kept and shown: states, members, sums; reading only, within somebody's transaction.

Example::

    report = report_of(session, "next")
    report.members["cam-3"].state, report.look.verdict.decision
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

import msgspec
from sqlmodel import Session, col, func, select

from edgeopt_contract.messages import DeviceState
from edgeopt_fleet.gate.shadow_evidence import ShadowPolicy
from edgeopt_fleet.problems import NotFoundError
from edgeopt_fleet.store.tables import BundleRow, ShadowLookRow, ShadowMemberRow, ShadowRow

__all__ = [
    "FINAL",
    "SERVES_IT",
    "WAITING",
    "ShadowReport",
    "ShadowState",
    "find_shadow",
    "policy_of",
    "report_of",
    "summaries",
]

WAITING = "waiting"  # of a device that was not asked yet
SERVES_IT = "serves_it"  # of a device that answers with the challenger itself
FINAL = (DeviceState.DONE, DeviceState.FAILED, DeviceState.REJECTED, DeviceState.SUPERSEDED)


class ShadowState(StrEnum):
    """Where a shadow is: draft, then running, then ended."""

    DRAFT = "draft"
    RUNNING = "running"
    ENDED = "ended"


@dataclass(frozen=True, slots=True, kw_only=True)
class ShadowReport:
    """A shadow as it stands; ``tally`` counts members by state, ``look`` is the newest one. No members in a list."""

    row: ShadowRow
    bundle_name: str
    tally: Mapping[str, int]
    members: Sequence[ShadowMemberRow] = ()
    look: ShadowLookRow | None = None


def find_shadow(session: Session, name: str) -> ShadowRow:
    """Return a shadow's row. Raises :class:`NotFoundError`."""
    row = session.get(ShadowRow, name)
    if row is None:
        raise NotFoundError(f"there is no shadow {name!r}")
    return row


def policy_of(row: ShadowRow) -> ShadowPolicy:
    """Return the rules by which a shadow is judged."""
    return msgspec.convert(row.policy, ShadowPolicy)


def summaries(session: Session, rows: Sequence[ShadowRow]) -> list[ShadowReport]:
    """Return these shadows without members, by three questions in all."""
    names = [row.name for row in rows]
    bundles = select(BundleRow.digest, BundleRow.name, BundleRow.version)
    found = session.exec(bundles.where(col(BundleRow.digest).in_({row.bundle for row in rows})))
    titles = {digest: f"{name} {version}" for digest, name, version in found}
    states = func.coalesce(col(ShadowMemberRow.state), WAITING)
    counted = select(ShadowMemberRow.shadow, states, func.count()).where(col(ShadowMemberRow.shadow).in_(names))
    tallies: dict[str, dict[str, int]] = {}
    for name, state, number in session.exec(counted.group_by(col(ShadowMemberRow.shadow), states)):
        tallies.setdefault(name, {})[state] = number
    newest = select(func.max(ShadowLookRow.id)).where(col(ShadowLookRow.shadow).in_(names))
    looks = session.exec(
        select(ShadowLookRow).where(col(ShadowLookRow.id).in_(newest.group_by(col(ShadowLookRow.shadow))))
    )
    of_shadow = {look.shadow: look for look in looks}
    return [
        ShadowReport(
            row=row,
            bundle_name=titles.get(row.bundle, ""),
            tally=dict(sorted(tallies.get(row.name, {}).items())),
            look=of_shadow.get(row.name),
        )
        for row in rows
    ]


def report_of(session: Session, name: str) -> ShadowReport:
    """Return one shadow with its members, by name. Raises :class:`NotFoundError`."""
    (report,) = summaries(session, [find_shadow(session, name)])
    query = select(ShadowMemberRow).where(ShadowMemberRow.shadow == name).order_by(col(ShadowMemberRow.device))
    return ShadowReport(
        row=report.row,
        bundle_name=report.bundle_name,
        tally=report.tally,
        members=session.exec(query).all(),
        look=report.look,
    )
