"""What the routes of TUF metadata give, as pydantic models.

Example::

    StandingView.of(repository.accept("targets", data, now)).model_dump()
"""

from __future__ import annotations

import dataclasses
from typing import Self

from pydantic import BaseModel

from edgeopt_fleet.tuf.rows import Standing
from edgeopt_fleet.tuf.views import Unsigned

__all__ = ["StandingView", "UnsignedView"]


class StandingView(BaseModel):
    """How far signed metadata have come."""

    role: str
    version: int
    signatures: int
    threshold: int
    in_force: bool

    @classmethod
    def of(cls, standing: Standing) -> Self:
        """Show ``standing``."""
        return cls(**dataclasses.asdict(standing))


class UnsignedView(BaseModel):
    """Metadata in force, and drafts that wait for signatures, each as the exact text of its file."""

    root: str
    targets: str
    root_draft: str | None
    targets_draft: str | None

    @classmethod
    def of(cls, unsigned: Unsigned) -> Self:
        """Show ``unsigned``."""
        return cls(**dataclasses.asdict(unsigned))
