"""Which device holds which certificate: enrolment, renewal, revocation.

Tokens and bearers are kept as hashes only. Signing is :mod:`edgeopt_fleet.ca`'s business: a certificate that comes in
here was just made, and counts only once it is stored. Times are seconds since 1970. Example::

    identities = Identities(database)
    enrolled = identities.enrol(secret, enrolment, now=1764000000)
    identities.revoke("cam-7", now=1764000100)
    identities.users()                       # whom the broker lets in
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import msgspec
from sqlmodel import Session, col, func, select, update

from edgeopt_contract.manifest import Capabilities
from edgeopt_contract.values import digest_of
from edgeopt_fleet.ca import Issued
from edgeopt_fleet.hardware import hardware_class
from edgeopt_fleet.problems import ConflictError, ForbiddenError, NotFoundError
from edgeopt_fleet.store.alarms import Alarm, raise_alarm
from edgeopt_fleet.store.audit import Change, append
from edgeopt_fleet.store.changes import Counter, next_change
from edgeopt_fleet.store.database import Database
from edgeopt_fleet.store.nearest import did_you_mean
from edgeopt_fleet.store.tables import CertificateRow, DeviceRow
from edgeopt_fleet.store.tokens import SpentTokenError, spend, token_hash

__all__ = ["BrokerUser", "Enrolled", "Enrolment", "Identities", "RevokedIdentityError", "Secrets"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Secrets:
    """What is kept of a device's secrets; ``password_hash`` is empty where the broker takes certificates."""

    bearer_sha256: str
    password_hash: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Enrolment:
    """A device that wants an identity, and the certificate that it gets if nothing is against it."""

    device: str
    tags: Mapping[str, str]
    capabilities: Capabilities
    issued: Issued
    secrets: Secrets = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Enrolled:
    """The certificate that counts, and how many devices there are."""

    certificate: CertificateRow
    devices: int


@dataclass(frozen=True, slots=True, kw_only=True)
class BrokerUser:
    """One certificate that the broker lets in; or, without TLS, one device with the hash of its password."""

    device: str
    serial: str
    password_hash: str


class RevokedIdentityError(ForbiddenError):
    """Somebody came with a certificate that was revoked."""


