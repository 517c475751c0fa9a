"""From what devices served to how much worse each became: counts in, one change and its noise a metric and device out.

Pure numpy over stacks of devices. A *side* is what some devices served on one bundle in one stretch: a wave's device on
its previous bundle, the same device on the new one, a control before and after the wave began. Formulas, with n rows:

- errors: their share e/n; noise p (1 - p) / n with p = (e + 1/2) / (n + 1).
- latency: the logarithm of the 95th percentile, and of the median; noise q (1 - q) / n over the squared density there
  (order statistics).
- confidence: its mean, with the sign turned; noise s^2 / n.
- drift: the mean over the input features of the chi-square distance to the bundle's own reference,
  sum((p - r)^2 / r), less what chance adds to it, sum(p (1 - p) / r) / (n - 1), which makes it unbiased.
- class mix: the same distance between a device's own two sides.

Rows of one device resemble their neighbours, so noise is doubled (:data:`DESIGN_EFFECT`). Example::

    change, noise = changes(side_of(old, layout, profile), side_of(new, layout, profile))
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edgeopt_contract.features import ReferenceProfile, Source, Summary
from edgeopt_fleet.gate.policy import COMPARED, Metric
from edgeopt_fleet.totals import Layout, confidence_moments, latency_quantile

__all__ = ["DESIGN_EFFECT", "Served", "Side", "changes", "empty_side", "join", "side_of"]

Floats = npt.NDArray[np.float64]
Counts = npt.NDArray[np.int64]

DESIGN_EFFECT = 2.0
_LEAST_SHARE = 0.01  # of a cell in a distance: one value in a cell that the reference never saw is no catastrophe
_NEAR = 0.025  # the density at a quantile is that between so much below and so much above it


@dataclass(frozen=True, slots=True, eq=False)
class Served:
    """What n devices served on one bundle in one stretch: ``counts`` (n, layout.size), answers and errors (n,)."""

    counts: Counts
    rows: Counts
    errors: Counts


@dataclass(frozen=True, slots=True, eq=False)
class Side:
    """Levels and their noise (COMPARED, n), answers by classes (n, classes), and the reference's shares."""

    levels: Floats
    noise: Floats
    classes: Counts
    shares: Floats


def side_of(served: Served, layout: Layout, profile: ReferenceProfile | None) -> Side:
    """Return the levels of ``served``, whose counts are laid out as ``layout``, that of ``profile``."""
    n = len(served.rows)
    levels, noise = np.full((len(COMPARED), n), np.nan), np.zeros((len(COMPARED), n))
    latency = layout.latency_of(served.counts)
    top1 = layout.find(Summary.TOP1)
    classes = np.zeros((n, 0), dtype=np.int64) if top1 is None else layout.cells_of(served.counts, top1.name)
    found = {
        Metric.ERRORS: _errors(served),
        Metric.LATENCY: _latency(latency, 0.95),
        Metric.MEDIAN: _latency(latency, 0.5),
        Metric.CONFIDENCE: _confidence(layout, served.counts),
        Metric.DRIFT: _drift(layout, served.counts, profile),
    }
    for metric, (level, variance) in found.items():
        levels[COMPARED.index(metric)] = level
        noise[COMPARED.index(metric)] = np.where(np.isfinite(variance), variance * DESIGN_EFFECT, 0.0)
    reference = () if profile is None or top1 is None else _reference(profile, top1.name)
    return Side(levels, noise, classes, _smoothed(reference, classes.shape[1]))


def empty_side(n: int) -> Side:
    """Return the side of ``n`` devices of which nothing is known."""
    nothing = np.full((len(COMPARED), n), np.nan)
    return Side(nothing, np.zeros_like(nothing), np.zeros((n, 0), dtype=np.int64), np.zeros(0))


