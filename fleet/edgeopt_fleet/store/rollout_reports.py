"""Rollouts as they are shown: one with all its members, or many without.

It only reads. Example::

    report_of(session, "v2").members["cam-3"].state
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sqlmodel import Session, col, func, select

from edgeopt_fleet.rollout import Member, Rollout, observe, terms_of
from edgeopt_fleet.store.rollout_plans import title
from edgeopt_fleet.store.rollout_rows import load_rollout, rollout_of, with_devices
from edgeopt_fleet.store.tables import BundleRow, MemberRow, RolloutRow, VerdictRow

__all__ = ["RolloutReport", "report_of", "summaries"]


@dataclass(frozen=True, slots=True, kw_only=True)
class RolloutReport:
    """A rollout as it stands, with what its devices said last, and its verdicts, oldest first.

    In a list there are no members, and the newest verdict only.
    """

    rollout: Rollout
    bundle_names: Mapping[str, str]  # name and version by digest
    members: Mapping[str, Member]
    verdicts: Sequence[VerdictRow]

    @property
    def bundle_name(self) -> str:
        """Name and version of what it brings; of both arms, if there are two."""
        return " / ".join(self.bundle_names.values())


def _bundles(record: Rollout) -> list[str]:
    """Return the bundles that a rollout brings."""
    return [record.bundle] if record.trial is None else [arm.bundle for arm in record.trial.arms]


def summaries(session: Session, rows: Sequence[RolloutRow]) -> list[RolloutReport]:
    """Return these rollouts without members and with their newest verdicts, by two questions in all."""
    bundles = {digest for row in rows for digest in _bundles(rollout_of(row))}
    named = session.exec(
        select(BundleRow.digest, BundleRow.name, BundleRow.version).where(col(BundleRow.digest).in_(bundles))
    )
    names = {digest: f"{name} {version}" for digest, name, version in named}
    newest = select(func.max(VerdictRow.id)).where(col(VerdictRow.rollout).in_([row.name for row in rows]))
    found = session.exec(select(VerdictRow).where(col(VerdictRow.id).in_(newest.group_by(col(VerdictRow.rollout)))))
    verdicts = {verdict.rollout: [verdict] for verdict in found}
    return [
        RolloutReport(
            rollout=rollout_of(row),
            bundle_names={digest: names.get(digest, "") for digest in _bundles(rollout_of(row))},
            members={},
            verdicts=verdicts.get(row.name, []),
        )
        for row in rows
    ]


def report_of(session: Session, name: str) -> RolloutReport:
    """Return one rollout as it stands. Raises :class:`NotFoundError`."""
    record, row = load_rollout(session, name)
    terms = terms_of(record)
    query = select(MemberRow).where(MemberRow.rollout == name).order_by(col(MemberRow.device))
    verdicts = select(VerdictRow).where(VerdictRow.rollout == name).order_by(col(VerdictRow.id))
    return RolloutReport(
        rollout=record,
        bundle_names={
            digest: "" if (bundle := session.get(BundleRow, digest)) is None else title(bundle)
            for digest in _bundles(record)
        },
        members={
            member.device: observe(member, seen, terms, row.updated_at) for member, seen in with_devices(session, query)
        },
        verdicts=session.exec(verdicts).all(),
    )
