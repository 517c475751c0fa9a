"""Tables: what the server itself keeps: leases, metadata that devices trust, blocks, numbers of changes, answers."""

from __future__ import annotations

from sqlalchemy import Column, LargeBinary
from sqlmodel import Field, SQLModel

__all__ = ["AnswerRow", "BlockRow", "ChangeRow", "DraftRow", "LeaseRow", "MetadataRow"]


class BlockRow(SQLModel, table=True):
    """A block of bundles, on PostgreSQL; beside SQLite they are files."""

    __tablename__ = "block"

    sha256: str = Field(primary_key=True)
    data: bytes = Field(sa_column=Column(LargeBinary, nullable=False))
    stored_at: float  # on the database's clock


class LeaseRow(SQLModel, table=True):
    """Which process does the work of a role; ``epoch`` rises with every change of hands, and the row stays."""

    __tablename__ = "lease"

    role: str = Field(primary_key=True)
    owner: str = ""  # nobody
    epoch: int = 0
    expires_at: float = 0.0  # on the database's clock
    note: str = ""  # what the owner says of itself, such as whether it hears the broker


class MetadataRow(SQLModel, table=True):
    """TUF metadata in force; of roots every version is kept, of the other roles the newest."""

    __tablename__ = "metadata"

    role: str = Field(primary_key=True)
    version: int = Field(primary_key=True)
    data: bytes = Field(sa_column=Column(LargeBinary, nullable=False))


class DraftRow(SQLModel, table=True):
    """Root or targets that wait for signatures."""

    __tablename__ = "draft"

    role: str = Field(primary_key=True)
    data: bytes = Field(sa_column=Column(LargeBinary, nullable=False))


class ChangeRow(SQLModel, table=True):
    """The number of the newest change; one row, see :mod:`edgeopt_fleet.store.changes`."""

    __tablename__ = "change"

    id: int = Field(default=1, primary_key=True)
    number: int = 0


class AnswerRow(SQLModel, table=True):
    """What was answered to one Idempotency-Key; see :mod:`edgeopt_fleet.store.idempotency`."""

    __tablename__ = "answer"

    key: str = Field(primary_key=True)  # a hash of who asked and the key
    request_sha256: str
    created_at: float = Field(index=True)
    status: int | None = None  # none while it is being worked on
    sealed: bytes = Field(default=b"", sa_column=Column(LargeBinary, nullable=False))  # encrypted
