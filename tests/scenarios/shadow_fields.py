"""Inputs on which two tiny models are known to answer the same class, and such on which they are not."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np

from tests.tiny import Recipe, samples, weights_of

CHAMPION = Recipe(version="1")
OTHER = Recipe(version="2", weights_seed=8)


def classes(recipe: Recipe, rows: np.ndarray) -> np.ndarray:
    """Return the classes (n,) that such a model answers for ``rows`` (n, width)."""
    return np.asarray((rows @ weights_of(recipe)).argmax(axis=1))


def _rows(*, alike: bool) -> np.ndarray:
    rows = samples(5, 400)
    return np.asarray(rows[(classes(CHAMPION, rows) == classes(OTHER, rows)) == alike])


def agreeing() -> Iterator[np.ndarray]:
    """Give inputs for ever on which both answer the same."""
    return itertools.cycle(_rows(alike=True))


def disagreeing() -> Iterator[np.ndarray]:
    """Give inputs for ever on which they do not."""
    return itertools.cycle(_rows(alike=False))