class Identities:
    """Who may connect as which device; ``changed`` has the number of each device's last change through this."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self.changed: dict[str, int] = {}

    def enrol(self, secret: str, enrolment: Enrolment, now: int) -> Enrolled:
        """Spend one use of the token ``secret`` on a device.

        The same token with the same key gives the same certificate again, so that a device whose answer was lost can
        ask once more. Raises :class:`ForbiddenError` for a token that is unknown, used up, revoked or expired, and
        :class:`ConflictError` when the id or the key belongs to a device already; then the token keeps its use. A token
        that is used up or revoked raises an alarm.
        """
        token = token_hash(secret)
        key = digest_of(enrolment.issued.public_key)
        with self._alarms(enrolment.device, now), self._changing(enrolment.device) as session:
            found = _latest(session, CertificateRow.token_sha256 == token, enrolment.device, key)
            if found is None or not _is_valid(found, now):
                row = spend(session, token, now)
                before = _state(session, enrolment.device)
                _put_device(session, enrolment, row.tags, now)
                _check_key_is_new(session, key)
                found = _certificate(enrolment.issued, enrolment.device, token=token)
                session.add(found)
                session.flush()
                _tell(session, "device.enrol", found, before, now)
            _keep_secrets(session, found, enrolment.secrets)
            return _enrolled(session, found)

    def renewing(self, device: str, serial: str, now: int) -> CertificateRow:
        """Return the certificate with which ``device`` asks for its next one; it may have expired.

        Raises :class:`ForbiddenError` when it is not one of this device, or was revoked; the latter raises an alarm.
        """
        with self._alarms(device, now), self._database.reading() as session:
            return _renewable(session, device, serial)

    def renew(self, device: str, serial: str, issued: Issued, secrets: Secrets, now: int) -> Enrolled:
        """Put a certificate in the place of the one with ``serial``, which stays valid until the next renewal.

        The same key again gives the same certificate again. Raises :class:`ForbiddenError` when the old one was
        revoked, :class:`ConflictError` when it was renewed with another key.
        """
        key = digest_of(issued.public_key)
        with self._alarms(device, now), self._changing(device) as session:
            old = _renewable(session, device, serial)
            successor = session.exec(
                select(CertificateRow).where(CertificateRow.replaces == serial).order_by(col(CertificateRow.id).desc())
            ).first()
            if successor is not None and successor.public_key_sha256 != key:
                raise ConflictError(
                    f"the certificate {serial[:12]} of {old.device} was renewed with another key before: was the "
                    "device copied, or restored from a backup? If so, revoke it and enrol it again with a new token"
                )
            if successor is None or not _is_valid(successor, now):
                if successor is None:
                    _check_key_is_new(session, key)
                before = _state(session, device)
                _revoke_one(session, old.replaces, now)
                successor = _certificate(issued, old.device, replaces=serial)
                session.add(successor)
                session.flush()
                _tell(session, "device.renew", successor, before, now)
            _keep_secrets(session, successor, secrets)
            return _enrolled(session, successor)

    def revoke(self, device: str, now: int) -> None:
        """Take all identities of ``device`` away; twice is once. Raises :class:`NotFoundError`."""
        with self._changing(device) as session:
            row = session.get(DeviceRow, device)
            if row is None:
                meant = did_you_mean(session, col(DeviceRow.id), device)
                raise NotFoundError(f"there is no device {device!r}{meant}")
            before = _state(session, device)
            row.revoked_at = row.revoked_at or now
            row.online = False
            row.password_hash = ""
            row.changed = next_change(session)
            for serial in session.exec(select(CertificateRow.serial).where(CertificateRow.device == device)).all():
                _revoke_one(session, serial, now)
            session.flush()
            change = Change(
                operation="device.revoke", subject=f"device/{device}", before=before, after=_state(session, device)
            )
            append(session, change, now)

    def users(self) -> list[BrokerUser]:
        """Return whom the broker lets in: every certificate that was not revoked, by device."""
        query = (
            select(DeviceRow.id, CertificateRow.serial, DeviceRow.password_hash)
            .join(CertificateRow, col(CertificateRow.device) == col(DeviceRow.id))
            .where(col(CertificateRow.revoked_at).is_(None))
            .order_by(col(DeviceRow.id), col(CertificateRow.id))
        )
        with self._database.transaction() as session:
            return [BrokerUser(device=d, serial=s, password_hash=p) for d, s, p in session.exec(query).all()]

    def revoked(self) -> Sequence[tuple[str, int]]:
        """Return every serial that was revoked and when, for the revocation list."""
        query = select(CertificateRow.serial, CertificateRow.revoked_at).where(
            col(CertificateRow.revoked_at).is_not(None)
        )
        with self._database.transaction() as session:
            return [(serial, int(at or 0)) for serial, at in session.exec(query).all()]

    def report_revoked(self, device: str, now: int) -> None:
        """Raise an alarm: a device that was revoked tries again."""
        raise_alarm(self._database, _revoked_alarm(device), now)

    @contextlib.contextmanager
    def _changing(self, device: str) -> Iterator[Session]:
        """Give a transaction, and number it: whoever remembers an identity of ``device`` asks again."""
        with self._database.transaction() as session:
            yield session
            number = next_change(session, Counter.IDENTITIES)
            session.flush()
            session.execute(update(CertificateRow).where(col(CertificateRow.device) == device).values(changed=number))
        self.changed[device] = max(number, self.changed.get(device, 0))

    @contextlib.contextmanager
    def _alarms(self, device: str, now: int) -> Iterator[None]:
        """Raise an alarm about what nobody honest does: spending a spent token, renewing what was revoked."""
        try:
            yield
        except SpentTokenError as error:
            message = f"token {error.token} was used again, by a device that calls itself {device}: {error}"
            raise_alarm(self._database, Alarm("token_reuse", f"token/{error.token}", message), now)
            raise
        except RevokedIdentityError:
            self.report_revoked(device, now)
            raise


def _is_valid(row: CertificateRow, now: int) -> bool:
    return row.revoked_at is None and now < row.valid_until


def _latest(session: Session, condition: object, device: str, key: str) -> CertificateRow | None:
    query = select(CertificateRow).where(
        condition,  # type: ignore[arg-type]  # a column's comparison, which mypy takes for a bool
        CertificateRow.device == device,
        CertificateRow.public_key_sha256 == key,
    )
    return session.exec(query.order_by(col(CertificateRow.id).desc())).first()


def _find(session: Session, serial: str) -> CertificateRow | None:
    return session.exec(select(CertificateRow).where(CertificateRow.serial == serial)).first()


def _revoked_alarm(device: str) -> Alarm:
    message = f"device {device} tries to use an identity that was revoked"
    return Alarm("revoked_identity", f"device/{device}", message)


def _state(session: Session, device: str) -> dict[str, object] | None:
    """Return what the audit log keeps a digest of; no secrets and no hashes of any."""
    row = session.get(DeviceRow, device)
    if row is None:
        return None
    query = select(CertificateRow.serial, CertificateRow.revoked_at).where(CertificateRow.device == device)
    serials = [list(one) for one in session.exec(query.order_by(col(CertificateRow.id))).all()]
    return {"device": device, "tags": row.tags, "revoked_at": row.revoked_at, "certificates": serials}


def _tell(session: Session, operation: str, row: CertificateRow, before: dict[str, object] | None, now: float) -> None:
    """Tell the audit log of a new certificate."""
    change = Change(
        operation=operation,
        subject=f"device/{row.device}",
        before=before,
        after=_state(session, row.device),
        detail={"serial": row.serial, "token": (row.token_sha256 or "")[:16]},
    )
    append(session, change, now)


def _put_device(session: Session, enrolment: Enrolment, tags: Mapping[str, str], now: int) -> None:
    """Add the device, or let one that was revoked come back. Raises :class:`ConflictError` for a taken id."""
    row = session.get(DeviceRow, enrolment.device)
    if row is not None and row.revoked_at is None:
        raise ConflictError(
            f"the device id {enrolment.device!r} is taken; choose another one, or if this device is to take its place: "
            f"edgeopt devices revoke {enrolment.device}"
        )
    if row is None:
        row = DeviceRow(id=enrolment.device, tags={}, capabilities={}, enrolled_at=now)
        session.add(row)
    row.tags = {**enrolment.tags, **tags}
    row.capabilities = msgspec.to_builtins(enrolment.capabilities)
    row.hardware = hardware_class(row.tags, enrolment.capabilities.arch, enrolment.capabilities.features)
    row.enrolled_at = now
    row.revoked_at = None
    row.changed = next_change(session)
    session.flush()


def _check_key_is_new(session: Session, key: str) -> None:
    if session.exec(select(CertificateRow.id).where(CertificateRow.public_key_sha256 == key)).first() is not None:
        raise ConflictError(
            "this key has an identity already; the files of one device must not be copied to another: give --data an "
            "empty directory"
        )


def _renewable(session: Session, device: str, serial: str) -> CertificateRow:
    row = _find(session, serial)
    if row is None or row.device != device:
        raise ForbiddenError(f"this fleet gave {device} no certificate {serial[:12]}; enrol again with a new token")
    if row.revoked_at is not None:
        raise RevokedIdentityError(
            f"the certificate {serial[:12]} of {device} was revoked; only a new token lets it back in"
        )
    return row


def _revoke_one(session: Session, serial: str | None, now: int) -> None:
    row = None if serial is None else _find(session, serial)
    if row is not None and row.revoked_at is None:
        row.revoked_at = now


def _certificate(
    issued: Issued, device: str, *, token: str | None = None, replaces: str | None = None
) -> CertificateRow:
    return CertificateRow(
        serial=issued.serial,
        device=device,
        public_key=issued.public_key,
        public_key_sha256=digest_of(issued.public_key),
        pem=issued.pem,
        valid_from=issued.valid_from,
        valid_until=issued.valid_until,
        bearer_sha256="",
        token_sha256=token,
        replaces=replaces,
    )


def _keep_secrets(session: Session, row: CertificateRow, secrets: Secrets) -> None:
    row.bearer_sha256 = secrets.bearer_sha256
    device = session.get(DeviceRow, row.device)
    assert device is not None  # certificates refer to devices
    device.password_hash = secrets.password_hash


def _enrolled(session: Session, row: CertificateRow) -> Enrolled:
    session.flush()
    return Enrolled(certificate=row, devices=session.exec(select(func.count()).select_from(DeviceRow)).one())
