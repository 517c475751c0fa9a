"""Pruning a network until it is as fast as asked, then training it again.

Speed does not depend on weights, so the widths are found first, by bisection, each exported and timed; the fine-tuning
comes once. The network that is given is not changed. Example::

    result = prune(network, samples, PruningPlan(speedup=1.6))
    if isinstance(result, Pruned):
        result.network, result.speed.ratio, result.macs_before / result.macs_after
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgeopt.pruning.answers import Feeds, answers, tensors
from edgeopt.pruning.channels import Structure, count_macs, find_groups, remove
from edgeopt.pruning.plan import Importance, PruningPlan, Removals, least_pruned, removal_steps
from edgeopt.pruning.speed import Bench, OnnxBench
from edgeopt.pruning.training import Train, TrainingJob, distill, train_checked
from edgeopt.samples import Sample, chunks
from edgeopt.timing import Speed
from edgeopt_contract.errors import DataError

if TYPE_CHECKING:
    from torch import nn

__all__ = ["STEPS", "Attempt", "NotFaster", "OnProgress", "Pruned", "prune"]

OnProgress = Callable[[str, int, int], None]  # what is being done, steps done, steps in all (0: not known)
STEPS = 40  # sets of widths between which the search chooses
_TAYLOR_SAMPLES = 512
_TAYLOR_BATCH = 64
_SPARE = 1.03  # so that the measurement after training holds too, on a machine that is never quite the same


@dataclass(frozen=True, slots=True)
class Attempt:
    """Channels that were taken out for a trial, their share of all that could go, and how much faster that was."""

    ratio: float
    removed: Removals
    speed: Speed | None = None


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Pruned:
    """The pruned and trained network, its ONNX, and what it took.

    ``removed``: output channels by layer, as numbered in the original. ``speed``: the original's ONNX beside ``onnx``.
    """

    network: nn.Module
    onnx: bytes
    original_onnx: bytes
    ratio: float
    removed: Removals
    speed: Speed
    macs_before: int
    macs_after: int
    attempts: tuple[Attempt, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class NotFaster:
    """No ratio was as fast as asked, so nothing was trained; ``reason`` says so in words."""

    reason: str
    attempts: tuple[Attempt, ...]
    notes: tuple[str, ...]


def _silent(step: str, done: int, total: int) -> None:
    """Show nothing."""


def prune(
    network: nn.Module,
    samples: Sequence[Sample],
    plan: PruningPlan,
    *,
    train: Train = distill,
    bench: Bench | None = None,
    on_progress: OnProgress = _silent,
) -> Pruned | NotFaster:
    """Prune a copy of ``network`` and train it on ``samples`` until it is worth having.

    ``bench`` measures (:class:`~edgeopt.pruning.speed.OnnxBench` unless given). Raises :class:`ModelError` when nothing
    can be pruned or training fails, :class:`DataError` for less than two samples.
    """
    if len(samples) < 2:
        raise DataError(f"expected at least two samples to train the pruned model with, got {len(samples)}")
    network = copy.deepcopy(network).eval()
    example = tensors(samples[:2])
    on_progress("finding the channels that go together", 0, 0)
    structure = _structure(network, samples, plan)
    hunt = _Hunt(network, example, plan, bench or OnnxBench(samples, plan.threads), on_progress)
    attempts = _attempts(structure, plan)
    found = hunt.least(attempts)
    if found is None:
        return NotFaster(_too_slow(hunt.tried, plan.speedup), tuple(hunt.tried), structure.notes)
    student = hunt.without(found)
    _train(student, network, samples, plan, _Teaching(train, on_progress))
    on_progress("timing the original and the pruned model in turn", 0, 0)
    onnx = hunt.bench.compiled(student)
    return Pruned(
        network=student,
        onnx=onnx,
        original_onnx=hunt.original,
        ratio=found.ratio,
        removed=found.removed,
        speed=hunt.bench.time(hunt.original, onnx, plan.timing),
        macs_before=count_macs(copy.deepcopy(network), example),
        macs_after=count_macs(copy.deepcopy(student), example),
        attempts=tuple(hunt.tried),
        notes=structure.notes,
    )


class _Hunt:
    """The search for the least pruning that is fast enough; remembers what it tried."""

    def __init__(
        self, network: nn.Module, example: Feeds, plan: PruningPlan, bench: Bench, on_progress: OnProgress
    ) -> None:
        self._network, self._example, self._plan = network, example, plan
        self.bench, self._on_progress = bench, on_progress
        self.original = bench.compiled(network)
        self.tried: list[Attempt] = []
        self._compiled: dict[float, bytes] = {}

    def least(self, attempts: Sequence[Attempt]) -> Attempt | None:
        """Return the least pruned attempt that is fast enough by the long measurement too."""
        screened = least_pruned(attempts, lambda attempt: self._fast_enough(attempt, long=False))
        if screened is None:
            return None
        rest = attempts[attempts.index(screened) :]
        return next((attempt for attempt in rest if self._fast_enough(attempt, long=True)), None)

    def without(self, attempt: Attempt) -> nn.Module:
        """Return a copy of the network without the attempt's channels."""
        student = copy.deepcopy(self._network)
        remove(student, self._example, attempt.removed)
        return student.eval()

    def _fast_enough(self, attempt: Attempt, *, long: bool) -> bool:
        self._on_progress(f"timing with {attempt.ratio:.0%} of the channels removed", 0, 0)
        if attempt.ratio not in self._compiled:
            self._compiled[attempt.ratio] = self.bench.compiled(self.without(attempt))
        pruned = self._compiled[attempt.ratio]
        speed = self.bench.time(self.original, pruned, self._plan.timing if long else self._plan.screen)
        self.tried.append(Attempt(attempt.ratio, attempt.removed, speed))
        return speed.ratio_low >= self._plan.speedup * _SPARE


