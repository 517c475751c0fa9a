"""The best variant so far, on disk at every moment of a search: the model, and what is known about it.

It is not certified: the certification split is looked at once, at the end. Example::

    best = BestSoFar(directory, demand, workshop.build)
    best.hear(trial)
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import msgspec

from edgeopt.recipe import Recipe
from edgeopt.results import TrialResult
from edgeopt.search.choice import Demand, ranked
from edgeopt_contract.storage import write_atomically

__all__ = ["BEST_MODEL", "BEST_TRIAL", "BestSoFar"]

BEST_MODEL = "best.model"  # ONNX, or .tflite for LiteRT: the trial names the runtime
BEST_TRIAL = "best.json"


class BestSoFar:
    """Hears of every trial and keeps the best; the model is written before what is said of it."""

    def __init__(self, directory: Path, demand: Demand, build: Callable[[Recipe], bytes]) -> None:
        """``build`` gives the bytes of a recipe's variant."""
        self._directory = directory
        self._demand = demand
        self._build = build
        self._trials: list[TrialResult] = []
        self._kept: TrialResult | None = None

    def hear(self, trial: TrialResult) -> None:
        """Take ``trial`` into account. Raises :class:`StorageError`."""
        self._trials.append(trial)
        best = ranked(self._trials, self._demand)
        if not best or best[0] == self._kept:
            return
        self._kept = best[0]
        self._directory.mkdir(parents=True, exist_ok=True)
        write_atomically(self._directory / BEST_MODEL, self._build(best[0].recipe))
        write_atomically(self._directory / BEST_TRIAL, msgspec.json.format(msgspec.json.encode(best[0]), indent=2))
