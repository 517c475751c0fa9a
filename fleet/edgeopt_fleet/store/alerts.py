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
from sqlmodel import Session, col, func, select

from edgeopt_contract.codec import decode
from edgeopt_contract.profile import ReferenceProfile, merge_cells
from edgeopt_fleet.cohort import most_specific
from edgeopt_fleet.drift import DriftRules, FeatureWatch, Look, look, watch
from edgeopt_fleet.store.database import Database
from edgeopt_fleet.store.registry import all_cohorts
from edgeopt_fleet.store.tables import AlertRow, BundleRow, DeviceRow, DriftRow, WindowRow

__all__ = ["Alerts"]

_OPEN, _CLOSED = "open", "closed"


@dataclass(frozen=True, slots=True)
class _Subject:
    """Devices of one cohort that run one bundle."""

    cohort: str
    bundle: str
    devices: frozenset[str]


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
        """Look once at every cohort and bundle that has enough new rows; open, renew and close alerts."""
        with self._database.transaction() as session:
            subjects = _subjects(session)
            for subject in subjects:
                self._look_at(session, subject, len(subjects), now)
            watched = {(subject.cohort, subject.bundle) for subject in subjects}
            for alert in session.exec(select(AlertRow).where(AlertRow.state == _OPEN)):
                if (alert.cohort, alert.bundle) not in watched:
                    alert.state = _CLOSED  # nobody there runs that bundle any more

    def _look_at(self, session: Session, subject: _Subject, subjects: int, now: float) -> None:
        bundle = session.get(BundleRow, subject.bundle)
        if bundle is None or bundle.profile is None:
            return
        progress = session.get(DriftRow, (subject.cohort, subject.bundle))
        if progress is None:  # a new subject is watched from now on
            newest = session.exec(select(func.max(WindowRow.id)).where(WindowRow.bundle == subject.bundle)).one()
            session.add(DriftRow(cohort=subject.cohort, bundle=subject.bundle, last_window=newest or 0))
            return
        query = select(WindowRow.id, WindowRow.device, WindowRow.cells).where(
            WindowRow.bundle == subject.bundle, col(WindowRow.id) > progress.last_window
        )
        windows = [row for row in session.exec(query) if row[1] in subject.devices]
        cells = merge_cells(*(row[2] for row in windows))
        looks = look(decode(ReferenceProfile, bundle.profile), cells, subjects, self._rules)
        if not looks:
            return
        progress.last_window = max(row[0] or 0 for row in windows)
        watches = dict(progress.features)
        for seen in looks:
            state = watch(
                msgspec.convert(watches.get(seen.feature, {}), FeatureWatch), drifted=seen.drifted, rules=self._rules
            )
            watches[seen.feature] = msgspec.to_builtins(state)
            _keep_alert(session, subject, seen, state, int(now))
        progress.features = watches


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
        alert.state = _CLOSED
    if not state.open or not seen.drifted:
        return
    if alert is None:
        alert = AlertRow(
            kind="drift",
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
    alert.psi, alert.p_value, alert.rows = seen.finding.psi, seen.finding.p_value, seen.finding.rows
