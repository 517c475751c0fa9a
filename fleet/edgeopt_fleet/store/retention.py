"""Rolls up and deletes what is old, in small transactions between those of everybody else.

What is kept for how long is decided by :mod:`edgeopt_fleet.retention`. Never touched: windows that a drift look has not
seen, what the gate compares with (``served``, ``baseline``) of bundles in use, the audit log, certificates. Example::

    retention = Retention(database, home.blocks, Keep())
    for step in retention.steps(now): ...        # Step(what="windows", rows=500), each one committed
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import Row
from sqlmodel import Session, SQLModel, col, delete, or_, select, tuple_

from edgeopt_contract.codec import decode
from edgeopt_contract.manifest import Manifest
from edgeopt_contract.profile import ReferenceProfile
from edgeopt_fleet.narrow import narrow, widen
from edgeopt_fleet.retention import DAY, HOUR, Keep, Sums, add_up, bucket, may_go, unneeded
from edgeopt_fleet.store.alerts import watched
from edgeopt_fleet.store.audit import Change, append
from edgeopt_fleet.store.blocks import blocks_of
from edgeopt_fleet.store.database import Database
from edgeopt_fleet.store.shadow_rows import ShadowState
from edgeopt_fleet.store.statements import upsert
from edgeopt_fleet.store.tables import (
    BundleRow,
    DeviceRow,
    DriftRow,
    EvidenceRow,
    MemberRow,
    ReportRow,
    RolloutRow,
    RollupRow,
    ServedRow,
    ShadowLookRow,
    ShadowRow,
    ShadowServedRow,
    VerdictRow,
    WindowRow,
)
from edgeopt_fleet.totals import Layout

__all__ = ["Retention", "Step"]

_LOCK = "retention"
_ROWS = 500  # in one transaction: a few milliseconds
_UPLOAD_SECONDS = DAY  # blocks that belong to nothing yet are being uploaded

Key = tuple[str, str, int]  # bundle, device, start


@dataclass(frozen=True, slots=True)
class Step:
    """One transaction: what was rolled up or deleted, and how many rows or files."""

    what: str
    rows: int


class Retention:
    """See the module."""

    def __init__(self, database: Database, blocks: Path, keep: Keep) -> None:
        self._database = database
        self._blocks = blocks_of(database, blocks)
        self._keep = keep

    def steps(self, now: float) -> Iterator[Step]:
        """Do what is due, one transaction for each step that is yielded. Raises :class:`StorageError`."""
        yield from self._windows(now - self._keep.window_days * DAY)
        yield from self._hours(now - self._keep.hour_days * DAY)
        yield from self._delete_by_id(ReportRow, col(ReportRow.received_at), now - self._keep.report_days * DAY)
        yield from self._days(now - self._keep.day_days * DAY)
        yield from self._verdicts(now - self._keep.verdict_days * DAY)
        yield from self._shadows(now - self._keep.verdict_days * DAY)
        yield from self._bundles(now)

    # --- telemetry ------------------------------------------------------------------------------------------------

    def _windows(self, before: float) -> Iterator[Step]:
        """Let windows become hours. Ids follow arrival, so the old ones come first and no index is needed."""
        with self._database.reading() as session:
            looked_until = _looked_until(session)
        last = 0
        query = select(WindowRow).order_by(col(WindowRow.id)).limit(_ROWS)
        while True:
            with self._database.transaction(lock=_LOCK) as session:
                page = [row for row in session.exec(query.where(col(WindowRow.id) > last)) if row.received_at < before]
                ready = [row for row in page if may_go(row.id, row.bundle, looked_until)]
                sums: dict[Key, list[Sums]] = defaultdict(list)
                for row in ready:
                    counts = widen(row.counts, _layout(session, row.bundle).size)
                    start = bucket(row.end, row.received_at, HOUR)
                    sums[row.bundle, row.device, start].append(Sums.of_window(row.rows, row.errors, counts))
                _add(session, HOUR, sums)
                _delete(session, WindowRow, [row.id for row in ready])
            if ready:
                yield Step("windows", len(ready))
            if len(page) < _ROWS:
                return
            last = page[-1].id

    def _hours(self, before: float) -> Iterator[Step]:
        """Let hours become days."""
        query = select(RollupRow).where(RollupRow.seconds == HOUR, col(RollupRow.start) < int(before)).limit(_ROWS)
        while True:
            with self._database.transaction(lock=_LOCK) as session:
                page = session.exec(query.order_by(col(RollupRow.start))).all()
                sums: dict[Key, list[Sums]] = defaultdict(list)
                for row in page:
                    counts = widen(row.counts, _layout(session, row.bundle).size)
                    start = bucket(row.start, row.start, DAY)
                    sums[row.bundle, row.device, start].append(Sums(row.windows, row.rows, row.errors, counts))
                _add(session, DAY, sums)
                for row in page:
                    session.delete(row)
            if not page:
                return
            yield Step("hours", len(page))

    def _days(self, before: float) -> Iterator[Step]:
        query = select(RollupRow).where(RollupRow.seconds == DAY, col(RollupRow.start) < int(before)).limit(_ROWS)
        while True:
            with self._database.transaction(lock=_LOCK) as session:
                page = session.exec(query).all()
                for row in page:
                    session.delete(row)
            if not page:
                return
            yield Step("days", len(page))

    # --- what was said --------------------------------------------------------------------------------------------

    def _delete_by_id(self, row_class: type[SQLModel], time: Any, before: float) -> Iterator[Step]:
        """Delete the oldest rows; ids follow arrival."""
        number = row_class.__table__.c.id  # type: ignore[attr-defined]  # every table has it
        while True:
            with self._database.transaction(lock=_LOCK) as session:
                page = session.connection().execute(select(number, time).order_by(number).limit(_ROWS)).all()
                old = [row[0] for row in page if row[1] < before]
                _delete(session, row_class, old)
            if old:
                yield Step(row_class.__tablename__ + "s", len(old))  # type: ignore[operator]  # it is a str
            if len(old) < _ROWS:
                return

    def _verdicts(self, before: float) -> Iterator[Step]:
        """Delete verdicts and evidence of rollouts that ended long ago; the rollouts stay."""
        with self._database.reading() as session:
            ended = session.exec(
                select(RolloutRow.name).where(col(RolloutRow.settled).is_(True), col(RolloutRow.updated_at) < before)
            ).all()
        for row_class in (VerdictRow, EvidenceRow):
            for name in ended:
                found = select(row_class.id).where(row_class.rollout == name).limit(_ROWS)
                while True:
                    with self._database.transaction(lock=_LOCK) as session:
                        ids = list(session.exec(found))
                        _delete(session, row_class, ids)
                    if not ids:
                        break
                    yield Step("verdicts", len(ids))

    def _shadows(self, before: float) -> Iterator[Step]:
        """Delete what was compared in shadows that ended long ago, and the looks at it; the shadows stay."""
        ended = (ShadowRow.state == ShadowState.ENDED, col(ShadowRow.updated_at) < before)
        with self._database.reading() as session:
            names = session.exec(select(ShadowRow.name).where(*ended)).all()
        for row_class in (ShadowLookRow, ShadowServedRow):
            keys = row_class.__table__.primary_key.columns  # type: ignore[union-attr]  # every table has one
            for name in names:
                found = select(*keys).where(row_class.shadow == name).limit(_ROWS)
                while True:
                    with self._database.transaction(lock=_LOCK) as session:
                        page = [tuple(row) for row in session.connection().execute(found)]
                        if page:
                            session.connection().execute(delete(row_class).where(tuple_(*keys).in_(page)))
                    if not page:
                        break
                    yield Step("shadows", len(page))

    # --- bundles --------------------------------------------------------------------------------------------------

    def _bundles(self, now: float) -> Iterator[Step]:
        """Let go of the blocks of bundles that nobody needs; publishing such a bundle again brings them back."""
        with self._database.transaction() as session:  # alone: no rollout may begin to need one meanwhile
            created = dict(
                session.exec(
                    select(BundleRow.digest, BundleRow.created_at).where(col(BundleRow.complete).is_(True))
                ).all()
            )
            pruned = unneeded(created, _needed(session), now, self._keep)
            for digest in pruned:
                row = session.get_one(BundleRow, digest)
                row.complete = False
                for table in (ServedRow, DriftRow):
                    session.execute(delete(table).where(col(table.bundle) == digest))
                change = Change(operation="bundle.prune", subject=f"bundle/{digest}", after={"complete": False})
                append(session, change, now)
            kept = _blocks(session, now - _UPLOAD_SECONDS)
        if pruned:
            yield Step("bundles", len(pruned))
        removed = self._blocks.remove(kept, now - _UPLOAD_SECONDS)
        if removed:
            yield Step("blocks", removed)


def _looked_until(session: Session) -> dict[str, int]:
    """Return the bundles that are watched, each with the newest window that every one of its cohorts has looked at."""
    subjects = watched(session)
    until: dict[str, int] = {}
    for cohort, bundle, last in session.exec(select(DriftRow.cohort, DriftRow.bundle, DriftRow.last_window)):
        if (cohort, bundle) in subjects:
            until[bundle] = min(last, until.get(bundle, last))
    return until


def _layout(session: Session, bundle: str) -> Layout:
    """Return the layout of a bundle's counts; it is read once a transaction."""
    layouts: dict[str, Layout] = session.info.setdefault("layouts", {})
    if bundle not in layouts:
        profile = session.exec(select(BundleRow.profile).where(BundleRow.digest == bundle)).first()
        layouts[bundle] = Layout() if profile is None else Layout.of(decode(ReferenceProfile, profile))
    return layouts[bundle]


