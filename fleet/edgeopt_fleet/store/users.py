"""Users, their roles and their API keys.

A key is ``eok_`` and 256 random bits; its SHA-256 is all that is kept (there is nothing to guess, so nothing to slow
down), and its beginning, by which people and secret scanners recognise it. It is shown once. Rotating gives a new key
and lets the old ones go on for a while. There is always a user left who may change the others. Times are seconds since
1970. Example::

    users = Users(database)
    made = users.create("alice", Role.OPERATOR, now, lifetime_seconds=90 * 86400)
    users.whose(made.key, now)               # KeyHolder(name='alice', role=<Role.OPERATOR>, prefix='eok_Q3xk7Z')
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from sqlmodel import Session, col, select

from edgeopt_contract.values import digest_of
from edgeopt_fleet.acting import NOBODY, WORKER
from edgeopt_fleet.problems import ConflictError, InvalidError, NotFoundError
from edgeopt_fleet.rights import Role
from edgeopt_fleet.store.audit import Change, append
from edgeopt_fleet.store.database import Database
from edgeopt_fleet.store.nearest import did_you_mean
from edgeopt_fleet.store.tables import ApiKeyRow, UserRow

__all__ = ["KEY_PREFIX", "KeyHolder", "NewKey", "User", "Users"]

KEY_PREFIX = "eok_"
_SHOWN = len(KEY_PREFIX) + 8  # 48 of 256 bits: enough to tell keys apart, and no help in guessing the rest
_LOCK = "users"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,47}")
_RESERVED = (NOBODY.name, WORKER.name)  # they stand in the audit log as who acts


@dataclass(frozen=True, slots=True, kw_only=True)
class NewKey:
    """A key that was just made; it cannot be read again."""

    user: str
    role: Role
    prefix: str
    expires_at: int | None
    key: str = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyHolder:
    """Whom a valid key belongs to."""

    name: str
    role: Role
    prefix: str


@dataclass(frozen=True, slots=True)
class User:
    """A user with the keys, newest first."""

    row: UserRow
    keys: Sequence[ApiKeyRow]


class Users:
    """Who may do what."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def create(self, name: str, role: Role, now: float, *, lifetime_seconds: int | None = None) -> NewKey:
        """Add a user and make the first key.

        Raises :class:`InvalidError` for what cannot be a name, :class:`ConflictError`: a name is given once, for ever.
        """
        if not _NAME.fullmatch(name) or name in _RESERVED:
            raise InvalidError(
                f"expected a name of 1-48 letters, digits, '.', '_' or '-' that the fleet does not use itself, got "
                f"{name[:80]!r}"
            )
        with self._database.transaction(lock=_LOCK) as session:
            if session.get(UserRow, name) is not None:
                raise ConflictError(f"there is a user {name!r} already, or was: names stand in the audit log for good")
            row = UserRow(name=name, role=role, created_at=int(now))
            session.add(row)
            made = _make_key(session, row, now, lifetime_seconds)
            _tell(session, "user.create", name, None, _state(session, row), now)
        return made

    def whose(self, key: str, now: float) -> KeyHolder | None:
        """Return whose valid key this is. Looked up by its hash, so the time tells nothing about the key."""
        wanted = digest_of(key.encode("utf-8", "surrogatepass"))
        query = select(ApiKeyRow, UserRow).join(UserRow, col(UserRow.name) == col(ApiKeyRow.user))
        with self._database.reading() as session:
            found = session.exec(query.where(ApiKeyRow.sha256 == wanted)).first()
        if found is None or not _counts(found[0], now) or found[1].revoked_at is not None:
            return None
        return KeyHolder(name=found[1].name, role=Role(found[1].role), prefix=found[0].prefix)

    def page(self, limit: int, after: str = "") -> list[User]:
        """Return up to ``limit`` users with names above ``after``."""
        query = select(UserRow).where(col(UserRow.name) > after).order_by(col(UserRow.name)).limit(limit)
        with self._database.reading() as session:
            return [User(row, _keys(session, row.name)) for row in session.exec(query).all()]

    def one(self, name: str) -> User:
        """Return one user. Raises :class:`NotFoundError`."""
        with self._database.reading() as session:
            return User(_find(session, name), _keys(session, name))

    def change_role(
        self, name: str, role: Role, now: float, check: Callable[[User], None] = lambda _present: None
    ) -> None:
        """Give a user another role, if ``check`` does not raise on what the user is now.

        Raises :class:`ConflictError` when no admin would be left.
        """
        with self._database.transaction(lock=_LOCK) as session:
            row = _present(session, name)
            check(User(row, _keys(session, name)))
            before = _state(session, row)
            row.role = role
            session.flush()
            _check_an_admin_is_left(session, now)
            _tell(session, "user.role", name, before, _state(session, row), now)

    def rotate(
        self, name: str, now: float, *, overlap_seconds: int = 3600, lifetime_seconds: int | None = None
    ) -> NewKey:
        """Make a new key; the others of this user end after ``overlap_seconds``, unless they end sooner anyway."""
        with self._database.transaction(lock=_LOCK) as session:
            row = _present(session, name)
            before = _state(session, row)
            end = int(now) + overlap_seconds
            for key in _keys(session, name):
                if _counts(key, now):
                    key.expires_at = end if key.expires_at is None else min(key.expires_at, end)
            made = _make_key(session, row, now, lifetime_seconds)
            _tell(session, "user.rotate", name, before, _state(session, row), now)
        return made

    def revoke(self, name: str, now: float, *, prefix: str = "") -> None:
        """Take one key (by its beginning) or the user with all keys out; twice is once.

        Raises :class:`NotFoundError`, and :class:`ConflictError` when no admin would be left.
        """
        with self._database.transaction(lock=_LOCK) as session:
            row = _find(session, name)
            before = _state(session, row)
            keys = [key for key in _keys(session, name) if not prefix or key.prefix == prefix]
            if prefix and not keys:
                raise NotFoundError(f"the user {name!r} has no key {prefix[:40]!r}; see: edgeopt users show {name}")
            for key in keys:
                key.revoked_at = key.revoked_at or int(now)
            if not prefix:
                row.revoked_at = row.revoked_at or int(now)
            session.flush()
            _check_an_admin_is_left(session, now)
            _tell(session, "user.revoke", name, before, _state(session, row), now)


