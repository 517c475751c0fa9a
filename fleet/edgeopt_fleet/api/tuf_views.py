"""What the routes of TUF metadata give, as pydantic models.

Example::

    StandingView.of(repository.accept("targets", data, now)).model_dump()
"""

from __future__ import annotations

import dataclasses
from typing import Self

from pydantic import BaseModel, Field

from edgeopt_fleet.tuf.rows import Standing
from edgeopt_fleet.tuf.views import Unsigned

__all__ = ["StandingView", "UnsignedView"]

_FILE = '{{"signatures": […], "signed": {{"_type": "{role}", "version": {version}, …}}}}'


class StandingView(BaseModel):
    """How far signed metadata have come."""

    role: str = Field(examples=["targets"], description="root or targets")
    version: int = Field(examples=[8])
    signatures: int = Field(examples=[1], description="of this role's keys, on this version")
    threshold: int = Field(examples=[2], description="how many there must be")
    in_force: bool = Field(examples=[False], description="false: a draft that waits for signatures")

    @classmethod
    def of(cls, standing: Standing) -> Self:
        """Show ``standing``."""
        return cls(**dataclasses.asdict(standing))


class UnsignedView(BaseModel):
    """Metadata in force, and drafts that wait for signatures, each as the exact text of its file."""

    root: str = Field(examples=[_FILE.format(role="root", version=1)])
    targets: str = Field(examples=[_FILE.format(role="targets", version=7)])
    root_draft: str | None = Field(examples=[None])
    targets_draft: str | None = Field(examples=[_FILE.format(role="targets", version=8)])

    @classmethod
    def of(cls, unsigned: Unsigned) -> Self:
        """Show ``unsigned``."""
        return cls(**dataclasses.asdict(unsigned))