def _add(session: Session, seconds: int, sums: dict[Key, list[Sums]]) -> None:
    """Add to the hours or days that are there already, and make the others."""
    if not sums:
        return
    columns = (col(RollupRow.bundle), col(RollupRow.device), col(RollupRow.start))
    query = select(RollupRow).where(RollupRow.seconds == seconds, tuple_(*columns).in_(list(sums)))
    for row in session.exec(query):
        counts = widen(row.counts, _layout(session, row.bundle).size)
        sums[row.bundle, row.device, row.start].append(Sums(row.windows, row.rows, row.errors, counts))
    rows = []
    for (bundle, device, start), parts in sums.items():
        total = add_up(parts)
        rows.append(
            {
                "bundle": bundle,
                "device": device,
                "seconds": seconds,
                "start": start,
                "windows": total.windows,
                "rows": total.rows,
                "errors": total.errors,
                "counts": narrow(total.counts[None, :])[0],
            }
        )
    upsert(session, RollupRow, rows)


def _delete(session: Session, row_class: type[SQLModel], ids: Sequence[int | None]) -> None:
    if ids:
        number = row_class.__table__.c.id  # type: ignore[attr-defined]  # every table here has one
        session.connection().execute(delete(row_class).where(number.in_(ids)))


def _needed(session: Session) -> set[str]:
    """Return the bundles that devices run or shall run, and those that rollouts may still hand out or go back to."""
    found: set[str | None] = set()
    devices = select(DeviceRow.running, DeviceRow.desired_bundle, DeviceRow.job_bundle).distinct()
    open_ones = select(RolloutRow.name).where(col(RolloutRow.settled).is_(False))
    members = select(MemberRow.bundle, MemberRow.previous).where(col(MemberRow.rollout).in_(open_ones)).distinct()
    rollouts = select(RolloutRow.bundle).where(col(RolloutRow.settled).is_(False))
    shadows = select(ShadowRow.bundle).where(ShadowRow.state != ShadowState.ENDED)
    rows: list[Row[Any]] = [
        *session.connection().execute(devices.where(col(DeviceRow.revoked_at).is_(None))),
        *session.connection().execute(members),
        *session.connection().execute(rollouts),
        *session.connection().execute(shadows),
    ]
    for row in rows:
        found.update(row)
    return {digest for digest in found if digest is not None}


def _blocks(session: Session, uploaded_after: float) -> frozenset[str]:
    """Return the blocks of bundles that are complete, or are being uploaded."""
    wanted = or_(col(BundleRow.complete).is_(True), col(BundleRow.created_at) > uploaded_after)
    manifests = session.exec(select(BundleRow.manifest).where(wanted))
    return frozenset(
        block.sha256 for manifest in manifests for entry in decode(Manifest, manifest).files for block in entry.blocks
    )
