"""Is the variant really faster? Interleaved runs, and an interval for the ratio of their times.

Three things make equal models look different, and each is met:

- The machine is slower now than a moment ago: both models run in turn on the same sample, so both are.
- A run that follows one of the same model finds warm caches, the first of a round cold ones: a round is
  A B B A B A A B, in which each model follows itself as often as the other, and they take turns in beginning it.
- Where a model lies in memory makes it faster or slower for as long as it is loaded: both are loaded afresh, in
  alternating order, for each repetition, and the repetitions are what the interval counts.
- Which of two places of the stopwatch a model has (whose run is made, warmed up and released first) can cost some
  nanoseconds, the same ones for as long as the process lives: the models change places between repetitions.

The interval is that of order statistics for a median (David & Nagaraja, Order Statistics, section 7.1) over the
repetitions: no distribution is assumed, and nothing is drawn at random. Example::

    times = measure(load_both, clock=time.perf_counter, plan=Plan(seconds=5))
    estimate(times).ratio_low > 1          # faster, at 95 % confidence
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from edgeopt.samples import Array

__all__ = [
    "SCREENING",
    "Plan",
    "Run",
    "Speed",
    "Timed",
    "Times",
    "estimate",
    "loader",
    "measure",
]

Run = Callable[[], object]

_ROUND = (0, 1, 1, 0, 1, 0, 0, 1)  # Thue-Morse: no drift up to the second order favours either
_LEAST_REPETITIONS = 6  # fewer give no two-sided interval at 95 %


class Timed(Protocol):
    """A loaded model; every :class:`edgeopt.runtimes.port.Session` is one."""

    def call_on(self, feeds: dict[str, Array]) -> Run:
        """Return a function that runs ``feeds`` and does nothing else."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How long to measure: ``seconds`` in all, shared by the repetitions, and at least some rounds in each."""

    seconds: float = 6.0
    repetitions: int = 16  # even, so each order of loading comes as often; 2.1 % of A/A intervals miss one, not 3.5
    warm_up: int = 3  # runs of each model on each sample
    least_rounds: int = 4


SCREENING = Plan(seconds=2.0, repetitions=6, warm_up=2, least_rounds=2)  # a first look at a variant, among many


@dataclass(frozen=True, slots=True)
class Times:
    """Seconds for one inference: an entry for each repetition, in it one for each round (the mean of four runs)."""

    baseline: tuple[tuple[float, ...], ...]
    variant: tuple[tuple[float, ...], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Speed:
    """Median milliseconds of both, and ``ratio`` = baseline / variant with its interval: above one is faster.

    ``ratios``: that of each repetition, in ascending order, of which the interval is made.
    """

    baseline_ms: float
    variant_ms: float
    ratio: float
    ratio_low: float
    ratio_high: float
    confidence: float
    rounds: int
    ratios: tuple[float, ...] = ()


def loader(
    openers: Sequence[Callable[[], Timed]], feeds: Sequence[dict[str, Array]]
) -> Callable[[int], list[tuple[Run, ...]]]:
    """Return what :func:`measure` calls to load all models afresh, each time in another order.

    ``openers`` load one model each, the baseline first; all run the same arrays ``feeds``, one for each sample.
    """

    def load(repetition: int) -> list[tuple[Run, ...]]:
        count = len(openers)
        order = [(repetition + place) % count for place in range(count)]
        runs: dict[int, list[Run]] = {}
        for which in order if repetition // count % 2 else order[::-1]:
            session = openers[which]()
            runs[which] = [session.call_on(one) for one in feeds]
        return [tuple(runs[which][number] for which in range(count)) for number in range(len(feeds))]

    return load


def measure(load: Callable[[int], Sequence[Sequence[Run]]], clock: Callable[[], float], plan: Plan) -> Times:
    """Time both models; ``clock`` gives seconds.

    ``load(repetition)`` loads both afresh and gives, for each sample, a function that runs the baseline on it and one
    that runs the variant.
    """
    baseline, variant = [], []
    for repetition in range(plan.repetitions):
        step = -1 if _swaps(repetition) else 1
        runs = [pair[::step] for pair in load(repetition)]
        for pair in runs:
            for run in (*pair,) * plan.warm_up:
                run()
        rounds: list[tuple[float, float]] = []
        end = clock() + plan.seconds / plan.repetitions
        while len(rounds) < plan.least_rounds or clock() < end:
            number = len(rounds)
            rounds.append(_round(runs[number % len(runs)], clock, first=(repetition + number) % 2))
        baseline.append(tuple(both[::step][0] for both in rounds))
        variant.append(tuple(both[::step][1] for both in rounds))
    return Times(tuple(baseline), tuple(variant))


def _swaps(repetition: int) -> bool:
    """Tell whether the models change places: Thue-Morse, so as often as not, and with no period of its own."""
    return repetition.bit_count() % 2 == 1


def _round(pair: Sequence[Run], clock: Callable[[], float], *, first: int) -> tuple[float, float]:
    """Return the mean seconds of one run of each model; ``first`` says which of them begins."""
    spent = [0.0, 0.0]
    for turn in _ROUND:
        which = turn ^ first
        run = pair[which]
        begin = clock()
        run()
        end = clock()  # nothing that is of one model only may come before it but the run
        spent[which] += end - begin
    return spent[0] / 4, spent[1] / 4


def estimate(times: Times, confidence: float = 0.95) -> Speed:
    """Return the ratio of the times with its two-sided interval at ``confidence``.

    Deterministic. Raises ``ValueError`` for fewer than six repetitions, or one without rounds.
    """
    from scipy import stats  # takes a second, and what only measures needs it not

    repetitions = len(times.baseline)
    if repetitions < _LEAST_REPETITIONS or not all(times.baseline):
        raise ValueError(f"expected at least {_LEAST_REPETITIONS} repetitions with rounds, got {repetitions}")
    tick = 1e-9  # a clock that did not move between two marks must not divide by zero
    ratios = np.sort(
        [
            np.median(np.maximum(first, tick) / np.maximum(second, tick))
            for first, second in zip(times.baseline, times.variant, strict=True)
        ]
    )
    rank = max(int(stats.binom.ppf((1 - confidence) / 2, repetitions, 0.5)), 1)
    return Speed(
        baseline_ms=float(np.median(np.concatenate(times.baseline))) * 1e3,
        variant_ms=float(np.median(np.concatenate(times.variant))) * 1e3,
        ratio=float(np.median(ratios)),
        ratio_low=float(ratios[rank - 1]),
        ratio_high=float(ratios[repetitions - rank]),
        confidence=confidence,
        rounds=sum(map(len, times.baseline)),
        ratios=tuple(float(ratio) for ratio in ratios),
    )
