"""Putting together what a run leaves behind: the report, and the contents of the bundle.

It computes golden outputs and the reference profile with the models it is given; it writes nothing. Example::

    report = compose_report(setting, original, int8, findings, Clock(created, seconds))
    contents = compose_bundle(setting, original, int8, findings)          # None unless the verdict is PASS
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from edgeopt import lineage
from edgeopt.decision import FP32, INT8
from edgeopt.gate import Verdict
from edgeopt.graph import MINIMUM_RUNTIME
from edgeopt.packing import GOLDEN, PROFILE
from edgeopt.reference import golden_file, golden_samples, reference_profile
from edgeopt.report import Baseline, LatencyResult, MetricResult, Report, SplitResult, VariantResult
from edgeopt.runtimes.port import Session
from edgeopt.samples import stack
from edgeopt.stages import Findings, FloatModel, Int8Model, Setting
from edgeopt_contract.bundle import BundleContents
from edgeopt_contract.codec import encode
from edgeopt_contract.manifest import Role, Variant

__all__ = ["TOLERANCE", "Stopwatch", "compose_bundle", "compose_report"]

RUNTIME = "onnxruntime"
TOLERANCE = 0.05  # standard deviations of the outputs; kernels of two CPUs round differently, faults are far beyond
_NOT_TIMED = LatencyResult(median=None, ratio=None, ratio_low=None, ratio_high=None)


@dataclass(frozen=True, slots=True)
class Stopwatch:
    """When the run ended (UTC), and how many seconds it took."""

    created: datetime
    seconds: float


def compose_report(
    setting: Setting, original: FloatModel, int8: Int8Model, findings: Findings, stopwatch: Stopwatch
) -> Report:
    """Return the report of a run."""
    decision, speed = findings.decision, findings.speed
    sizes, roots = original.splits.sizes(), original.splits.roots
    return Report(
        name=setting.request.name,
        version=setting.request.version,
        verdict=decision.verdict,
        reasons=(*decision.reasons, *_limits(setting)),
        target=setting.target.name,
        scheme=setting.scheme.name,
        margin=findings.judgement.overall.margin,
        is_share=setting.metric.wording.is_share,
        baseline=Baseline(
            metric=findings.judgement.overall.baseline,
            size_bytes=len(original.model),
            latency_ms=None if speed is None else speed.baseline_ms,
        ),
        variants=(_int8_result(setting, int8, findings), _fp32_result(setting, original, findings)),
        chosen=decision.chosen,
        criteria=findings.judgement.criteria,
        candidates=int8.tried,
        splits={str(split): SplitResult(size=size, hash=roots[split]) for split, size in sizes.items()},
        notes=original.notes,
        lineage=_lineage(setting, original),
        created=stopwatch.created.isoformat(timespec="seconds"),
        seconds=round(stopwatch.seconds, 1),
    )


def compose_bundle(
    setting: Setting, original: FloatModel, int8: Int8Model, findings: Findings
) -> BundleContents | None:
    """Return what goes into the bundle besides the report: the chosen variant first, fp32 always last.

    ``None`` unless the verdict is PASS.
    """
    if findings.decision.verdict is not Verdict.PASS:
        return None
    models: dict[str, tuple[bytes, Session]] = {FP32: (original.model, original.session)}
    if findings.decision.chosen == INT8:
        models = {INT8: (int8.model, int8.session), **models}
    first = next(iter(models.values()))[1]
    inputs, outputs = first.specs(original.splits.calibration[0])
    return BundleContents(
        name=setting.request.name,
        version=setting.request.version,
        inputs=inputs,
        outputs=outputs,
        labels=setting.request.labels,
        variants=tuple(_variant(name, setting) for name in models),
        lineage=_lineage(setting, original),
        files={
            **{_file(name): (Role.VARIANT, model) for name, (model, _) in models.items()},
            GOLDEN: (Role.GOLDEN, _golden(original, {name: session for name, (_, session) in models.items()})),
            PROFILE: (Role.PROFILE, _profile(original, first)),
        },
    )


def _variant(name: str, setting: Setting) -> Variant:
    """Return what a device needs for a variant; fp32 runs everywhere."""
    scheme = setting.scheme
    return Variant(
        name=name,
        file=_file(name),
        runtime=RUNTIME,
        minimum_runtime=MINIMUM_RUNTIME,
        arch=scheme.arch if name == INT8 else (),
        features=scheme.features if name == INT8 else (),
        certified_for=(setting.target.name,),
        tolerance=TOLERANCE,
    )


def _golden(original: FloatModel, sessions: Mapping[str, Session]) -> bytes:
    samples = golden_samples(original.splits.calibration)
    return golden_file(stack(samples), {name: session.predict_singly(samples) for name, session in sessions.items()})


def _profile(original: FloatModel, session: Session) -> bytes:
    """Return the profile over calibration and selection data: all that took no part in the certification."""
    samples = [*original.splits.calibration, *original.splits.selection]
    return encode(reference_profile(stack(samples), session.predict(samples)))


def _int8_result(setting: Setting, int8: Int8Model, findings: Findings) -> VariantResult:
    judgement, speed = findings.judgement.overall, findings.speed
    return VariantResult(
        name=INT8,
        file=_file(INT8),
        runtime=RUNTIME,
        target=setting.target.name,
        verdict=findings.judgement.verdict,
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
        agreement=findings.agreement,
        size_bytes=len(int8.model),
        latency_ms=_NOT_TIMED
        if speed is None
        else LatencyResult(
            median=speed.variant_ms, ratio=speed.ratio, ratio_low=speed.ratio_low, ratio_high=speed.ratio_high
        ),
    )


def _fp32_result(setting: Setting, original: FloatModel, findings: Findings) -> VariantResult:
    """Return the float model as a variant: it is its own baseline, so it drops nothing and is as fast as itself."""
    judgement, speed = findings.judgement.overall, findings.speed
    return VariantResult(
        name=FP32,
        file=_file(FP32),
        runtime=RUNTIME,
        target=setting.target.name,
        verdict=Verdict.PASS,
        metric=MetricResult(
            name=setting.metric.name,
            value=judgement.baseline,
            drop=0.0,
            drop_lower=0.0,
            drop_upper=0.0,
            confidence=judgement.confidence,
            n=judgement.n,
            samples_needed=None,
        ),
        agreement=1.0,
        size_bytes=len(original.model),
        latency_ms=_NOT_TIMED
        if speed is None
        else LatencyResult(median=speed.baseline_ms, ratio=1.0, ratio_low=1.0, ratio_high=1.0),
    )


def _limits(setting: Setting) -> tuple[str, ...]:
    """Say what this machine could not find out about the target."""
    if setting.native:
        return ()
    reason = (
        f"the target {setting.target.name} is another kind of CPU than this machine: its integer arithmetic was "
        "simulated, and its latency cannot be measured here, so accuracy alone decided"
    )
    return (reason,)


def _lineage(setting: Setting, original: FloatModel) -> dict[str, Any]:
    request, target = setting.request, setting.target
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
            "target": {"name": target.name, "arch": target.arch, "features": list(target.features)},
            "scheme": setting.scheme.name,
        },
    )


def _file(variant: str) -> str:
    return f"{variant}.onnx"
