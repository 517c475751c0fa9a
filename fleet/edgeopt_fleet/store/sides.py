"""Totals of many devices, read at once and made into what the gate compares: the served side of two columns.

It decides nothing. What a device served between two moments is the difference of two totals. Example::

    reader = Reader(session)
    after = reader.side(bundle, later=[served.get((name, bundle)) for name in names], earlier=[None] * len(names))
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from sqlalchemy import select
from sqlmodel import Session, col

from edgeopt_contract.codec import decode
from edgeopt_contract.profile import ReferenceProfile
from edgeopt_fleet.gate import COMPARED, METRICS, Devices, Metric
from edgeopt_fleet.gate.measuring import Served, Side, side_of
from edgeopt_fleet.store.tables import BaselineRow, BundleRow, MemberRow, ServedRow
from edgeopt_fleet.totals import Layout

__all__ = ["Group", "Reader", "Totals", "difference", "empty_group", "totals_columns", "totals_of"]

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]
Totals = tuple[int, int, bytes]  # rows, errors, counts
_NOTHING: Totals = (0, 0, b"")


@dataclass(frozen=True, slots=True, eq=False)
class Group:
    """Some devices with their classes by name, what they served, and what became worse.

    ``before`` and ``after`` are attempted inferences on both sides, ``answered`` those that were answered after.
    """

    names: list[str]
    hardware: list[str]
    before: Integers
    after: Integers
    answered: Integers
    changes: Floats
    noise: Floats

    def devices(self, classes: Sequence[str], metrics: Sequence[Metric] = METRICS) -> Devices:
        """Return the group as evidence on ``metrics``, in which ``classes`` are all there are."""
        places = {name: place for place, name in enumerate(classes)}
        return Devices(
            names=tuple(self.names),
            hardware=np.array([places[name] for name in self.hardware], dtype=np.int32),
            before=self.before,
            after=self.after,
            changes=self.changes[: len(metrics)].astype(np.float32),
            noise=self.noise[: len(metrics)].astype(np.float32),
        )


class Reader:
    """Reads the profiles of bundles, each once."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._known: dict[str, tuple[Layout, ReferenceProfile | None]] = {}

    def side(self, bundle: str, later: Sequence[Totals | None], earlier: Sequence[Totals | None]) -> Side:
        """Return what devices served on ``bundle`` between two totals of each; no total is none served."""
        layout, profile = self.layout(bundle)
        rows, errors = difference(later, earlier)
        counts = _stack(layout, later) - _stack(layout, earlier)
        return side_of(Served(np.maximum(counts, 0), rows, errors), layout, profile)

    def layout(self, bundle: str) -> tuple[Layout, ReferenceProfile | None]:
        """Return how the counts of ``bundle`` are laid out, and its reference; latency only without one."""
        if bundle not in self._known:
            row = self._session.get(BundleRow, bundle)
            profile = None if row is None or row.profile is None else decode(ReferenceProfile, row.profile)
            self._known[bundle] = (Layout() if profile is None else Layout.of(profile), profile)
        return self._known[bundle]


def _stack(layout: Layout, totals: Sequence[Totals | None]) -> Integers:
    return layout.stack([b"" if one is None else one[2] for one in totals])


def difference(later: Sequence[Totals | None], earlier: Sequence[Totals | None]) -> tuple[Integers, Integers]:
    """Return rows and errors (n,) between two totals of each device."""
    pairs = [((b or _NOTHING)[:2], (a or _NOTHING)[:2]) for a, b in zip(earlier, later, strict=True)]
    table = np.array([[b[0] - a[0], b[1] - a[1]] for b, a in pairs], dtype=np.int64).reshape(len(pairs), 2)
    table = np.maximum(table, 0)
    return table[:, 0], table[:, 1]


def empty_group(devices: Sequence[tuple[str, str]]) -> Group:
    """Return a group of ``devices``, each with its hardware class, of which nothing is known yet."""
    n = len(devices)
    nothing = np.full((len(COMPARED), n), np.nan)
    before, after, answered = (np.zeros(n, dtype=np.int64) for _ in range(3))
    names, hardware = [name for name, _ in devices], [hardware for _, hardware in devices]
    return Group(names, hardware, before, after, answered, nothing, np.zeros_like(nothing))


def totals_of(
    session: Session, table: type[ServedRow | BaselineRow], joined: Any, where: Sequence[Any]
) -> dict[Any, Totals]:
    """Return totals of the members that ``where`` selects, by device and bundle."""
    columns = (table.device, table.bundle, *totals_columns(table))
    query = select(*map(col, columns)).join(MemberRow, joined).where(*where)
    return {(row[0], row[1]): (row[2], row[3], row[4]) for row in session.execute(query)}


def totals_columns(table: type[ServedRow | BaselineRow]) -> tuple[Any, Any, Any]:
    """Return the columns that hold totals."""
    return table.rows, table.errors, table.counts
