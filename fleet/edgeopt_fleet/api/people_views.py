"""What the API takes and gives about users, tokens and the audit log.

Shapes only; how they are filled from the stores stands beside each as ``of``. Example::

    UserView.of(users.one("alice")).model_dump()
"""

from __future__ import annotations

from typing import Annotated, Any, Self

from pydantic import BaseModel, Field

from edgeopt_contract.audit import Entry, digest_of_state
from edgeopt_contract.values import digest_of
from edgeopt_fleet.api.views import DIGEST_EXAMPLE, FromText, Name, Next, StrictRequest, Tags
from edgeopt_fleet.rights import Role
from edgeopt_fleet.store.tables import ApiKeyRow, AuditRow, TokenRow
from edgeopt_fleet.store.users import NewKey, User

__all__ = [
    "AuditList",
    "AuditView",
    "KeyView",
    "MeView",
    "NewKeyView",
    "RevokeRequest",
    "RoleRequest",
    "RotateRequest",
    "TokenItem",
    "TokenList",
    "TokenRequest",
    "TokenView",
    "UserList",
    "UserRequest",
    "UserView",
]

_LONGEST_LIFE = 3660 * 86400
_Life = Annotated[
    int | None,
    Field(ge=60, le=_LONGEST_LIFE, examples=[7776000], description="how long the key lasts; null: until it is revoked"),
]


_WAVE = {"state": "paused", "wave": 0}
_ENTRY = Entry(  # as it stands in a log: its digest is that of its fields
    number=42,
    at=1764000000123,
    actor="alice",
    via="api",
    operation="rollout.pause",
    subject="rollout/digits-2",
    before=digest_of_state({"state": "running", "wave": 0}),
    after=digest_of_state(_WAVE),
    detail={**_WAVE, "bundle": DIGEST_EXAMPLE},
    previous=digest_of(b"the entry before"),
)


class TokenRequest(StrictRequest):
    """What a token is to allow."""

    uses: int = Field(default=1, ge=1, le=100_000, description="how many devices may enrol with it")
    expires_in_seconds: int = Field(default=86400, ge=1, le=366 * 86400)
    tags: Tags = Field(default_factory=dict, examples=[{"site": "oslo"}], description="which its devices get")
    cohort: str = Field(
        default="", max_length=48, examples=["oslo"], description="a cohort whose tags its devices get, too"
    )


class TokenView(BaseModel):
    """A token, shown this once."""

    id: str = Field(examples=["3fa94c0d1e2b5a68"], description="under which it is listed and revoked")
    token: str = Field(examples=["eo1.kX3….q1Z…"])
    expires_at: int = Field(examples=[1764086400])


class TokenItem(BaseModel):
    """A token without its secret."""

    id: str = Field(examples=["3fa94c0d1e2b5a68"])
    uses: int = Field(examples=[5])
    uses_left: int = Field(examples=[3])
    created_at: int = Field(examples=[1764000000])
    created_by: str = Field(examples=["alice"])
    expires_at: int = Field(examples=[1764086400])
    revoked_at: int | None = Field(default=None, examples=[1764003600])
    cohort: str = Field(default="", examples=["oslo"])
    tags: dict[str, str] = Field(examples=[{"site": "oslo"}])

    @classmethod
    def of(cls, row: TokenRow) -> Self:
        """Show one token's row."""
        return cls.model_validate({**row.model_dump(), "id": row.sha256[:16]})


class TokenList(BaseModel):
    """Tokens, newest first."""

    items: list[TokenItem]
    next: Next = None


class UserRequest(StrictRequest):
    """A user who is to be added."""

    name: Name = Field(examples=["alice"])
    role: Annotated[Role, FromText] = Field(examples=["operator"])
    expires_in_seconds: _Life = None


class RoleRequest(StrictRequest):
    """The role that a user is to have."""

    role: Annotated[Role, FromText] = Field(examples=["approver"])


