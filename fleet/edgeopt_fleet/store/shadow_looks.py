"""What the judge of a shadow is told, what it said, and what it says when it is asked again.

A look is due when a quarter more was compared than at the last one, so that there are few of them however long a shadow
runs; each spends a part of the error. Example::

    if may_look(session, row):
        look_at(session, row, now)
    looks.explain("next", 50)                        # the newest fifty, oldest first
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec
from sqlmodel import Session, col, func, select

from edgeopt_contract.codec import decode as decode_record
from edgeopt_contract.manifest import Manifest
from edgeopt_contract.messages import DeviceState
from edgeopt_contract.values import canonical_json
from edgeopt_fleet.gate.shadow import CODE, Decision, ShadowVerdict, canonical, judge
from edgeopt_fleet.gate.shadow_evidence import (
    ClassAgreement,
    DeviceAgreement,
    ShadowEvidence,
    ShadowPolicy,
    decode,
    encode,
)
from edgeopt_fleet.problems import InvalidError
from edgeopt_fleet.shadowing import CHALLENGER, CHAMPION, Compared, class_windows
from edgeopt_fleet.store.database import Database
from edgeopt_fleet.store.shadow_rows import SERVES_IT, ShadowState, find_shadow, policy_of
from edgeopt_fleet.store.tables import BundleRow, DeviceRow, ShadowLookRow, ShadowMemberRow, ShadowRow, ShadowServedRow

__all__ = ["ComparedSoFar", "Judged", "ShadowLooks", "look_at", "may_look"]

_GROWTH = 1.25
_WITHOUT = (DeviceState.REJECTED, SERVES_IT)  # devices that will never run it: nothing is said about them


@dataclass(frozen=True, slots=True)
class Judged:
    """One look, judged now; ``same`` says whether that gives the stored verdict, byte for byte."""

    at: float
    number: int
    code: str
    evidence: ShadowEvidence
    verdict: ShadowVerdict
    same: bool


@dataclass(frozen=True, slots=True)
class ComparedSoFar:
    """What one shadow compared so far, and the verdict of its newest look (without one, what would be said now)."""

    evidence: ShadowEvidence
    verdict: ShadowVerdict
    at: float | None


class ShadowLooks:
    """Reads what was compared and what was said of it."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def agreement(self, name: str) -> ComparedSoFar:
        """Return what was compared so far. Raises :class:`NotFoundError`."""
        with self._database.reading() as session:
            row = find_shadow(session, name)
            evidence = _gather(session, row)
            last = _newest(session, name)
            if last is None:
                return ComparedSoFar(evidence, judge(evidence, policy_of(row)), None)
            return ComparedSoFar(evidence, _judged(last, {}).verdict, last.at)

    def explain(self, name: str, most: int, changes: Mapping[str, str] | None = None) -> list[Judged]:
        """Return the newest ``most`` looks, oldest first, each judged again, under a policy with ``changes`` if any.

        Raises :class:`NotFoundError`, and :class:`InvalidError` for a change that the policy cannot have.
        """
        query = select(ShadowLookRow).where(ShadowLookRow.shadow == name).order_by(col(ShadowLookRow.id).desc())
        with self._database.reading() as session:
            find_shadow(session, name)
            rows = session.exec(query.limit(most)).all()
        return [_judged(row, changes or {}) for row in reversed(rows)]


def may_look(session: Session, row: ShadowRow) -> bool:
    """Say whether enough is new to look again; after the end, anything is."""
    rows, failed = _progress(session, row)
    if failed > row.looked_failed:
        return True
    return rows > row.looked_rows and (row.state == ShadowState.ENDED or rows >= _GROWTH * row.looked_rows)


def look_at(session: Session, row: ShadowRow, now: float) -> bool:
    """Judge, and keep the look if it compared something, or if it refuses; say whether it was kept."""
    evidence, policy = _gather(session, row), policy_of(row)
    verdict = judge(evidence, policy)
    row.looked_rows, row.looked_failed = _progress(session, row)
    kept = verdict.agreement.devices > 0 or verdict.decision is Decision.DO_NOT_RECOMMEND
    if kept:
        session.add(
            ShadowLookRow(
                shadow=row.name,
                number=evidence.number,
                at=now,
                code=CODE,
                policy=canonical_json(msgspec.to_builtins(policy)),
                evidence=encode(evidence),
                verdict=canonical(verdict),
            )
        )
    session.flush()
    return kept


