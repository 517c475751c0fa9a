"""Drift alerts: looks at the windows that came since the last look.

A cohort's windows of one bundle are merged until there are enough rows; then every feature is looked at once, and
those windows are done. Each device counts for its most specific cohorts. Example::

    alerts.look(now)                             # at most one look at each cohort and bundle
    alerts.list(state="open")
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import msgspec
import numpy as np
from sqlalchemy import bindparam
from sqlmodel import Session, col, func, select

from edgeopt_contract.codec import decode
from edgeopt_contract.profile import ReferenceProfile
from edgeopt_fleet.cohort import most_specific
from edgeopt_fleet.drift import DriftRules, FeatureWatch, Look, look, watch
from edgeopt_fleet.narrow import total
from edgeopt_fleet.store.changes import next_change
from edgeopt_fleet.store.cohorts import all_cohorts
from edgeopt_fleet.store.database import Database
from edgeopt_fleet.store.tables import AlertRow, BundleRow, DeviceRow, DriftRow, WindowRow
from edgeopt_fleet.totals import Layout

__all__ = ["Alerts", "watched"]

_OPEN, _CLOSED = "open", "closed"
_WINDOWS_AT_ONCE = 1000  # there may be hundreds of thousands: other threads must get their turn in between
_KIND = "drift"


@dataclass(frozen=True, slots=True)
class _Subject:
    """Devices of one cohort that run one bundle."""

    cohort: str
    bundle: str
    devices: frozenset[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Sums:
    """What a subject's windows add up to, by feature, and the newest of them."""

    profile: ReferenceProfile
    newest: int
    cells: Mapping[str, Sequence[int]]


class Alerts:
    """Looks for drift and keeps what was found."""

    def __init__(self, database: Database, rules: DriftRules) -> None:
        self._database = database
        self._rules = rules

    def list(self, state: str | None = None) -> Sequence[AlertRow]:
        """Return the alerts, newest first; those in ``state`` only if it is given."""
        query = select(AlertRow).order_by(col(AlertRow.id).desc())
        if state is not None:
            query = query.where(AlertRow.state == state)
        with self._database.transaction() as session:
            return session.exec(query).all()

    def look(self, now: float) -> None:
        """Look once at every cohort and bundle that has enough new rows; open, renew and close alerts.

        Windows are many, so they are added up beside the writers; only what was found is written.
        """
        with self._database.reading() as session:
            subjects = _subjects(session)
            gathered = [(subject, _gather(session, subject)) for subject in subjects]
        with self._database.transaction(lock="drift") as session:
            for subject, sums in gathered:
                if sums is not None:
                    self._look_at(session, subject, sums, len(subjects), now)
            watched = {(subject.cohort, subject.bundle) for subject in subjects}
            open_ones = select(AlertRow).where(
                AlertRow.state == _OPEN, AlertRow.kind == _KIND
            )  # alarms are others' to close
            for alert in session.exec(open_ones):
                if (alert.cohort, alert.bundle) not in watched:
                    # nobody there runs that bundle any more
                    alert.state, alert.changed = _CLOSED, next_change(session)

    def _look_at(self, session: Session, subject: _Subject, sums: _Sums, subjects: int, now: float) -> None:
        progress = session.get(DriftRow, (subject.cohort, subject.bundle))
        if progress is None:  # a new subject is watched from now on
            session.add(DriftRow(cohort=subject.cohort, bundle=subject.bundle, last_window=sums.newest))
            return
        looks = look(sums.profile, sums.cells, subjects, self._rules)
        if not looks:
            return
        progress.last_window = sums.newest
        watches = dict(progress.features)
        for seen in looks:
            state = watch(
                msgspec.convert(watches.get(seen.feature, {}), FeatureWatch), drifted=seen.drifted, rules=self._rules
            )
            watches[seen.feature] = msgspec.to_builtins(state)
            _keep_alert(session, subject, seen, state, int(now))
        progress.features = watches


def _gather(session: Session, subject: _Subject) -> _Sums | None:
    """Add up the windows since the last look; none of a subject that is new."""
    profile = session.exec(select(BundleRow.profile).where(col(BundleRow.digest) == subject.bundle)).first()
    if profile is None:
        return None
    decoded = decode(ReferenceProfile, profile)
    progress = session.get(DriftRow, (subject.cohort, subject.bundle))
    if progress is None:
        newest = session.exec(select(func.max(WindowRow.id)).where(WindowRow.bundle == subject.bundle)).one()
        return _Sums(profile=decoded, newest=newest or 0, cells={})
    newest, cells = _cells_since(session, subject, Layout.of(decoded), progress.last_window)
    return _Sums(profile=decoded, newest=newest, cells=cells)


def _cells_since(session: Session, subject: _Subject, layout: Layout, last: int) -> tuple[int, dict[str, list[int]]]:
    """Return the newest window of the subject after ``last``, and the cells of all of them added up."""
    query = (
        select(WindowRow.id, WindowRow.device, WindowRow.counts)
        .where(WindowRow.bundle == subject.bundle, col(WindowRow.id) > bindparam("last"))
        .order_by(col(WindowRow.id))
        .limit(_WINDOWS_AT_ONCE)
    )
    counts, place = np.zeros(layout.size, dtype=np.int64), last
    while rows := session.connection().execute(query, {"last": place}).fetchall():
        place = rows[-1].id
        own = [(row[0], row[2]) for row in rows if row[1] in subject.devices]
        counts += total((blob for _, blob in own), layout.size)
        last = own[-1][0] if own else last
    return last, {spec.name: layout.cells_of(counts, spec.name).tolist() for spec in layout.specs}


def watched(session: Session) -> set[tuple[str, str]]:
    """Return every cohort and bundle that :meth:`Alerts.look` looks at."""
    return {(subject.cohort, subject.bundle) for subject in _subjects(session)}


def _subjects(session: Session) -> list[_Subject]:
    """Return every cohort and bundle to watch; a device counts for its most specific cohorts only."""
    running: Mapping[str, str | None] = dict(session.exec(select(DeviceRow.id, DeviceRow.running)).all())
    own = most_specific({cohort.name: frozenset(cohort.devices) for cohort in all_cohorts(session)})
    subjects = []
    for name, devices in sorted(own.items()):
        for bundle in sorted({digest for device in devices if (digest := running[device]) is not None}):
            subjects.append(_Subject(name, bundle, frozenset(d for d in devices if running[d] == bundle)))
    return subjects


def _keep_alert(session: Session, subject: _Subject, seen: Look, state: FeatureWatch, now: int) -> None:
    """Make the row of an alert say what the watch says."""
    alert = session.exec(
        select(AlertRow).where(
            AlertRow.cohort == subject.cohort,
            AlertRow.bundle == subject.bundle,
            AlertRow.feature == seen.feature,
            AlertRow.state == _OPEN,
        )
    ).first()
    if alert is not None and not state.open:
        alert.state, alert.changed = _CLOSED, next_change(session)
    if not state.open or not seen.drifted:
        return
    if alert is None:
        alert = AlertRow(
            kind=_KIND,
            cohort=subject.cohort,
            feature=seen.feature,
            source=seen.source,
            bundle=subject.bundle,
            state=_OPEN,
            opened_at=now,
            last_seen=now,
            psi=0.0,
            p_value=1.0,
            rows=0,
            message="",
        )
        session.add(alert)
    alert.last_seen, alert.message = now, f"{subject.cohort}: {seen.message}"
    alert.changed = next_change(session)
    alert.psi, alert.p_value, alert.rows = seen.finding.psi, seen.finding.p_value, seen.finding.rows
