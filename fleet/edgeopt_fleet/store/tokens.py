"""Tokens with which devices enrol: made, listed, revoked, spent.

Of a token only the SHA-256 is kept; its first 16 digits are the id by which people name it. A token that is used once
more after its last use, or after it was revoked, is either a mistake or a thief: :class:`SpentTokenError` tells the
caller to raise an alarm. Times are seconds since 1970. Example::

    tokens = Tokens(database)
    secret = tokens.create(TokenGrant(uses=5, expires_at=1764086400, tags={"site": "oslo"}), now)
    tokens.revoke(token_id(secret), now)
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from sqlmodel import Session, col, select

from edgeopt_contract.values import digest_of
from edgeopt_fleet.acting import current_actor
from edgeopt_fleet.problems import ForbiddenError, NotFoundError
from edgeopt_fleet.store.audit import Change, append
from edgeopt_fleet.store.cohorts import find_cohort
from edgeopt_fleet.store.database import Database
from edgeopt_fleet.store.tables import TokenRow

__all__ = ["SpentTokenError", "TokenGrant", "Tokens", "spend", "token_hash", "token_id"]

_ID_LENGTH = 16


class SpentTokenError(ForbiddenError):
    """A token was used again after its last use, or after it was revoked."""

    def __init__(self, message: str, token: str) -> None:
        super().__init__(message)
        self.token = token  # its id


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenGrant:
    """What a token allows; ``expires_at`` in seconds since 1970.

    Devices get ``tags``, and those of ``cohort`` when it is named, so that they are in that cohort.
    """

    uses: int
    expires_at: int
    tags: Mapping[str, str] = field(default_factory=dict)
    cohort: str = ""


class Tokens:
    """Which tokens there are."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def create(self, grant: TokenGrant, now: float) -> str:
        """Make a token and return its secret, which cannot be read again. Raises :class:`NotFoundError`."""
        secret = secrets.token_urlsafe(32)
        with self._database.transaction(lock="tokens") as session:
            tags = dict(find_cohort(session, grant.cohort).tags) if grant.cohort else {}
            row = TokenRow(
                sha256=token_hash(secret),
                uses=grant.uses,
                uses_left=grant.uses,
                created_at=int(now),
                created_by=current_actor().name,
                expires_at=grant.expires_at,
                cohort=grant.cohort,
                tags={**tags, **grant.tags},
            )
            session.add(row)
            detail = {"uses": row.uses, "expires_at": row.expires_at, "cohort": row.cohort, "tags": row.tags}
            _tell(session, "token.create", row, None, now, detail)
        return secret

    def page(self, limit: int, after: tuple[int, str] | None = None) -> Sequence[TokenRow]:
        """Return up to ``limit`` tokens, newest first, below ``after`` (when it was made, its SHA-256)."""
        made, sha256 = col(TokenRow.created_at), col(TokenRow.sha256)
        query = select(TokenRow).order_by(made.desc(), sha256.desc()).limit(limit)
        if after is not None:
            query = query.where((made < after[0]) | ((made == after[0]) & (sha256 < after[1])))
        with self._database.reading() as session:
            return session.exec(query).all()

    def revoke(self, token: str, now: float) -> TokenRow:
        """Make a token worthless; twice is once. Raises :class:`NotFoundError`."""
        with self._database.transaction(lock="tokens") as session:
            query = select(TokenRow).where(col(TokenRow.sha256).startswith(token, autoescape=True))
            row = session.exec(query).first() if len(token) == _ID_LENGTH else None
            if row is None:
                raise NotFoundError(f"there is no token {token[:40]!r}; see: edgeopt token list")
            before = _state(row)
            row.revoked_at = row.revoked_at or int(now)
            _tell(session, "token.revoke", row, before, now)
        return row


def token_hash(secret: str) -> str:
    """Return what is kept of a token's secret."""
    return digest_of(secret.encode("utf-8", "surrogatepass"))


def token_id(secret: str) -> str:
    """Return the name under which people see a token; it tells nothing about the secret."""
    return token_hash(secret)[:_ID_LENGTH]


def spend(session: Session, sha256: str, now: int) -> TokenRow:
    """Take one use of a token and return its row, within the enrolment's transaction.

    Raises :class:`ForbiddenError` when the token is unknown or expired, :class:`SpentTokenError` when it must not be
    used any more.
    """
    row = session.exec(select(TokenRow).where(TokenRow.sha256 == sha256).with_for_update()).first()
    if row is None:
        raise ForbiddenError("this fleet does not know the token; make one with: edgeopt token create")
    name = sha256[:_ID_LENGTH]
    if row.revoked_at is not None:
        raise SpentTokenError(f"the token {name} was revoked; make another: edgeopt token create", name)
    if row.uses_left < 1:
        raise SpentTokenError("the token was used up by another device; make another: edgeopt token create", name)
    if row.expires_at <= now:
        raise ForbiddenError(f"the token expired {now - row.expires_at} s ago; make another: edgeopt token create")
    row.uses_left -= 1
    return row


def _state(row: TokenRow) -> dict[str, object]:
    return row.model_dump()


def _tell(
    session: Session,
    operation: str,
    row: TokenRow,
    before: dict[str, object] | None,
    now: float,
    detail: Mapping[str, object] | None = None,
) -> None:
    subject = f"token/{row.sha256[:_ID_LENGTH]}"
    append(
        session,
        Change(operation=operation, subject=subject, before=before, after=_state(row), detail=detail or {}),
        now,
    )
