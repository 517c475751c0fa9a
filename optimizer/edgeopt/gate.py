"""The accuracy gate: whether the variant may replace the baseline, at a stated confidence.

Paired non-inferiority. Both models answer the same samples, so only those count on which they differ. The *drop* is
the baseline's mean score minus the variant's. With the margin M and the confidence C:

- PASS: the one-sided upper bound of the drop is at most M. A variant whose true drop is M passes in at most 1 - C of
  all cases.
- FAIL: the one-sided lower bound of the drop is above M.
- INCONCLUSIVE: neither; then an estimate of how many samples would do.

For scores of 0 and 1 the bounds are exact whatever the number of samples. For other scores they are Student's, with
one imagined worst case added, so that a handful of equal differences proves nothing.

Pure: arrays in, a verdict out. Example::

    judge(baseline_scores, variant_scores, margin=0.01, confidence=0.95).verdict     # Verdict.PASS
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import special, stats

__all__ = ["Judgement", "Verdict", "discordant_p_value", "judge"]

Scores = npt.NDArray[np.float64]

_GAMMA = 0.01  # the part of the error spent on bounding the nuisance parameter (Berger & Boos 1994)
_ERROR = 0.05  # of the p-value, unless another is named
_GRID = 33  # values of the nuisance parameter that are tried
_NEGLIGIBLE = 1e-9  # probability of outcomes that are left out, and counted against the variant
_BISECTIONS = 40
_MAX_SAMPLES = 10_000_000  # an estimate beyond this helps nobody


class Verdict(StrEnum):
    """What the gate says; the exit codes are 0, 3 and 4."""

    PASS = "PASS"  # noqa: S105  (a verdict, not a password)
    FAIL = "FAIL"
    INCONCLUSIVE = "INCONCLUSIVE"


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """The verdict with what it rests on; drops are in the metric's unit (0.01 is one point of accuracy)."""

    verdict: Verdict
    baseline: float
    value: float
    drop: float
    drop_lower: float
    drop_upper: float
    margin: float
    confidence: float
    n: int
    samples_needed: int | None


def judge(baseline: Scores, variant: Scores, *, margin: float, confidence: float, ceiling: bool = False) -> Judgement:
    """Judge paired scores, float64 of shape (n,), one for each certification sample; higher is better.

    ``margin`` is the greatest drop allowed, in the unit of the scores. ``ceiling`` says that the baseline is 1 by
    definition (agreement with itself), so that nothing can be won. Raises ``ValueError`` for unpaired, empty or
    non-finite scores, a negative margin, or a confidence outside (0.5, 1).
    """
    _check(baseline, variant, margin, confidence)
    binary = bool(np.isin(baseline, (0, 1)).all() and np.isin(variant, (0, 1)).all())
    if not binary:
        test = _general_test(baseline, variant)
    elif ceiling:
        test = _ceiling_test(int(np.sum(variant == 0)), len(variant))
    else:
        test = _paired_test(int(np.sum(baseline > variant)), int(np.sum(baseline < variant)), len(baseline))
    return _judgement(baseline, variant, test, margin, 1 - confidence)


@dataclass(frozen=True, slots=True)
class _Test:
    """Bounds of the drop at an error rate, and whether so many samples like these would pass."""

    upper: Callable[[float], float]
    lower: Callable[[float], float]
    passes_at: Callable[[int, float, float], bool]  # (number of samples, margin, error rate)


def _judgement(baseline: Scores, variant: Scores, test: _Test, margin: float, alpha: float) -> Judgement:
    drop = float(baseline.mean() - variant.mean())
    upper, lower = max(test.upper(alpha), drop), min(test.lower(alpha), drop)
    verdict = Verdict.PASS if upper <= margin else Verdict.FAIL if lower > margin else Verdict.INCONCLUSIVE
    needed = None
    if verdict is Verdict.INCONCLUSIVE and drop < margin:
        needed = _samples_needed(lambda n: test.passes_at(n, margin, alpha), len(baseline))
    return Judgement(
        verdict=verdict,
        baseline=float(baseline.mean()),
        value=float(variant.mean()),
        drop=drop,
        drop_lower=lower,
        drop_upper=upper,
        margin=margin,
        confidence=1 - alpha,
        n=len(baseline),
        samples_needed=needed,
    )


