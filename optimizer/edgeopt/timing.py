"""Is the variant really faster? Interleaved runs, and an interval for the ratio of their times.

Both models run in turn on the same sample in the order A B B A, so that whatever slows the machine down slows both
down. Each round gives one ratio; rounds that follow each other are alike, so they are first gathered into blocks
whose medians count as independent. The interval is that of order statistics for a median: no distribution is
assumed, and nothing is drawn at random. Example::

    times = measure(fp32, int8, clock=time.perf_counter, plan=Plan(seconds=5))
    estimate(times).ratio_low > 1          # faster, at 95 % confidence
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

__all__ = ["Plan", "Speed", "Times", "estimate", "measure"]

Run = Callable[[], object]


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How long to measure: until ``seconds`` are used, but between the least and the most rounds."""

    seconds: float = 6.0
    warm_up: int = 10
    least_rounds: int = 60
    most_rounds: int = 2000


@dataclass(frozen=True, slots=True)
class Times:
    """Seconds for one inference; entry i of both comes from the same round (the mean of its two runs)."""

    baseline: tuple[float, ...]
    variant: tuple[float, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Speed:
    """Median milliseconds of both, and ``ratio`` = baseline / variant with its interval: above one is faster."""

    baseline_ms: float
    variant_ms: float
    ratio: float
    ratio_low: float
    ratio_high: float
    confidence: float
    rounds: int


def measure(runs: Sequence[tuple[Run, Run]], clock: Callable[[], float], plan: Plan) -> Times:
    """Run (baseline, variant) pairs in turn and return how long each took; ``clock`` gives seconds."""
    for round_number in range(plan.warm_up):
        for run in runs[round_number % len(runs)]:
            run()
    baseline: list[float] = []
    variant: list[float] = []
    end = clock() + plan.seconds
    while len(baseline) < plan.least_rounds or (clock() < end and len(baseline) < plan.most_rounds):
        first, second = runs[len(baseline) % len(runs)]
        marks = [clock()]
        for run in (first, second, second, first):
            run()
            marks.append(clock())
        baseline.append((marks[1] - marks[0] + marks[4] - marks[3]) / 2)
        variant.append((marks[3] - marks[1]) / 2)
    return Times(tuple(baseline), tuple(variant))


def estimate(times: Times, confidence: float = 0.95, blocks: int = 30) -> Speed:
    """Return the ratio of the times with its two-sided interval at ``confidence``.

    Deterministic. At least ``blocks`` rounds are needed; raises ``ValueError`` for fewer.
    """
    rounds = len(times.baseline)
    if rounds < blocks or blocks < 6:
        raise ValueError(f"expected at least {max(6, blocks)} rounds in at least 6 blocks, got {rounds} in {blocks}")
    baseline, variant = np.asarray(times.baseline), np.asarray(times.variant)
    tick = 1e-9  # a clock that did not move between two marks must not divide by zero
    ratios = np.maximum(baseline, tick) / np.maximum(variant, tick)
    medians = np.sort([np.median(block) for block in np.array_split(ratios, blocks)])
    rank = int(stats.binom.ppf((1 - confidence) / 2, blocks, 0.5))  # David & Nagaraja, Order Statistics, section 7.1
    rank = max(rank, 1)
    return Speed(
        baseline_ms=float(np.median(baseline)) * 1e3,
        variant_ms=float(np.median(variant)) * 1e3,
        ratio=float(np.median(medians)),
        ratio_low=float(medians[rank - 1]),
        ratio_high=float(medians[blocks - rank]),
        confidence=confidence,
        rounds=rounds,
    )