def _judged(row: ShadowLookRow, changes: Mapping[str, str]) -> Judged:
    evidence = decode(row.evidence)
    verdict = judge(evidence, _changed(row.policy, changes))
    return Judged(row.at, row.number, row.code, evidence, verdict, canonical(verdict) == row.verdict)


def _changed(stored: bytes, changes: Mapping[str, str]) -> ShadowPolicy:
    values = msgspec.json.decode(stored)
    for name, text in changes.items():
        if name not in values:
            raise InvalidError(f"expected a field of the policy such as {', '.join(sorted(values)[:5])}, got {name!r}")
        values[name] = text
    try:
        return msgspec.convert(values, ShadowPolicy, strict=not changes)
    except msgspec.ValidationError as error:
        raise InvalidError(str(error)) from error


def _newest(session: Session, name: str) -> ShadowLookRow | None:
    query = select(ShadowLookRow).where(ShadowLookRow.shadow == name).order_by(col(ShadowLookRow.id).desc())
    return session.exec(query.limit(1)).first()


def _progress(session: Session, row: ShadowRow) -> tuple[int, int]:
    """Return how many rows were compared or failed, and how many devices failed."""
    rows = select(func.sum(ShadowServedRow.compared + ShadowServedRow.errors)).where(ShadowServedRow.shadow == row.name)
    failed = (
        select(func.count())
        .select_from(ShadowMemberRow)
        .where(ShadowMemberRow.shadow == row.name, ShadowMemberRow.state == DeviceState.FAILED)
    )
    return int(session.exec(rows).one() or 0), session.exec(failed).one()


def _gather(session: Session, row: ShadowRow) -> ShadowEvidence:
    """Return what is known of a shadow, devices by name."""
    member, served = ShadowMemberRow, ShadowServedRow
    joined = (col(served.shadow) == col(member.shadow)) & (col(served.device) == col(member.device))
    query = (
        select(member.device, member.state, DeviceRow.hardware, served)
        .join(DeviceRow, col(DeviceRow.id) == col(member.device))
        .join(served, joined, isouter=True)
        .where(member.shadow == row.name)
        .order_by(col(member.device))
    )
    found = session.execute(query).all()
    last = _newest(session, row.name)
    sums = {device: _sums(kept) for device, _, _, kept in found if kept is not None}
    members = [hardware for device, state, hardware, _ in found if state not in _WITHOUT or device in sums]
    return ShadowEvidence(
        number=1 if last is None else last.number + 1,
        members=len(members),
        hardware=dict(sorted(Counter(members).items())),
        devices=tuple(_device(one, sums) for one in found if one.state is not None or one.device in sums),
        classes=_classes(session, row.bundle, sums.values()),
    )


def _sums(row: ShadowServedRow) -> Compared:
    names = ("windows", "compared", "agreed", "incomparable", "errors", "squares", "counts", "classes")
    return Compared(**{name: getattr(row, name) for name in names})


def _device(found: Any, sums: Mapping[str, Compared]) -> DeviceAgreement:
    device, state, hardware, _ = found
    own = sums.get(device, Compared())
    return DeviceAgreement(
        device=device,
        hardware=hardware,
        state=state or "",
        compared=own.compared,
        agreed=own.agreed,
        incomparable=own.incomparable,
        errors=own.errors,
        windows=own.effective_windows,
        champion_us=own.median_us(CHAMPION),
        challenger_us=own.median_us(CHALLENGER),
    )


def _classes(session: Session, bundle: str, sums: Iterable[Compared]) -> tuple[ClassAgreement, ...]:
    """Return the classes that the champion answered, with the names that the challenger's manifest has for them."""
    sums, total = tuple(sums), Compared()
    for one in sums:
        total = total.add(one)
    agreed, disagreed = total.by_class
    if not len(agreed):
        return ()
    labels = decode_record(Manifest, session.exec(select(BundleRow.manifest).where(BundleRow.digest == bundle)).one())
    names = [*(labels.labels[: len(agreed) - 1] or map(str, range(len(agreed) - 1))), "any other"]
    return tuple(
        ClassAgreement(label=name, agreed=int(yes), disagreed=int(no), windows=float(windows))
        for name, yes, no, windows in zip(names, agreed, disagreed, class_windows(sums), strict=False)
        if yes or no
    )
