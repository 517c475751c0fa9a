"""What devices served since a moment, told from their totals: no window is read, however many came.

``served`` holds one row a device and bundle, which ingest adds to. The difference of a group's totals between two looks
is what it served in between. Who joins a group counts from the look that finds it there, who leaves counts up to the
look that misses it. Within somebody's transaction that only reads. Example::

    growths = measure(session, digest, layout, [Group(then=members, now=members, base=stored)])
    growths[0].grown                         # (size,): counts since ``stored``
    growths[0].base(looked=True)             # bytes to store: the next difference begins here
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from sqlalchemy import bindparam
from sqlmodel import Session, col, select

from edgeopt_fleet.store.tables import ServedRow
from edgeopt_fleet.totals import Layout

__all__ = ["Group", "Growth", "measure"]

Counts = npt.NDArray[np.int64]
_DEVICES_AT_ONCE = 500  # a few hundred kilobytes; other threads get their turn in between
_PAGE = (
    select(col(ServedRow.device), col(ServedRow.counts))
    .where(col(ServedRow.bundle) == bindparam("bundle"), col(ServedRow.device) > bindparam("after"))
    .order_by(col(ServedRow.device))
    .limit(_DEVICES_AT_ONCE)
)


@dataclass(frozen=True, slots=True)
class Group:
    """Who belonged at the last look, who belongs now, and the base of the difference as the last look left it."""

    then: Collection[str]
    now: Collection[str]
    base: bytes


@dataclass(frozen=True, slots=True)
class Growth:
    """What a group has served: since its base, and in all."""

    grown: Counts
    total: Counts  # of who belongs now

    def base(self, *, looked: bool) -> bytes:
        """Return the next base: after a look from here on, else so that what has grown is part of the next one."""
        base = self.total if looked else self.total - self.grown
        return base.astype("<i8").tobytes()


def measure(session: Session, bundle: str, layout: Layout, groups: Sequence[Group]) -> list[Growth]:
    """Return what each group has served on ``bundle``; all are added up in one pass over the bundle's devices."""
    before = np.zeros((len(groups), layout.size), dtype=np.int64)
    total = np.zeros_like(before)
    for names, stack in _pages(session, bundle, layout):
        for place, group in enumerate(groups):
            now = stack[[name in group.now for name in names]].sum(axis=0)
            total[place] += now
            same = group.then is group.now
            before[place] += now if same else stack[[name in group.then for name in names]].sum(axis=0)
    return [
        Growth(grown=np.maximum(before[place] - layout.unpack(group.base), 0), total=total[place])
        for place, group in enumerate(groups)
    ]


def _pages(session: Session, bundle: str, layout: Layout) -> Iterator[tuple[list[str], Counts]]:
    after = ""
    while rows := session.connection().execute(_PAGE, {"bundle": bundle, "after": after}).fetchall():
        yield [row[0] for row in rows], layout.stack([bytes(row[1]) for row in rows])
        after = rows[-1][0]
