"""Drift alerts: looks at what cohorts served since the last look.

It is told from the devices' totals (:mod:`edgeopt_fleet.store.growth`), so a look costs the same however much came. A
cohort's rows on one bundle gather until there are enough; then every feature is looked at once, and the next rows begin
anew. Each device counts for its most specific cohorts. Example::

    alerts.look(now)                             # at most one look at each cohort and bundle
    alerts.list(state="open")
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import msgspec
from sqlmodel import Session, col, select

from edgeopt_contract.codec import decode
from edgeopt_contract.profile import ReferenceProfile
from edgeopt_contract.values import digest_of
from edgeopt_fleet.cohort import most_specific
from edgeopt_fleet.drift import DriftRules, FeatureWatch, Look, look, watch
from edgeopt_fleet.store.changes import Counter, newest_change, next_change
from edgeopt_fleet.store.cohorts import all_cohorts
from edgeopt_fleet.store.database import Database
from edgeopt_fleet.store.growth import Group, Growth, measure
from edgeopt_fleet.store.tables import AlertRow, BundleRow, DeviceRow, DriftRow
from edgeopt_fleet.totals import Layout

__all__ = ["Alerts", "watched"]

_OPEN, _CLOSED = "open", "closed"
_KIND = "drift"


@dataclass(frozen=True, slots=True)
class _Subject:
    """Devices of one cohort that run one bundle."""

    cohort: str
    bundle: str
    devices: frozenset[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Sums:
    """What a subject served since the last look, the newest window then, and where the next look begins."""

    profile: ReferenceProfile
    layout: Layout
    newest: int
    growth: Growth


class Alerts:
    """Looks for drift and keeps what was found."""

    def __init__(self, database: Database, rules: DriftRules) -> None:
        self._database = database
        self._rules = rules
        self._members: dict[tuple[str, str], frozenset[str]] = {}  # of each subject, at the last look

    def list(self, state: str | None = None) -> Sequence[AlertRow]:
        """Return the alerts, newest first; those in ``state`` only if it is given."""
        query = select(AlertRow).order_by(col(AlertRow.id).desc())
        if state is not None:
            query = query.where(AlertRow.state == state)
        with self._database.transaction() as session:
            return session.exec(query).all()

    def look(self, now: float) -> None:
        """Look once at every cohort and bundle that has enough new rows; open, renew and close alerts.

        Totals are added up beside the writers; only what was found is written.
        """
        with self._database.reading() as session:
            subjects = _subjects(session)
            gathered = self._gather(session, subjects)
        with self._database.transaction(lock="drift") as session:
            for subject, sums in gathered:
                self._look_at(session, subject, sums, len(subjects), now)
            watched = {(subject.cohort, subject.bundle) for subject in subjects}
            open_ones = select(AlertRow).where(
                AlertRow.state == _OPEN, AlertRow.kind == _KIND
            )  # alarms are others' to close
            for alert in session.exec(open_ones):
                if (alert.cohort, alert.bundle) not in watched:
                    # nobody there runs that bundle any more
                    alert.state, alert.changed = _CLOSED, next_change(session)
        self._members = {(subject.cohort, subject.bundle): subject.devices for subject in subjects}

    def _gather(self, session: Session, subjects: Sequence[_Subject]) -> Sequence[tuple[_Subject, _Sums]]:
        """Add up what each subject served since the last look; those of bundles that are not here are left out."""
        stored = {(row.cohort, row.bundle): row for row in session.exec(select(DriftRow))}
        newest = newest_change(session, Counter.WINDOWS)
        gathered = []
        for bundle in sorted({subject.bundle for subject in subjects}):
            profile = session.exec(select(BundleRow.profile).where(col(BundleRow.digest) == bundle)).first()
            if profile is None:
                continue
            decoded = decode(ReferenceProfile, profile)
            layout = Layout.of(decoded)
            own = [subject for subject in subjects if subject.bundle == bundle]
            groups = [self._group(subject, stored.get((subject.cohort, bundle))) for subject in own]
            for subject, growth in zip(own, measure(session, bundle, layout, groups), strict=True):
                sums = _Sums(profile=decoded, layout=layout, newest=newest, growth=growth)
                gathered.append((subject, sums))
        return gathered

    def _group(self, subject: _Subject, row: DriftRow | None) -> Group:
        """Say who belonged at the last look; when nobody knows that any more, the rows since then are not counted."""
        if row is None:
            return Group((), subject.devices, b"")
        then = self._members.get((subject.cohort, subject.bundle))
        if then is None:
            then = subject.devices if row.members == _digest(subject.devices) else frozenset()
        return Group(subject.devices if then == subject.devices else then, subject.devices, row.base)

    def _look_at(self, session: Session, subject: _Subject, sums: _Sums, subjects: int, now: float) -> None:
        key = (subject.cohort, subject.bundle)
        progress = session.get(DriftRow, key)
        looks: tuple[Look, ...] = ()
        if progress is not None:
            cells = {
                spec.name: sums.layout.cells_of(sums.growth.grown, spec.name).tolist() for spec in sums.layout.specs
            }
            looks = look(sums.profile, cells, subjects, self._rules)
        else:  # a new subject is watched from now on
            progress = DriftRow(cohort=subject.cohort, bundle=subject.bundle, last_window=sums.newest)
            session.add(progress)
        progress.base = sums.growth.base(looked=bool(looks))
        if self._members.get(key) != subject.devices:
            progress.members = _digest(subject.devices)
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


def _digest(devices: frozenset[str]) -> str:
    return digest_of("\n".join(sorted(devices)).encode())


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
