"""What the gate said of a rollout, and what it says when it is asked again.

It reads what :mod:`edgeopt_fleet.store.evidence` stored, and judges nothing itself. Example::

    looks.explain("v2", 50)                                   # the newest fifty, oldest first
    looks.replay("v2", {"max_latency_increase": "0.02"})      # what would have been
    looks.comparisons("ab")                                   # of a rollout with two arms
"""

from __future__ import annotations

from collections.abc import Mapping

from sqlalchemy import select
from sqlmodel import col

from edgeopt_fleet.gate.replaying import Compared, Replayed, StoredLook, replay, replay_arms, what_if
from edgeopt_fleet.problems import ConflictError, InvalidError, NotFoundError
from edgeopt_fleet.rollout import ACTIVE, Rollout
from edgeopt_fleet.store.arms import BOTH, rows_of_arms
from edgeopt_fleet.store.database import Database
from edgeopt_fleet.store.rollout_rows import load_rollout
from edgeopt_fleet.store.tables import EvidenceRow, RolloutRow

__all__ = ["Looks"]

_MOST_COMPARISONS = 20


class Looks:
    """Reads the looks of the gate."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def explain(self, rollout: str, most: int) -> list[Replayed]:
        """Return the newest ``most`` looks, oldest first, each judged again. Raises :class:`NotFoundError`."""
        return [replay(look) for look in self._read(rollout, most)]

    def replay(self, rollout: str, changes: Mapping[str, str], most: int) -> list[Replayed]:
        """Return the same, under a policy with ``changes`` if there are any.

        Raises :class:`NotFoundError`, and :class:`InvalidError` for a change that the policy cannot have.
        """
        stored = self._read(rollout, most)
        try:
            return what_if(stored, changes) if changes else [replay(look) for look in stored]
        except ValueError as error:
            raise InvalidError(str(error)) from error

    def comparisons(self, rollout: str) -> list[Compared]:
        """Return how its arms were compared with each other, oldest first, each made again."""
        return [replay_arms(look) for look in self._read(rollout, _MOST_COMPARISONS, both=True)]

    def progress(self, rollout: str) -> tuple[Rollout, dict[str, int]]:
        """Return a rollout with two arms, and the rows that each arm has served so far.

        Raises :class:`NotFoundError`, and :class:`ConflictError` when it has no arms.
        """
        with self._database.reading() as session:
            record, _ = load_rollout(session, rollout)
            if record.trial is None:
                raise ConflictError(f"rollout {rollout} has no two arms: there is nothing to compare")
            return record, rows_of_arms(session, record) if record.state in ACTIVE else {}

    def _read(self, rollout: str, most: int, *, both: bool = False) -> list[StoredLook]:
        row = EvidenceRow
        columns = (row.at, row.wave, row.arm, row.code, row.policy, row.evidence, row.verdict)
        which = col(row.arm) == BOTH if both else col(row.arm) != BOTH
        query = select(*map(col, columns)).where(col(row.rollout) == rollout, which)
        query = query.order_by(col(row.id).desc()).limit(most)
        with self._database.reading() as session:
            if session.get(RolloutRow, rollout) is None:
                raise NotFoundError(f"there is no rollout {rollout!r}")
            return [StoredLook(*found) for found in reversed(session.execute(query).all())]
