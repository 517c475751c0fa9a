"""What the API takes and gives, as pydantic models with examples; bigger things have modules of their own.

Shapes only: how they are filled from the stores stands beside each as ``of``. Example::

    BundleDetail.of(bundles.find("9f86d0")).model_dump()
"""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field

from edgeopt_fleet.filters import KEY_PATTERN, MOST_TAGS, VALUE_PATTERN
from edgeopt_fleet.store.bundles import PostedBundle
from edgeopt_fleet.store.tables import BundleRow

__all__ = [
    "CURSOR_EXAMPLE",
    "DIGEST_EXAMPLE",
    "BundleDetail",
    "BundleList",
    "BundleView",
    "Digest",
    "FromText",
    "Health",
    "Name",
    "Next",
    "Problem",
    "StrictRequest",
    "Tags",
]

CURSOR_EXAMPLE = "WyJsaXN0X2RldmljZXMiLCJjYW0tNyJd"  # of the devices after cam-7
DIGEST_EXAMPLE = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"
Name = Annotated[
    str,
    Field(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,47}$",
        description="1-48 letters, digits, '.', '_' or '-', beginning with a letter or digit",
    ),
]
Next = Annotated[
    str | None, Field(examples=[CURSOR_EXAMPLE], description="the cursor of the next page; null: this is the last one")
]
Digest = Annotated[str, Field(pattern="^[0-9a-f]{64}$", examples=[DIGEST_EXAMPLE])]
Tags = Annotated[
    dict[Annotated[str, Field(pattern=KEY_PATTERN)], Annotated[str, Field(pattern=VALUE_PATTERN)]],
    Field(max_length=MOST_TAGS),
]


FromText = Field(strict=False)  # beside the type of a field, in Annotated


class StrictRequest(BaseModel):
    """A body: unknown fields are refused, so that a misspelt option is not ignored; so is ``"yes"`` for true.

    An enumeration that comes as its text is marked ``FromText``.
    """

    model_config = ConfigDict(extra="forbid", strict=True)


class Problem(BaseModel):
    """An error (RFC 9457); ``detail`` says what was expected, what came and what to do."""

    type: str = Field(examples=["urn:edgeopt:problem:conflict"], description="which kind; docs/api.md lists them")
    title: str = Field(examples=["Conflict"])
    status: int = Field(examples=[409])
    detail: str = Field(examples=["rollout v2 is succeeded: it cannot be 'paused' now"])


class Health(BaseModel):
    """Whether the server answers, and whether it hears its devices."""

    status: str = Field(examples=["ok"])
    broker: str = Field(examples=["connected"], description="connected or disconnected")


class BundleView(BaseModel):
    """A bundle that was posted."""

    digest: str = Field(examples=[DIGEST_EXAMPLE])
    name: str = Field(examples=["digits"])
    version: str = Field(examples=["2"])
    missing_blocks: list[str] = Field(
        examples=[[DIGEST_EXAMPLE]], description="upload these, then post the manifest again"
    )

    @classmethod
    def of(cls, posted: PostedBundle) -> Self:
        """Show a posted bundle."""
        return cls(digest=posted.digest, name=posted.name, version=posted.version, missing_blocks=list(posted.missing))


class BundleDetail(BaseModel):
    """A bundle that is kept; ``complete`` when it is signed and can be rolled out."""

    digest: str = Field(examples=[DIGEST_EXAMPLE])
    name: str = Field(examples=["digits"])
    version: str = Field(examples=["2"])
    created_at: int = Field(examples=[1764000000])
    complete: bool = Field(examples=[True])

    @classmethod
    def of(cls, row: BundleRow) -> Self:
        """Show one bundle's row."""
        return cls(
            digest=row.digest,
            name=row.name,
            version=row.version,
            created_at=int(row.created_at),
            complete=row.complete and row.counter is not None,
        )


class BundleList(BaseModel):
    """A page of bundles, newest first."""

    items: list[BundleDetail]
    next: Next = None
