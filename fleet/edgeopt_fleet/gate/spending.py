"""The error that one look may make, so that all looks of a rollout together make no more than was allowed.

Pure. Looks come when devices have served, how often nobody knows beforehand, and each sees the same growing totals. So
look k of a wave may spend 6 / (pi^2 k^2) of the wave's share: these shares add up to one over all k, and by Boole's
inequality the whole is valid however often one looks, whatever the looks have in common. The wave's share is divided
evenly over waves and metrics, half of it for the wave as a whole and half for its hardware classes. Why not a mixture
martingale: docs/adr/0027-the-gate.md. Example::

    alpha = abort_error(policy.false_abort, Shares(waves=4, look=1, metrics=6, classes=3))
    critical(alpha.overall, freedom=60.0)                    # 5.0 standard errors
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.special import stdtrit

__all__ = ["Errors", "Shares", "abort_error", "critical", "look_share"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Shares:
    """Among what the error of a rollout is shared; ``look`` counts from 1, ``classes`` of hardware from 0."""

    waves: int
    look: int
    metrics: int
    classes: int


@dataclass(frozen=True, slots=True)
class Errors:
    """The error that one comparison may make: of the whole wave, and of one hardware class."""

    overall: float
    each_class: float


def look_share(look: int) -> float:
    """Return the share of the ``look``-th look, from 1 on; the shares of all looks add up to one (Basel problem)."""
    return 6.0 / (math.pi * look) ** 2


def abort_error(total: float, shares: Shares) -> Errors:
    """Divide ``total``, the error of a whole rollout. With one hardware class the whole wave gets all of it."""
    each = total * look_share(shares.look) / max(shares.waves, 1) / max(shares.metrics, 1)
    if shares.classes < 2:
        return Errors(each, 0.0)
    return Errors(each / 2, each / 2 / shares.classes)


def critical(alpha: float, freedom: Any) -> npt.NDArray[np.float64]:
    """Return how many standard errors a one-sided test at ``alpha`` takes, by Student's t with ``freedom``."""
    return np.asarray(-stdtrit(freedom, alpha))