def _samples_needed(passes: Callable[[int], bool], n: int) -> int | None:
    """Return the least number of samples that would pass if new ones behaved like these; ``None`` if beyond reach."""
    high = n
    while not passes(high):
        high *= 2
        if high > _MAX_SAMPLES:
            return None
    low = max(n, high // 2)
    while high - low > max(1, high // 100):  # to one per cent: it is an estimate
        middle = (low + high) // 2
        low, high = (low, middle) if passes(middle) else (middle, high)
    return high


# Scores of 0 and 1 ---------------------------------------------------------------------------------------------


@functools.lru_cache(maxsize=1 << 16)  # classes of one data set share their counts, and so their bounds
def discordant_p_value(lost: int, won: int, n: int, drop: float, error: float = _ERROR) -> float:
    """Return the exact p-value of "the true drop is at least ``drop``".

    ``lost`` samples of ``n`` only the baseline answers right, ``won`` only the variant. With m = lost + won, the
    unconditional test orders outcomes by z = (lost - won - n drop) / sqrt(m + 1), and takes the largest probability
    of an outcome at least as favourable over all discordance rates in a Clopper-Pearson interval, plus the chance that
    this one misses: a hundredth of ``error``, the level that the p-value is meant to be held against (Berger & Boos,
    JASA 89:1012, 1994). So it is valid for every n, unlike a score interval.
    """
    gamma = _GAMMA * error
    m = lost + won
    z = (lost - won - n * drop) / np.sqrt(m + 1)
    low, high = _clopper_pearson(m, n, gamma / 2)
    low, high = max(low, abs(drop)), min(high, 1.0)
    if low > high:
        return gamma
    return float(min(1.0, _tails(np.linspace(low, high, _GRID), n, drop, z).max() + gamma))


def _tails(rates: Scores, n: int, drop: float, z: float) -> Scores:
    """P(outcome at most ``z``) for each share of discordant samples in ``rates``, when the true drop is ``drop``.

    Given m discordant samples, the lost ones are binomial, and z bounds their number: one term for each m, over all
    m that come up with a probability worth mentioning.
    """
    few, many = stats.binom.ppf(_NEGLIGIBLE, n, rates[0]), stats.binom.ppf(1 - _NEGLIGIBLE, n, rates[-1])
    m = np.arange(int(few), int(many) + 1)
    most_lost = np.minimum(m, np.floor((m + n * drop + z * np.sqrt(m + 1)) / 2 + 1e-9))
    share_lost = np.clip((rates + drop) / np.maximum(2 * rates, 1e-300), 0, 1)[:, None]
    at_most = np.where(most_lost < 0, 0.0, special.bdtr(np.maximum(most_lost, 0), m, share_lost))
    return np.asarray((stats.binom.pmf(m, n, rates[:, None]) * at_most).sum(axis=1) + 2 * _NEGLIGIBLE)


def _clopper_pearson(k: int, n: int, tail: float) -> tuple[float, float]:
    low = 0.0 if k == 0 else float(stats.beta.ppf(tail, k, n - k + 1))
    high = 1.0 if k == n else float(stats.beta.ppf(1 - tail, k + 1, n - k))
    return low, high


def _paired_test(lost: int, won: int, n: int) -> _Test:
    def passes_at(count: int, margin: float, alpha: float) -> bool:
        return discordant_p_value(round(lost * count / n), round(won * count / n), count, margin, alpha) <= alpha

    def upper(alpha: float) -> float:
        return _invert(lambda drop: discordant_p_value(lost, won, n, drop, alpha), (lost - won) / n, alpha)

    def lower(alpha: float) -> float:
        return -_invert(lambda drop: discordant_p_value(won, lost, n, drop, alpha), (won - lost) / n, alpha)

    return _Test(upper=upper, lower=lower, passes_at=passes_at)


def _ceiling_test(lost: int, n: int) -> _Test:
    """Clopper and Pearson's exact bounds of the share that is lost."""

    def passes_at(count: int, margin: float, alpha: float) -> bool:
        return _clopper_pearson(round(lost * count / n), count, alpha)[1] <= margin

    return _Test(
        upper=lambda alpha: _clopper_pearson(lost, n, alpha)[1],
        lower=lambda alpha: _clopper_pearson(lost, n, alpha)[0],
        passes_at=passes_at,
    )


def _invert(p_value: Callable[[float], float], observed: float, alpha: float) -> float:
    """Return the least drop above ``observed`` that is rejected at ``alpha``; 1 when none is."""
    low, high = observed, 1.0
    if p_value(high) > alpha:
        return high
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        low, high = (low, middle) if p_value(middle) <= alpha else (middle, high)
        if high - low < 1e-6:
            break
    return high


# Other scores --------------------------------------------------------------------------------------------------


def _general_test(baseline: Scores, variant: Scores) -> _Test:
    drops = baseline - variant
    spread = float(max(baseline.max(), variant.max()) - min(baseline.min(), variant.min()))

    def upper(alpha: float) -> float:
        return _student_bound(np.append(drops, spread), alpha)

    def lower(alpha: float) -> float:
        return -_student_bound(np.append(-drops, spread), alpha)

    def passes_at(count: int, margin: float, alpha: float) -> bool:
        mean, std = float(drops.mean()), float(np.std(np.append(drops, spread), ddof=1))
        return bool(mean + spread / count + stats.t.ppf(1 - alpha, count) * std / np.sqrt(count) <= margin)

    return _Test(upper=upper, lower=lower, passes_at=passes_at)


def _student_bound(values: npt.NDArray[Any], alpha: float) -> float:
    """Return Student's one-sided upper bound of the mean of ``values``."""
    n = len(values)
    return float(values.mean() + stats.t.ppf(1 - alpha, n - 1) * values.std(ddof=1) / np.sqrt(n))


def _check(baseline: Scores, variant: Scores, margin: float, confidence: float) -> None:
    if baseline.shape != variant.shape or baseline.ndim != 1 or baseline.size == 0:
        raise ValueError(f"expected paired scores of shape (n,), got {baseline.shape} and {variant.shape}")
    if not (np.isfinite(baseline).all() and np.isfinite(variant).all()):
        raise ValueError("expected finite scores, got NaN or infinity: look at the metric function")
    if margin < 0 or not 0.5 < confidence < 1:
        raise ValueError(f"expected a margin >= 0 and a confidence in (0.5, 1), got {margin} and {confidence}")