@dataclass(frozen=True, slots=True)
class _Teaching:
    train: Train
    on_progress: OnProgress


def _structure(network: nn.Module, samples: Sequence[Sample], plan: PruningPlan) -> Structure:
    """Return the groups of channels with their importance, judged on a copy."""
    judged = copy.deepcopy(network)
    if plan.importance is Importance.TAYLOR:
        _add_gradients(judged, samples[:_TAYLOR_SAMPLES])
    return find_groups(judged, tensors(samples[:2]), plan.importance)


def _add_gradients(network: nn.Module, samples: Sequence[Sample]) -> None:
    """Give each weight the gradient of a loss: that of the network's own answers, which needs no labels."""
    import torch
    from torch.nn import functional

    for parameter in network.parameters():
        parameter.requires_grad_(parameter.is_floating_point())
    with torch.enable_grad():
        for chunk in chunks(samples, _TAYLOR_BATCH):
            first = answers(network, tensors(chunk))[0]
            if first.ndim == 2 and first.shape[1] > 1:
                loss = functional.cross_entropy(first, first.detach().argmax(1))
            else:
                loss = first.float().square().mean()
            loss.backward()


def _attempts(structure: Structure, plan: PruningPlan) -> list[Attempt]:
    """Return what may be removed, from the least to the most."""
    channels = sum(group.width for group in structure.groups)
    steps = removal_steps(structure.groups, plan.round_to, STEPS)
    return [Attempt(sum(map(len, removed.values())) / channels, removed) for removed in steps]


def _train(
    student: nn.Module, teacher: nn.Module, samples: Sequence[Sample], plan: PruningPlan, teaching: _Teaching
) -> None:
    done = 0

    def report(_: float) -> None:
        nonlocal done
        done += 1
        teaching.on_progress("training the pruned model", done, job.steps)

    job = TrainingJob(
        student=student,
        teacher=copy.deepcopy(teacher),
        samples=samples,
        epochs=plan.epochs,
        batch=plan.batch,
        rate=plan.rate,
        temperature=plan.temperature,
        seed=plan.seed,
        report=report,
    )
    if job.steps:
        train_checked(teaching.train, job)


def _too_slow(tried: Sequence[Attempt], speedup: float) -> str:
    """Say how near it came."""
    speeds = [attempt.speed for attempt in tried if attempt.speed is not None]
    asked = f"at least {speedup:g} times as fast was asked for"
    if not speeds:
        return f"pruning did not make it faster: no width can be lowered and stay a multiple of the block; {asked}"
    best = max(speeds, key=lambda speed: speed.ratio_low)
    seen = f"at best {best.ratio:.2f} times as fast (at least {best.ratio_low:.2f} at {best.confidence:.0%} confidence)"
    headline = "pruning did not make it faster" if best.ratio_low <= 1 else "pruning did not make it fast enough"
    return f"{headline}: {seen}, {asked}: its time is not in the channels that can go; ask for less, or quantize it"
