"""Putting together what a run leaves behind: its result as records, and the contents of the bundle.

It computes golden outputs and the reference profile with the models it is given; it writes nothing. Example::

    result = compose_result(setting, original, findings, Stopwatch(created, seconds))
    contents = compose_bundle(setting, original, findings)          # None unless the verdict is PASS
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from edgeopt import lineage
from edgeopt.decision import FP32, worst
from edgeopt.gate import Verdict
from edgeopt.listing import Shipped, listed
from edgeopt.machine import describe_machine
from edgeopt.packing import GOLDEN, PROFILE
from edgeopt.recipe import Precision, Recipe, RuntimeName
from edgeopt.reference import golden_file, golden_samples, reference_profile
from edgeopt.results import (
    Baseline,
    MetricResult,
    RunResult,
    SpeedResult,
    SplitResult,
    TargetResult,
    TrialResult,
    VariantResult,
)
from edgeopt.runtimes.apart import open_apart
from edgeopt.runtimes.port import Predictor
from edgeopt.samples import stack
from edgeopt.search.choice import front
from edgeopt.stages import Findings, Original, Setting, Variant
from edgeopt_contract.bundle import BundleContents
from edgeopt_contract.codec import encode
from edgeopt_contract.manifest import Role, TensorSpec
from edgeopt_contract.manifest import Variant as Listed

__all__ = ["TOLERANCE", "Payload", "Stopwatch", "compose_bundle", "compose_payload", "compose_result"]

TOLERANCE = 0.05  # standard deviations of the outputs; kernels of two CPUs round differently, faults are far beyond


@dataclass(frozen=True, slots=True)
class Stopwatch:
    """When the run ended (UTC), and how many seconds it took."""

    created: datetime
    seconds: float


def _shipped(original: Original, findings: Sequence[Findings]) -> tuple[Shipped, ...]:
    """Return what a bundle carries, in the order in which a device looks."""
    return listed([(one.target, _passed(one)) for one in findings], original.float.model)


def _passed(found: Findings) -> tuple[tuple[Recipe, bytes], ...]:
    """Return what ships for a target: nothing unless the best variant passed, and of the others those that did."""
    if found.decision.chosen in (None, FP32):
        return ()
    good = [one for one in found.certified if one.judgement.verdict is Verdict.PASS]
    return tuple((one.recipe, one.model) for one in good)


def compose_result(
    setting: Setting, original: Original, findings: Sequence[Findings], stopwatch: Stopwatch
) -> RunResult:
    """Return everything that a run found."""
    request, splits = setting.request, original.splits
    ships = _shipped(original, findings)
    return RunResult(
        name=request.name,
        version=request.version,
        verdict=worst(one.decision.verdict for one in findings),
        metric=setting.metric.name,
        is_share=setting.metric.wording.is_share,
        margin=request.max_drop,
        confidence=request.confidence,
        baseline=_baseline(setting, original, findings),
        targets=tuple(_target(setting, original, one, ships) for one in findings),
        splits={str(split): SplitResult(size=size, hash=splits.roots[split]) for split, size in splits.sizes().items()},
        notes=original.notes,
        lineage=_lineage(setting, original, ships),
        machine=describe_machine(),
        created=stopwatch.created.isoformat(timespec="seconds"),
        seconds=round(stopwatch.seconds, 1),
    )


def compose_bundle(setting: Setting, original: Original, findings: Sequence[Findings]) -> BundleContents | None:
    """Return what goes into the bundle besides the evidence. ``None`` unless every target's verdict is PASS."""
    if any(one.decision.verdict is not Verdict.PASS for one in findings):
        return None
    ships = _shipped(original, findings)
    payload = compose_payload(setting, original, ships)
    return BundleContents(
        name=setting.request.name,
        version=setting.request.version,
        inputs=payload.inputs,
        outputs=payload.outputs,
        labels=setting.request.labels,
        variants=tuple(_listed(one) for one in ships),
        lineage=_lineage(setting, original, ships),
        files=payload.files,
    )


@dataclass(frozen=True, slots=True)
class Payload:
    """What devices fetch: the variants, golden inputs and profile, and what the model takes and gives."""

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    files: dict[str, tuple[Role, bytes]]


def compose_payload(setting: Setting, original: Original, ships: Sequence[Shipped]) -> Payload:
    """Return what devices fetch of ``ships``. The same variants and data give the same bytes on a like machine."""
    native = {target.name for target in setting.targets if target.computes_like(setting.host)}
    here = {one.name for one in ships if native & set(one.targets)}
    sessions = {
        one.name: open_apart(
            one.model,
            one.recipe.runtime,
            threads=setting.request.threads,
            simulated=one.recipe.runtime is RuntimeName.ONNXRUNTIME and one.name not in here,
        )
        for one in {one.name: one for one in ships}.values()
    }
    first = sessions[ships[0].name]
    inputs, outputs = first.specs(original.splits.calibration[0])
    files = {
        **{one.file: (Role.VARIANT, one.model) for one in ships},
        GOLDEN: (Role.GOLDEN, _golden(original, sessions)),
        PROFILE: (Role.PROFILE, _profile(original, first)),
    }
    return Payload(inputs, outputs, files)


def _listed(one: Shipped) -> Listed:
    return Listed(
        name=one.name,
        file=one.file,
        runtime=one.recipe.runtime,
        minimum_runtime=one.needs.minimum_runtime,
        arch=one.needs.arch,
        features=one.needs.features,
        certified_for=one.targets,
        tolerance=TOLERANCE,
    )


def _golden(original: Original, sessions: Mapping[str, Predictor]) -> bytes:
    samples = golden_samples(original.splits.calibration)
    return golden_file(stack(samples), {name: session.predict_singly(samples) for name, session in sessions.items()})


