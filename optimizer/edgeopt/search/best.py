"""The best variant so far, on disk at every moment of a search: the model, and what is known about it.

``best.json`` names the model's file beside it, and is replaced only when that is whole; until something better than
fp32 is found, it is fp32. It is not certified: the certification split is looked at once, at the end. Example::

    best = BestSoFar(directory, demand, workshop.build)
    best.hear(trial)
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import msgspec

from edgeopt.recipe import Precision, Recipe, RuntimeName
from edgeopt.results import TrialResult
from edgeopt.search.choice import Demand, ranked
from edgeopt_contract.storage import storage_errors, write_atomically
from edgeopt_contract.values import digest_of

__all__ = ["BEST", "Best", "BestSoFar"]

BEST = "best.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Best:
    """``file`` holds the model (ONNX, or ``.tflite`` for LiteRT); ``trial``: what is known, ``None`` for fp32."""

    file: str
    recipe: Recipe
    trial: TrialResult | None = None


class BestSoFar:
    """Hears of every trial and keeps the best; the model is written before what is said of it."""

    def __init__(self, directory: Path, demand: Demand, build: Callable[[Recipe], bytes]) -> None:
        """``build`` gives the bytes of a recipe's variant."""
        self._directory = directory
        self._demand = demand
        self._build = build
        self._trials: list[TrialResult] = []
        self._kept = _read(directory)

    def hear(self, trial: TrialResult | None, *, more: bool = False) -> None:
        """Take ``trial`` into account (``None``: it begins); ``more`` to come at once: write nothing yet.

        Raises :class:`StorageError`.
        """
        if trial is not None:
            self._trials.append(trial)
        best = next(iter(ranked(self._trials, self._demand)), None)
        recipe = Recipe(precision=Precision.FP32) if best is None else best.recipe
        if more or (self._kept is not None and (self._kept.recipe, self._kept.trial) == (recipe, best)):
            return
        self._keep(recipe, best)

    def _keep(self, recipe: Recipe, trial: TrialResult | None) -> None:
        model, before = self._build(recipe), self._kept
        ending = "tflite" if recipe.runtime is RuntimeName.LITERT else "onnx"
        self._kept = Best(file=f"best-{digest_of(model)[:12]}.{ending}", recipe=recipe, trial=trial)
        with storage_errors(self._directory):
            self._directory.mkdir(parents=True, exist_ok=True)
            write_atomically(self._directory / self._kept.file, model)
            write_atomically(self._directory / BEST, msgspec.json.format(msgspec.json.encode(self._kept), indent=2))
            if before is not None and before.file != self._kept.file:
                (self._directory / before.file).unlink(missing_ok=True)


def _read(directory: Path) -> Best | None:
    """Return what an earlier run left, if it is whole; another is written over it."""
    try:
        best = msgspec.json.decode((directory / BEST).read_bytes(), type=Best)
    except (OSError, msgspec.MsgspecError):
        return None
    return best if (directory / best.file).is_file() else None