def _make_key(session: Session, row: UserRow, now: float, lifetime_seconds: int | None) -> NewKey:
    key = KEY_PREFIX + secrets.token_urlsafe(32)
    expires_at = None if lifetime_seconds is None else int(now) + lifetime_seconds
    prefix = key[:_SHOWN]
    session.add(
        ApiKeyRow(
            sha256=digest_of(key.encode()), user=row.name, prefix=prefix, created_at=int(now), expires_at=expires_at
        )
    )
    session.flush()
    return NewKey(user=row.name, role=Role(row.role), prefix=prefix, expires_at=expires_at, key=key)


def _counts(key: ApiKeyRow, now: float) -> bool:
    return key.revoked_at is None and (key.expires_at is None or now < key.expires_at)


def _keys(session: Session, name: str) -> Sequence[ApiKeyRow]:
    query = select(ApiKeyRow).where(ApiKeyRow.user == name)
    return session.exec(query.order_by(col(ApiKeyRow.created_at).desc(), col(ApiKeyRow.sha256))).all()


def _find(session: Session, name: str) -> UserRow:
    row = session.get(UserRow, name)
    if row is None:
        meant = did_you_mean(session, col(UserRow.name), name)
        raise NotFoundError(f"there is no user {name[:80]!r}{meant or '; see: edgeopt users'}")
    return row


def _present(session: Session, name: str) -> UserRow:
    row = _find(session, name)
    if row.revoked_at is not None:
        raise ConflictError(f"the user {name!r} was revoked; make another: edgeopt users create NAME")
    return row


def _check_an_admin_is_left(session: Session, now: float) -> None:
    """Raise :class:`ConflictError` unless some admin has a key that counts."""
    query = select(ApiKeyRow).join(UserRow, col(UserRow.name) == col(ApiKeyRow.user))
    admins = query.where(UserRow.role == Role.ADMIN, col(UserRow.revoked_at).is_(None))
    if not any(_counts(key, now) for key in session.exec(admins)):
        raise ConflictError(
            "no admin with a valid key would be left, so nobody could change this again; make another admin first: "
            "edgeopt users create NAME --role admin"
        )


def _state(session: Session, row: UserRow) -> dict[str, object]:
    """Return what the audit log keeps a digest of; hashes of keys are left out, the beginnings tell them apart."""
    keys = [[key.prefix, key.expires_at, key.revoked_at] for key in _keys(session, row.name)]
    return {"name": row.name, "role": row.role, "revoked_at": row.revoked_at, "keys": keys}


def _tell(
    session: Session, operation: str, name: str, before: dict[str, object] | None, after: dict[str, object], now: float
) -> None:
    change = Change(
        operation=operation, subject=f"user/{name}", before=before, after=after, detail={"role": after["role"]}
    )
    append(session, change, now)