def _profile(original: Original, session: Predictor) -> bytes:
    """Return the profile over calibration and selection data: all that took no part in the certification."""
    samples = [*original.splits.calibration, *original.splits.selection]
    return encode(reference_profile(stack(samples), session.predict(samples)))


def _baseline(setting: Setting, original: Original, findings: Sequence[Findings]) -> Baseline:
    labels = [sample.label for sample in original.splits.certification]
    score, _ = setting.metric.scores(original.baseline, original.baseline, labels)
    speeds = [variant.speed for one in findings for variant in one.certified if variant.speed is not None]
    speeds += [trial.speed for one in findings for trial in _trials(one) if trial.speed is not None]
    return Baseline(
        metric=float(score.mean()),
        size_bytes=len(original.float.model),
        latency_ms=speeds[0].baseline_ms if speeds else None,
    )


def _target(setting: Setting, original: Original, found: Findings, ships: Sequence[Shipped]) -> TargetResult:
    names = {(one.recipe, one.model): one for one in ships if found.target.name in one.targets or one.name == FP32}
    variants = [_variant(variant, names.get((variant.recipe, variant.model)), setting) for variant in found.certified]
    chosen = found.decision.chosen
    if chosen not in (None, FP32):
        chosen = variants[0].name
    ranking = [layer for entry in found.searched for layer in entry.answer.ranking]
    criteria = found.certified[0].judgement.criteria if found.certified else ()
    return TargetResult(
        target=found.target.name,
        arch=found.target.arch,
        features=found.target.features,
        execution=found.execution,
        verdict=found.decision.verdict,
        chosen=chosen,
        reasons=found.decision.reasons,
        criteria=criteria,
        variants=(*variants, _fp32(setting, original, found)),
        trials=_marked(_trials(found), found),
        sensitivity=tuple(ranking),
        stages=found.stages,
    )


def _trials(found: Findings) -> list[TrialResult]:
    return [entry.answer.trial for entry in found.searched if entry.answer.trial is not None]


def _marked(trials: Sequence[TrialResult], found: Findings) -> tuple[TrialResult, ...]:
    """Return ``trials`` with marks on the chosen one and on the Pareto front."""
    best = front(trials)
    chosen = found.certified[0].recipe if found.certified and found.decision.chosen not in (None, FP32) else None
    return tuple(
        replace(trial, on_front=index in best, chosen=trial.recipe == chosen) for index, trial in enumerate(trials)
    )


def _variant(variant: Variant, one: Shipped | None, setting: Setting) -> VariantResult:
    judgement = variant.judgement.overall
    return VariantResult(
        name=variant.recipe.variant if one is None else one.name,
        file="" if one is None else one.file,
        recipe=variant.recipe,
        verdict=variant.judgement.verdict,
        metric=MetricResult(
            name=setting.metric.name,
            value=judgement.value,
            drop=judgement.drop,
            drop_lower=judgement.drop_lower,
            drop_upper=judgement.drop_upper,
            confidence=judgement.confidence,
            n=judgement.n,
            samples_needed=judgement.samples_needed,
        ),
        agreement=variant.agreement,
        size_bytes=len(variant.model),
        speed=variant.speed,
    )


def _fp32(setting: Setting, original: Original, found: Findings) -> VariantResult:
    """Return the float model as a variant: it is its own baseline, so it drops nothing.

    It stands beside the certified one, so its score is that on the samples by which that was judged.
    """
    count = found.certified[0].judgement.overall.n if found.certified else len(original.splits.certification)
    labels = [sample.label for sample in original.splits.certification[:count]]
    baseline = {name: array[:count] for name, array in original.baseline.items()}
    score, _ = setting.metric.scores(baseline, baseline, labels)
    return VariantResult(
        name=FP32,
        file=f"{FP32}.onnx",
        recipe=Recipe(precision=Precision.FP32),
        verdict=Verdict.PASS,
        metric=MetricResult(
            name=setting.metric.name,
            value=float(score.mean()),
            drop=0.0,
            drop_lower=0.0,
            drop_upper=0.0,
            confidence=setting.request.confidence,
            n=len(labels),
            samples_needed=None,
        ),
        agreement=1.0,
        size_bytes=len(original.float.model),
        speed=_as_fast_as_itself(found),
    )


def _as_fast_as_itself(found: Findings) -> SpeedResult | None:
    """Return fp32's latency as it was measured beside the certified variant, or else beside any."""
    speeds = [variant.speed for variant in found.certified] + [trial.speed for trial in _trials(found)]
    known = next((speed for speed in speeds if speed is not None), None)
    if known is None:
        return None
    return SpeedResult(
        baseline_ms=known.baseline_ms,
        variant_ms=known.baseline_ms,
        ratio=1.0,
        ratio_low=1.0,
        ratio_high=1.0,
        ratios=(),
        rounds=known.rounds,
    )


def _lineage(setting: Setting, original: Original, ships: Sequence[Shipped]) -> dict[str, Any]:
    request = setting.request
    return lineage.record(
        splits={str(split): root for split, root in original.splits.roots.items()},
        settings={
            "model": request.model,
            "data": request.data.given(),
            "max_drop": request.max_drop,
            "max_class_drop": request.max_class_drop,
            "min_agreement": request.min_agreement,
            "confidence": request.confidence,
            "metric": request.metric,
            "seed": request.seed,
            "threads": request.threads,
            "preprocess_file": None if request.preprocess is None else str(request.preprocess),
            "preprocess": [repr(step) for step in (*setting.steps.inputs, *setting.steps.outputs)],
            "targets": [
                {"name": target.name, "arch": target.arch, "features": list(target.features)}
                for target in setting.targets
            ],
        },
        recipes={one.name: one.recipe for one in ships},
    )