class RotateRequest(StrictRequest):
    """How a key is replaced."""

    overlap_seconds: int = Field(
        default=3600, ge=0, le=30 * 86400, description="how long the keys before it go on, at most"
    )
    expires_in_seconds: _Life = None


class RevokeRequest(StrictRequest):
    """What is taken away from a user."""

    prefix: str = Field(
        default="", max_length=40, examples=["eok_Q3xk7ZpL"], description="one key by its beginning; empty: the user"
    )


class KeyView(BaseModel):
    """A key of a user; the key itself was shown once."""

    prefix: str = Field(examples=["eok_Q3xk7ZpL"])
    created_at: int = Field(examples=[1764000000])
    expires_at: int | None = Field(examples=[1771776000])
    revoked_at: int | None = Field(default=None, examples=[1764003600])

    @classmethod
    def of(cls, row: ApiKeyRow) -> Self:
        """Show one key's row."""
        return cls.model_validate(row, from_attributes=True)


class UserView(BaseModel):
    """A user."""

    name: str = Field(examples=["alice"])
    role: Role = Field(examples=["operator"])
    created_at: int = Field(examples=[1764000000])
    revoked_at: int | None = Field(default=None, examples=[1764003600])
    keys: list[KeyView] = Field(description="newest first")

    @classmethod
    def of(cls, user: User) -> Self:
        """Show a user."""
        row = user.row
        return cls(
            name=row.name,
            role=Role(row.role),
            created_at=row.created_at,
            revoked_at=row.revoked_at,
            keys=[KeyView.of(key) for key in user.keys],
        )


class UserList(BaseModel):
    """Users by name."""

    items: list[UserView]
    next: Next = None


class NewKeyView(BaseModel):
    """A key, shown this once."""

    name: str = Field(examples=["alice"])
    role: Role = Field(examples=["operator"])
    key: str = Field(examples=["eok_Q3xk7ZpL…"])
    prefix: str = Field(examples=["eok_Q3xk7ZpL"])
    expires_at: int | None = Field(examples=[1771776000])

    @classmethod
    def of(cls, made: NewKey) -> Self:
        """Show a new key."""
        return cls(name=made.user, role=made.role, key=made.key, prefix=made.prefix, expires_at=made.expires_at)


class MeView(BaseModel):
    """Who asks."""

    name: str = Field(examples=["alice"])
    role: Role = Field(examples=["operator"])
    prefix: str = Field(examples=["eok_Q3xk7ZpL"], description="of the key that was used")


class AuditView(BaseModel):
    """One entry of the audit log; each holds the SHA-256 of the one before it."""

    number: int = Field(examples=[_ENTRY.number])
    at: int = Field(examples=[_ENTRY.at], description="milliseconds since 1970 on the server's clock")
    actor: str = Field(examples=[_ENTRY.actor], description="a user, `device/ID`, or `edgeopt-fleet` itself")
    via: str = Field(examples=[_ENTRY.via], description="api, command or worker")
    operation: str = Field(examples=[_ENTRY.operation])
    subject: str = Field(examples=[_ENTRY.subject])
    before: str = Field(
        examples=[_ENTRY.before], description="SHA-256 of the state before; empty: there was no such thing"
    )
    after: str = Field(
        examples=[_ENTRY.after], description="SHA-256 of the state after; empty: it is gone, or did not change"
    )
    detail: dict[str, Any] = Field(examples=[_ENTRY.detail])
    previous: str = Field(examples=[_ENTRY.previous], description="SHA-256 of the entry before; of the first 64 zeros")
    sha256: str = Field(examples=[_ENTRY.sha256], description="of this entry")

    @classmethod
    def of(cls, row: AuditRow) -> Self:
        """Show one entry's row."""
        return cls.model_validate(row, from_attributes=True)


class AuditList(BaseModel):
    """Entries of the audit log, newest first."""

    items: list[AuditView]
    next: Next = None
