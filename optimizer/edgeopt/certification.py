"""Judging variants for one target: the final timing, and the gate on the kind of CPU that the target has.

The certification split is used here and nowhere else, and once for each variant that ships. A variant that ends its
runtime is left out with the reason, and the next best is judged. Example::

    findings = certify(original, target, searched, tools)
    findings.decision.chosen
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from edgeopt.criteria import Classes, PairedScores, judge_all
from edgeopt.decision import Gain, decide, keep_fp32
from edgeopt.emulation.emulator import EMULATED_RUNTIMES
from edgeopt.emulation.execution import Execution, ExecutionKind
from edgeopt.emulation.planning import least_samples, samples_within
from edgeopt.original import STAGE_SAMPLES, stage_of
from edgeopt.recipe import Recipe, RuntimeName
from edgeopt.results import SpeedResult, StageResult, TrialResult
from edgeopt.runtimes.apart import open_apart
from edgeopt.runtimes.port import open_session
from edgeopt.samples import Array, Sample
from edgeopt.search.choice import Demand, faster, ranked, worth_its_size
from edgeopt.search.journal import Entry
from edgeopt.search.laboratory import Timer
from edgeopt.search.workshop import Workshop
from edgeopt.stages import Findings, Original, Setting, Variant
from edgeopt.targets import Target
from edgeopt_contract.errors import ModelError

__all__ = ["FP32_KEPT", "Tools", "certify"]

FP32_KEPT = "no CPU: fp32 is kept, which is the baseline itself"
_TIMED_FULLY = 3  # variants at most: a screening that is wrong three times would be wrong again


@dataclass(frozen=True, slots=True)
class Tools:
    """What certification works with.

    ``timer`` measures in full; ``None`` where the target's times cannot be had. ``emulated_seconds``: how long an
    emulated CPU may take for one variant.
    """

    setting: Setting
    workshop: Workshop
    execution: Execution
    demand: Demand
    timer: Timer | None
    classes: Classes | None
    on_step: Callable[[str], None]
    emulated_seconds: float = 300.0

    def predict(self, model: bytes, recipe: Recipe, samples: Sequence[Sample]) -> dict[str, Array]:
        """Return the outputs for ``samples`` as the target computes them, as far as that can be had here."""
        threads, emulator = self.setting.request.threads, self.execution.emulator
        if emulator is not None and recipe.runtime in EMULATED_RUNTIMES:
            told = _Counted(self.on_step, f"{recipe.variant} on {emulator.title}", len(samples))
            return emulator.predict(model, samples, runtime=recipe.runtime, threads=threads, on_sample=told.one_more)
        simulated = self.execution.kind is not ExecutionKind.NATIVE
        return open_apart(model, recipe.runtime, threads=threads, simulated=simulated).predict(samples)


@dataclass(slots=True)
class _Counted:
    """Says how far an emulated CPU is."""

    on_step: Callable[[str], None]
    what: str
    total: int
    done: int = 0

    def one_more(self) -> None:
        """Count a sample."""
        self.done += 1
        self.on_step(f"{self.what}: {self.done} of {self.total} samples")


@dataclass(frozen=True, slots=True)
class _Judged:
    """A judged variant, and its outputs on the samples that it was judged by."""

    variant: Variant
    outputs: Mapping[str, Array]


def certify(original: Original, target: Target, searched: Sequence[Entry], tools: Tools) -> Findings:
    """Return what ``target`` gets, of everything that was ``searched`` for it."""
    lost: list[str] = []
    while True:
        try:
            findings = _certify(original, target, searched, tools)
        except _LostError as error:
            searched = _without(searched, error)
            lost.append(f"{error.recipe.title}: {error}")
        else:
            reasons = (*lost, *findings.decision.reasons)
            return replace(findings, decision=replace(findings.decision, reasons=reasons))


class _LostError(Exception):
    """The runtime failed with a variant that had answered during the search."""

    def __init__(self, recipe: Recipe, reason: str) -> None:
        super().__init__(reason)
        self.recipe = recipe


@contextlib.contextmanager
def _watched(recipe: Recipe) -> Iterator[None]:
    """Turn a failure into the loss of the variant. ONNX Runtime's is the run's: fp32 would fail as well."""
    try:
        yield
    except ModelError as error:
        if recipe.runtime is RuntimeName.ONNXRUNTIME:
            raise
        raise _LostError(recipe, str(error)) from error


def _without(searched: Sequence[Entry], lost: _LostError) -> list[Entry]:
    """Return what was searched, with the lost variant as one that could not be had."""
    return [
        replace(entry, answer=replace(entry.answer, trial=_problem(entry.answer.trial, str(lost))))
        if entry.answer.trial is not None and entry.answer.trial.recipe == lost.recipe
        else entry
        for entry in searched
    ]


def _problem(trial: TrialResult, reason: str) -> TrialResult:
    return TrialResult(rung=trial.rung, title=trial.title, recipe=trial.recipe, seconds=trial.seconds, problem=reason)


def _certify(original: Original, target: Target, searched: Sequence[Entry], tools: Tools) -> Findings:
    """Return the same, unless a runtime fails: then :class:`_LostError` says with what."""
    trials = [entry.answer.trial for entry in searched if entry.answer.trial is not None]
    worthy, refused = _worth_having(_contenders(trials, tools.demand), original, tools)
    if not worthy:
        return Findings(target, FP32_KEPT, keep_fp32(refused), (), searched, original.stages)
    judged = [_judge(original, target, trial, speed, tools) for trial, speed in worthy]
    best = judged[0].variant
    gain = Gain(best.speed, len(best.model), len(original.float.model))
    wording = tools.setting.metric.wording
    decision = decide(best.recipe.variant, best.judgement.criteria, gain, best.agreement, wording)
    stages = (*original.stages, *_stages(original, target, judged[0], tools))
    certified = tuple(one.variant for one in judged)
    return Findings(target, best.execution.title, decision, certified, searched, stages)


def _contenders(trials: Sequence[TrialResult], demand: Demand) -> list[TrialResult]:
    """Return what may ship, best first; if nothing kept accuracy, what is faster, nearest to fp32 first.

    The gate will refuse the latter if it must: so the user learns by how much it fell short.
    """
    best = ranked(trials, demand)
    if best:
        return best
    able = [trial for trial in trials if trial.problem is None]
    quick = [trial for trial in able if faster(trial.speed)] or [trial for trial in able if trial.speed is None]
    return sorted(quick, key=lambda trial: trial.error or 0.0)


def _worth_having(
    contenders: Sequence[TrialResult], original: Original, tools: Tools
) -> tuple[list[tuple[TrialResult, SpeedResult | None]], list[tuple[str, Gain]]]:
    """Time the contenders in full until one is worth having, and one more for devices that lack its runtime.

    Return these with their speed, and what was refused with what it would have gained.
    """
    worthy: list[tuple[TrialResult, SpeedResult | None]] = []
    refused: list[tuple[str, Gain]] = []
    fp32_bytes = len(original.float.model)
    for trial in contenders:
        plain = trial.recipe.runtime is RuntimeName.ONNXRUNTIME
        if (worthy and not plain) or len(refused) == _TIMED_FULLY:
            continue
        model = tools.workshop.build(trial.recipe)
        if tools.timer is not None:
            tools.on_step(f"timing fp32 and {trial.title} in turn")
        with _watched(trial.recipe):
            speed = None if tools.timer is None else tools.timer(model, trial.recipe)
        if speed is None or faster(speed) or worth_its_size(len(model), speed, fp32_bytes):
            if plain:  # what needs another runtime and is no faster when timed in full, is not worth having
                worthy = [one for one in worthy if speed is None or one[1] is None or one[1].ratio > speed.ratio]
            worthy.append((trial, speed))
            if plain:
                break
        else:
            refused.append((trial.title, Gain(speed, len(model), fp32_bytes)))
    return worthy, refused


def _judge(original: Original, target: Target, trial: TrialResult, speed: SpeedResult | None, tools: Tools) -> _Judged:
    """Hold a variant against every criterion on the certification split."""
    setting = tools.setting
    model = tools.workshop.build(trial.recipe)
    with _watched(trial.recipe):
        tools, count = _affordable(original, model, trial.recipe, tools)
        samples = original.splits.certification[:count]
        tools.on_step(f"judging {trial.recipe.variant} for {target.name} on {count} certification samples")
        outputs = tools.predict(model, trial.recipe, samples)
    paired = _paired(original, outputs, tools, count)
    judgement = judge_all(paired, setting.request.limits)
    agreement = float(paired.agreement.mean())
    return _Judged(Variant(trial.recipe, model, judgement, agreement, speed, tools.execution), outputs)


def _paired(original: Original, outputs: Mapping[str, Array], tools: Tools, count: int) -> PairedScores:
    """Return the scores of fp32 and of a variant on the first ``count`` certification samples."""
    metric, classes = tools.setting.metric, tools.classes
    baseline = {name: array[:count] for name, array in original.baseline.items()}
    labels = [sample.label for sample in original.splits.certification[:count]]
    before, after = metric.scores(baseline, outputs, labels)
    return PairedScores(
        baseline=before,
        variant=after,
        agreement=metric.agreement(baseline, outputs),
        ceiling=metric.is_agreement,
        classes=None if classes is None else replace(classes, of_sample=classes.of_sample[:count]),
    )


def _affordable(original: Original, model: bytes, recipe: Recipe, tools: Tools) -> tuple[Tools, int]:
    """Return on what the variant is judged, and how many certification samples that answers.

    All of them, unless the target's CPU is emulated: then as many as fit the time. If the gate could not pass on so
    few, integers are simulated instead.
    """
    samples, emulator = original.splits.certification, tools.execution.emulator
    if emulator is None or recipe.runtime not in EMULATED_RUNTIMES:
        return tools, len(samples)
    least = least_samples(_paired(original, original.baseline, tools, len(samples)), tools.setting.request.limits)
    tools.on_step(f"asking how long {emulator.title} takes")
    cost = emulator.cost(model, samples, threads=tools.setting.request.threads)
    plan = samples_within(tools.emulated_seconds, cost, least=least, available=len(samples))
    # what was measured must not get into the words: they are part of the bundle, which is the same each time
    if plan.count:
        part = "" if plan.count == len(samples) else f", {plan.count} of {len(samples)} samples"
        return replace(tools, execution=replace(tools.execution, title=f"{tools.execution.title}{part}")), plan.count
    if least is None:
        reason = f"the gate cannot pass on {len(samples)} samples, however well the variant does"
    else:
        reason = (
            f"{emulator.title} cannot answer the {least} samples that the gate needs in {tools.emulated_seconds:g} s"
        )
    return replace(tools, execution=Execution(ExecutionKind.SIMULATED, f"simulated integers: {reason}")), len(samples)


def _stages(original: Original, target: Target, judged: _Judged, tools: Tools) -> Iterator[StageResult]:
    """Yield where the variant lost accuracy: as what its integers stand for, and as the target computes."""
    variant = judged.variant
    count = min(STAGE_SAMPLES, variant.judgement.overall.n)
    samples = original.splits.certification[:count]
    labels = [sample.label for sample in samples]
    reference, outputs = ({name: one[:count] for name, one in of.items()} for of in (original.baseline, judged.outputs))
    metric, recipe = tools.setting.metric, variant.recipe
    if recipe.runtime is not RuntimeName.LITERT:
        threads = tools.setting.request.threads
        simulated = open_session(variant.model, RuntimeName.ONNXRUNTIME, threads=threads, simulated=True)
        yield stage_of(f"{recipe.variant} simulated", reference, simulated.predict(samples), labels, metric)
    if variant.execution.kind is not ExecutionKind.SIMULATED:
        title = f"{recipe.variant} by {recipe.runtime} on {target.name}"
        yield stage_of(title, reference, outputs, labels, metric)