def changes(before: Side, after: Side) -> tuple[Floats, Floats]:
    """Return how much worse each device became and the noise of that, each of shape (COMPARED, n)."""
    change, noise = after.levels - before.levels, after.noise + before.noise
    if before.classes.shape == after.classes.shape and after.classes.shape[1] > 1:
        row = COMPARED.index(Metric.CLASS_MIX)
        change[row], noise[row] = _distance(before.classes, after.classes, after.shares)
    return change, noise


def join(parts: list[tuple[npt.NDArray[np.intp], Floats, Floats]], n: int) -> tuple[Floats, Floats]:
    """Put changes and noise of parts, each with the places of its devices, together for ``n`` devices."""
    change, noise = np.full((len(COMPARED), n), np.nan), np.zeros((len(COMPARED), n))
    for places, part, variance in parts:
        change[:, places], noise[:, places] = part, variance
    return change, noise


def _errors(served: Served) -> tuple[Floats, Floats]:
    attempts = (served.rows + served.errors).astype(np.float64)
    likely = (served.errors + 0.5) / (attempts + 1)
    with np.errstate(invalid="ignore", divide="ignore"):
        return served.errors / attempts, likely * (1 - likely) / attempts


def _latency(counts: Counts, quantile: float) -> tuple[Floats, Floats]:
    with np.errstate(invalid="ignore", divide="ignore"):
        level, low, high = (np.log(latency_quantile(counts, q)) for q in (quantile, quantile - _NEAR, quantile + _NEAR))
        width = (high - low) / (2 * _NEAR)  # one over the density
        return level, quantile * (1 - quantile) / counts.sum(axis=-1) * width**2


def _confidence(layout: Layout, counts: Counts) -> tuple[Floats, Floats]:
    n, mean, variance = confidence_moments(layout, counts)
    return -mean, variance / np.maximum(n, 1)


def _drift(layout: Layout, counts: Counts, profile: ReferenceProfile | None) -> tuple[Floats, Floats]:
    """Return the mean over the input features of the distance to the reference, and its noise."""
    inputs = [] if profile is None else [f for f in profile.features if f.spec.source is Source.INPUT]
    if not inputs:
        return np.full(len(counts), np.nan), np.zeros(len(counts))
    total, variance = np.zeros(len(counts)), np.zeros(len(counts))
    for feature in inputs:
        shares = _smoothed(feature.counts, feature.spec.cells)
        cells = layout.cells_of(counts, feature.spec.name)
        n = cells.sum(axis=-1).astype(np.float64)
        with np.errstate(invalid="ignore", divide="ignore"):
            p = cells / n[:, None]
            total += (((p - shares) ** 2 - p * (1 - p) / (n - 1)[:, None]) / shares).sum(axis=-1)
            variance += 2 * (feature.spec.cells - 1) / n**2
    return total / len(inputs), variance / len(inputs) ** 2


def _distance(before: Counts, after: Counts, shares: Floats) -> tuple[Floats, Floats]:
    """Return the unbiased chi-square distance between two samples of the same classes, and its noise."""
    n, m = before.sum(axis=-1).astype(np.float64), after.sum(axis=-1).astype(np.float64)
    with np.errstate(invalid="ignore", divide="ignore"):
        p, q = before / n[:, None], after / m[:, None]
        chance = p * (1 - p) / (n - 1)[:, None] + q * (1 - q) / (m - 1)[:, None]
        distance = (((p - q) ** 2 - chance) / shares).sum(axis=-1)
        return distance, DESIGN_EFFECT * 2 * (before.shape[1] - 1) * (1 / n + 1 / m) ** 2


def _reference(profile: ReferenceProfile, name: str) -> tuple[int, ...]:
    return next(feature.counts for feature in profile.features if feature.spec.name == name)


def _smoothed(counts: tuple[int, ...], cells: int) -> Floats:
    """Return the reference's shares, none below a hundredth; evenly spread without a reference."""
    known = np.asarray(counts if len(counts) == cells else np.zeros(cells), dtype=np.float64)
    return np.asarray(np.maximum((known + 1) / (known.sum() + cells), _LEAST_SHARE))
