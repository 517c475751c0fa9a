"""How often the gate errs: whole rollouts simulated from measured variances, a thousand at once.

The simulation hands arrays of many rollouts to the very functions that :func:`edgeopt_fleet.gate.judge` calls for
one; that both say the same is a test as well. A rollout has 250 devices of three hardware classes (60, 30 and 10
percent) and four waves (25, 50, 75 and 100 devices); each wave is looked at :data:`LOOKS` times while its totals grow.
Deviations are those of ``variances.json`` (of each metric the worst of its models; benchmarks/fleet/variances.py says
how they were measured), with tails of Student's t with five degrees of freedom.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from edgeopt_fleet.gate import METRICS, Decision, Evidence, Look, Metric, Policy, judge
from edgeopt_fleet.gate.comparing import FEW, Comparison, Noise, compare, without
from edgeopt_fleet.gate.findings import PRIORS, bounds, sharing
from edgeopt_fleet.gate.spending import abort_error, look_share
from tests.fleet.gate.builders import Told, control, evidence, member

pytestmark = [pytest.mark.gate, pytest.mark.timeout(300)]

Floats = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]

ROLLOUTS = int(os.environ.get("EDGEOPT_GATE_ROLLOUTS", "1000"))  # of those without fault
FAULTY = ROLLOUTS // 5  # of the others, in which rates near one are asked for, not near zero
LOOKS = 5
WAVES = (25, 50, 75, 100)
DEVICES = sum(WAVES)
ROWS = 5000  # that a device serves between two looks; before the wave it had served five times as many
JUDGED = (Metric.LATENCY, Metric.CONFIDENCE, Metric.CLASS_MIX, Metric.DRIFT)
CLASS_OF = np.array([2 if place % 10 == 0 else 1 if place % 10 in (1, 4, 7) else 0 for place in range(DEVICES)])
WAVE_OF = np.repeat(np.arange(len(WAVES)), WAVES)
POLICY = Policy(minimum_rows=200, max_latency_increase=0.04, max_confidence_drop=0.005)


def deviations() -> tuple[Floats, Floats]:
    """Return for each metric what devices differ by, and the deviation of one row: the worst measured."""
    stored = json.loads((Path(__file__).parent / "variances.json").read_text())
    found = [{**model["served"], **model.get("timed", {})} for model in stored["models"].values()]
    between, row = (
        np.array([max(one[metric][name] for one in found if metric in one) for metric in JUDGED])
        for name in ("between", "row")
    )
    assumed = np.array([stored["assumed"].get(metric, 0.0) for metric in JUDGED])
    return np.maximum(between, assumed), row


BETWEEN, ROW = deviations()
PRIOR = np.array([PRIORS[metric] for metric in JUDGED])
ALLOWED = np.array([POLICY.allowed(metric) for metric in JUDGED])


@dataclass(frozen=True)
class World:
    """What happens: ``effect`` (metrics, devices) on updated devices, ``drift`` of latency a look on all of them."""

    effect: Floats
    drift: float = 0.0
    lies: Callable[[Floats, np.random.Generator], Floats] | None = None


@dataclass(frozen=True)
class Seen:
    """One look at one wave of all rollouts: decisions (rollouts,), and the changes (rollouts, metrics, devices)."""

    wave: int
    look: int
    rolls_back: Flags
    promotes: Flags
    changes: Floats


NOTHING = World(np.zeros((len(JUDGED), DEVICES)))


def looks(world: World, seed: int, waves: int = len(WAVES), rollouts: int = FAULTY) -> Iterator[Seen]:
    """Yield every look at the first ``waves`` waves of many rollouts."""
    generator = np.random.default_rng(seed)
    shape = (rollouts, len(JUDGED), DEVICES)
    per_look = (ROW / math.sqrt(ROWS))[:, None]
    for wave in range(waves):
        before = generator.standard_normal(shape) * (ROW / math.sqrt(5 * ROWS))[:, None]
        own = before + generator.standard_t(5, shape) / 1.1 * BETWEEN[:, None]  # 1.1: its robust deviation
        walk = np.zeros(shape)
        pace = 1 + 0.1 * generator.standard_normal((rollouts, DEVICES))
        updated = np.where(WAVE_OF == wave, world.effect, 0.0)
        for look in range(1, LOOKS + 1):
            walk += generator.standard_normal(shape) * per_look
            changes = own + walk / look + updated
            changes[:, 0] += world.drift * look * pace
            if world.lies is not None:
                changes = world.lies(changes, generator)
            yield Seen(wave, look, *decide(changes, wave, look), changes)


def decide(changes: Floats, wave: int, look: int) -> tuple[Flags, Flags]:
    """Return which rollouts are rolled back and which are promoted at this look; the others are held."""
    alpha = abort_error(POLICY.false_abort, sharing(len(WAVES), look, 3, POLICY))
    noise = (ROW**2 * 2 * (1 / (look * ROWS) + 1 / (5 * ROWS)))[:, None]
    rolls_back = np.zeros(len(changes), dtype=bool)
    promotes = np.ones(len(changes), dtype=bool)
    whole: Comparison | None = None
    for place in (None, 0, 1, 2):
        mine = np.ones(DEVICES, dtype=bool) if place is None else CLASS_OF == place
        treated, against = changes[:, :, mine & (WAVE_OF == wave)], changes[:, :, mine & (WAVE_OF != wave)]
        quiet = Noise(np.broadcast_to(noise, treated.shape), np.broadcast_to(noise, against.shape))
        if whole is not None:
            treated = without(treated, whole.treated_aside[:, :, mine[WAVE_OF == wave]])
            against = without(against, whole.controls_aside[:, :, mine[WAVE_OF != wave]])
        compared = compare(treated, against, quiet, PRIOR)
        whole = whole or compared
        error = alpha.overall if place is None else alpha.each_class
        lower, upper = bounds(compared, error, POLICY.false_promotion * look_share(look))
        few = treated.shape[-1] < FEW
        deciding = np.array([not (few and metric in (Metric.CLASS_MIX, Metric.DRIFT)) for metric in JUDGED])
        rolls_back |= ((lower > ALLOWED) & deciding).any(axis=1)
        if place is None:
            promotes &= (upper <= ALLOWED).all(axis=1)
        elif not few:
            promotes &= ((upper <= ALLOWED) | (compared.estimate <= ALLOWED)).all(axis=1)
    return rolls_back, promotes & ~rolls_back


def aborted(world: World, seed: int, waves: int = len(WAVES)) -> tuple[Flags, Flags]:
    """Return which rollouts were ever rolled back, and which ever promoted in the first wave."""
    ever, passed = np.zeros(ROLLOUTS, dtype=bool), np.zeros(ROLLOUTS, dtype=bool)
    for seen in looks(world, seed, waves, ROLLOUTS):
        ever |= seen.rolls_back
        passed |= seen.promotes & (seen.wave == 0)
    return ever, passed


def worse(metric: Metric, amount: float, only_class: int | None = None) -> World:
    """Return a world in which the update makes ``metric`` worse, on one hardware class or on all."""
    effect = np.zeros((len(JUDGED), DEVICES))
    effect[JUDGED.index(metric)] = np.where((CLASS_OF == only_class) | (only_class is None), amount, 0.0)
    return World(effect)


def tell(words: str, found: int, among: int = FAULTY) -> None:
    """Print a figure."""
    print(f"\ngate: {words}: {found} of {among}")


@pytest.mark.parametrize("drift", [0.0, math.log(1.05)], ids=["steady", "whole fleet +5 % a look"])
def test_a_rollout_without_fault_is_hardly_ever_aborted(drift: float) -> None:
    """At most 4 of 1,000 A/A rollouts, though each of four waves is looked at again and again."""
    ever, passed = aborted(replace(NOTHING, drift=drift), seed=1)
    tell(f"A/A rollouts aborted, drift {drift:.3f} a look", int(ever.sum()), ROLLOUTS)
    tell("  of which the first wave was found surely no worse", int(passed.sum()), ROLLOUTS)
    assert ever.sum() <= 0.004 * ROLLOUTS
    assert passed.sum() >= 0.95 * ROLLOUTS


@pytest.mark.parametrize(
    ("words", "world"),
    [
        ("p95 latency +10 %", worse(Metric.LATENCY, math.log(1.1))),
        (
            "p95 latency +10 % while the fleet drifts",
            replace(worse(Metric.LATENCY, math.log(1.1)), drift=math.log(1.05)),
        ),
        ("confidence -2 points", worse(Metric.CONFIDENCE, 0.02)),
    ],
    ids=["latency", "latency and drift", "confidence"],
)
def test_a_regression_is_caught_in_a_wave_of_25(words: str, world: World) -> None:
    """At least 95 % of them, in the canary wave, and it is not promoted before."""
    caught, passed, held = np.zeros(FAULTY, dtype=bool), np.zeros(FAULTY, dtype=bool), []
    for seen in looks(world, seed=2, waves=1):
        caught |= seen.rolls_back & ~passed
        passed |= seen.promotes & ~caught
        held.append(int(caught.sum()))
    tell(f"{words}: rolled back in the canary wave (by look: {held})", int(caught.sum()))
    assert caught.sum() >= 0.95 * FAULTY
    assert not passed.any()


def test_a_regression_of_one_hardware_class_of_ten_percent_is_caught() -> None:
    """Latency +20 % on a tenth of the fleet: the canary wave has three such devices, the whole rollout 25."""
    by_wave = [0] * len(WAVES)
    ever = np.zeros(FAULTY, dtype=bool)
    for seen in looks(worse(Metric.LATENCY, math.log(1.2), only_class=2), seed=3):
        by_wave[seen.wave] += int((seen.rolls_back & ~ever).sum())
        ever |= seen.rolls_back
    tell(f"p95 +20 % on one class of 10 %: rolled back (by wave: {by_wave})", int(ever.sum()))
    assert ever.sum() >= 0.95 * FAULTY


def liars(extremes: tuple[float, ...]) -> Callable[[Floats, np.random.Generator], Floats]:
    """Return what a tenth of the devices of wave and of controls make of their figures."""
    lying = np.zeros(DEVICES, dtype=bool)
    lying[3::11] = True  # 23 of 250, and two of the 25 of the first wave
    assert 2 == lying[: WAVES[0]].sum()
    assert lying.mean() <= 0.1

    def lie(changes: Floats, generator: np.random.Generator) -> Floats:
        return np.where(lying, generator.choice(extremes, size=changes.shape), changes)

    return lie


@pytest.mark.parametrize(
    "extremes", [(50.0,), (-50.0,), (-1e6, 1e6), (-3.0, 0.0, 3.0)], ids=["worst", "best", "absurd", "mixed"]
)
@pytest.mark.parametrize("truth", [NOTHING, worse(Metric.LATENCY, math.log(1.1))], ids=["good", "bad"])
def test_liars_change_no_verdict(truth: World, extremes: tuple[float, ...]) -> None:
    """With a tenth of the devices reporting extremes, the wave ends as without them in at least 99 of 100."""
    ends = []
    for world in (truth, replace(truth, lies=liars(extremes))):
        end = np.zeros(FAULTY, dtype=int)
        for seen in looks(world, seed=4, waves=1):
            end = np.where(end != 0, end, np.where(seen.rolls_back, -1, np.where(seen.promotes, 1, 0)))
        ends.append(end)
    same = int((ends[0] == ends[1]).sum())
    tell(f"verdict unchanged although 9 % report {extremes}", same)
    assert same >= 0.99 * FAULTY


@pytest.mark.parametrize("world", [NOTHING, worse(Metric.LATENCY, math.log(1.1))], ids=["good", "bad"])
def test_the_simulation_decides_as_the_gate_does(world: World) -> None:
    """For eight rollouts, every look of the first wave: judge() says what the arrays say."""
    history: list[list[Look]] = [[] for _ in range(8)]
    for seen in looks(world, seed=5, waves=1, rollouts=8):
        for number, past in enumerate(history):
            told = _told(seen, number, past)
            verdict = judge(told, POLICY)
            expected = Decision.ROLL_BACK if seen.rolls_back[number] else Decision.HOLD
            assert (Decision.PROMOTE if seen.promotes[number] else expected) == verdict.decision
            past.append(Look.INCONCLUSIVE)


def _told(seen: Seen, number: int, past: list[Look]) -> Evidence:
    noise = ROW**2 * 2 * (1 / (seen.look * ROWS) + 1 / (5 * ROWS))
    groups: tuple[list[Told], list[Told]] = ([], [])
    for place in range(DEVICES):
        figures = {
            metric: (float(seen.changes[number, row, place]), float(noise[row])) for row, metric in enumerate(JUDGED)
        }
        wave = bool(WAVE_OF[place] == seen.wave)
        make = member if wave else control
        groups[0 if wave else 1].append(
            make(
                f"d{place:03}", changes=figures, hardware="abc"[CLASS_OF[place]], rows=seen.look * ROWS, before=5 * ROWS
            )
        )
    return evidence(*groups, waves=len(WAVES), history=past)


def test_the_metrics_that_are_simulated_are_among_those_that_are_judged() -> None:
    """The others (errors, divergence) take their share of the error as well."""
    assert set(JUDGED) < set(METRICS)
    assert 6 == sharing(4, 1, 3, POLICY).metrics
