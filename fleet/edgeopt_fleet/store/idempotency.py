"""Answers that were given once and are given again, for a day, to whoever repeats a request.

A request is begun before it is worked on, so that two of the same do not run side by side, and its answer is kept when
it is done: in the transaction that does it, where :meth:`AnswerBook.together` holds both. Answers may hold secrets that
are shown once, so they are sealed (AES-GCM) under a key that is made from what the client holds and this database does
not: its bearer and the Idempotency-Key. Example::

    book = AnswerBook(database)
    kept = book.begin(ticket, now)               # None: work on it; an Answer: give that one
    book.keep(ticket, Answer(status=201, headers=…, body=b"…"))
"""

from __future__ import annotations

import secrets
from contextlib import AbstractContextManager
from dataclasses import dataclass, field

import msgspec
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from sqlmodel import col, delete

from edgeopt_contract.values import digest_of
from edgeopt_fleet.problems import InProgressError, KeyReusedError
from edgeopt_fleet.store.database import Database
from edgeopt_fleet.store.tables import AnswerRow

__all__ = ["KEPT_SECONDS", "Answer", "AnswerBook", "Ticket"]

KEPT_SECONDS = 86400.0
_ABANDONED_SECONDS = 60.0  # who has not answered by then was killed meanwhile
_NONCE_BYTES = 12


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What was answered: an HTTP status, the headers that belong to the body, and its bytes."""

    status: int
    headers: dict[str, str]
    body: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Ticket:
    """One request: who asks (``bearer``), with which ``key``, and ``request_sha256`` of all that it asks for."""

    bearer: str = field(repr=False)
    key: str
    request_sha256: str

    @property
    def row_key(self) -> str:
        """The name of its row: keys of different people never meet."""
        return digest_of(f"{digest_of(self.bearer.encode())}\n{self.key}".encode())

    @property
    def lock(self) -> str:
        """What keeps two of the same request apart."""
        return f"answer:{self.row_key}"

    def cipher(self) -> AESGCM:
        """Return what seals its answer."""
        secret = HKDF(algorithm=SHA256(), length=32, salt=None, info=b"edgeopt answer")
        return AESGCM(secret.derive(f"{self.bearer}\n{self.key}".encode()))


class AnswerBook:
    """Keeps answers for :data:`KEPT_SECONDS`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def begin(self, ticket: Ticket, now: float) -> Answer | None:
        """Return the kept answer; None when the caller is to work on the request now.

        Raises :class:`KeyReusedError` when the key came with another request, :class:`InProgressError` while the
        same request is being worked on.
        """
        with self._database.transaction(lock=ticket.lock) as session:
            session.execute(delete(AnswerRow).where(col(AnswerRow.created_at) <= now - KEPT_SECONDS))
            row = session.get(AnswerRow, ticket.row_key)
            if row is None:
                row = AnswerRow(key=ticket.row_key, request_sha256=ticket.request_sha256, created_at=now)
                session.add(row)
                return None
            if row.request_sha256 != ticket.request_sha256:
                raise KeyReusedError(
                    "Idempotency-Key: this key came with another request before; use a new key for a new request"
                )
            if row.status is not None:
                return _unsealed(ticket, row)
            if now - row.created_at < _ABANDONED_SECONDS:
                raise InProgressError("a request with this Idempotency-Key is being worked on; ask again in a moment")
            row.created_at = now
            return None

    def together(self) -> AbstractContextManager[None]:
        """Make one transaction of what is done inside, :meth:`keep` included."""
        return self._database.together()

    def keep(self, ticket: Ticket, answer: Answer) -> None:
        """Keep the answer to a request that was begun."""
        nonce = secrets.token_bytes(_NONCE_BYTES)
        sealed = nonce + ticket.cipher().encrypt(nonce, msgspec.msgpack.encode(answer), ticket.row_key.encode())
        with self._database.transaction(lock=ticket.lock) as session:
            row = session.get(AnswerRow, ticket.row_key)
            if row is not None:
                row.status, row.sealed = answer.status, sealed

    def forget(self, ticket: Ticket) -> None:
        """Forget a request that changed nothing, so that it can be tried again."""
        with self._database.transaction(lock=ticket.lock) as session:
            session.execute(
                delete(AnswerRow).where(col(AnswerRow.key) == ticket.row_key, col(AnswerRow.status).is_(None))
            )


def _unsealed(ticket: Ticket, row: AnswerRow) -> Answer:
    nonce, sealed = row.sealed[:_NONCE_BYTES], row.sealed[_NONCE_BYTES:]
    return msgspec.msgpack.decode(ticket.cipher().decrypt(nonce, sealed, row.key.encode()), type=Answer)
