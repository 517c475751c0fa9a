"""What the search asks for, and what it gets: the words between the ladder, the laboratory and the journal.

Records only. Example::

    Request(kind=Kind.TRY, rung="first", recipe=Recipe(precision=Precision.INT8))
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from edgeopt.recipe import Recipe
from edgeopt.results import LayerSensitivity, TrialResult

__all__ = ["NO_TIME", "Answer", "Kind", "Request"]


class Kind(StrEnum):
    """What is asked of a recipe."""

    TRY = "try"  # build it, score it on the selection split, time it
    RANK = "rank"  # which layers cost the most accuracy in int8
    ISLANDS = "islands"  # which groups of nodes are slower in int8 than in float
    SATURATION = "saturation"  # which weights overflow 16-bit sums on this target


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """``rung`` names the step of the ladder for people."""

    kind: Kind
    rung: str
    recipe: Recipe


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What came of a request; what it does not ask for is empty.

    TRY gives ``trial``; RANK ``ranking``, and in ``node_sets`` nested sets of nodes to leave in float; ISLANDS
    ``node_sets``, one for each island; SATURATION ``weights``. ``problem`` says in words why nothing came of it; for
    a variant that could not be made its trial does.
    """

    trial: TrialResult | None = None
    ranking: tuple[LayerSensitivity, ...] = ()
    node_sets: tuple[tuple[str, ...], ...] = ()
    weights: tuple[str, ...] = ()
    problem: str | None = None


NO_TIME = Answer(problem="there was no time left for it")
