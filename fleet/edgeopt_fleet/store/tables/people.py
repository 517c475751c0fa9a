"""Tables: who may do what, and what they did."""

from __future__ import annotations

from typing import Any

from sqlalchemy import JSON, Column
from sqlmodel import Field, SQLModel

__all__ = ["ApiKeyRow", "AuditHeadRow", "AuditRow", "TokenRow", "UserRow"]


class UserRow(SQLModel, table=True):
    """A person, or a program that acts for one, with a role. Rows are never deleted: the audit log names them."""

    __tablename__ = "person"  # "user" is a word of SQL

    name: str = Field(primary_key=True)
    role: str
    created_at: int
    revoked_at: int | None = None


class ApiKeyRow(SQLModel, table=True):
    """A key of a user; only its SHA-256 is kept, and the beginning by which people recognise it."""

    __tablename__ = "api_key"

    sha256: str = Field(primary_key=True)
    user: str = Field(index=True, sa_column_kwargs={"name": "person"})
    prefix: str
    created_at: int
    expires_at: int | None = None
    revoked_at: int | None = None


class TokenRow(SQLModel, table=True):
    """A token that enrols devices; only its SHA-256 is kept, and its beginning is the token's id."""

    __tablename__ = "token"

    sha256: str = Field(primary_key=True)
    uses: int
    uses_left: int
    created_at: int
    created_by: str
    expires_at: int
    revoked_at: int | None = None
    cohort: str = ""  # whose tags the devices get, besides ``tags``
    tags: dict[str, str] = Field(sa_column=Column(JSON, nullable=False))


class AuditRow(SQLModel, table=True):
    """One entry of the audit log; rows are never changed and never deleted."""

    __tablename__ = "audit"

    number: int = Field(primary_key=True)
    at: int  # milliseconds
    actor: str = Field(index=True)
    via: str
    operation: str = Field(index=True)
    subject: str = Field(index=True)
    before: str
    after: str
    detail: dict[str, Any] = Field(sa_column=Column(JSON, nullable=False))
    previous: str
    sha256: str


class AuditHeadRow(SQLModel, table=True):
    """The end of the audit log: one row, whose lock lets transactions append one after the other."""

    __tablename__ = "audit_head"

    id: int = Field(primary_key=True)
    number: int
    sha256: str
