"""From a float model and data to a certified bundle: the steps of ``edgeopt quantize`` in order.

Here things are wired together; what decides stands in :mod:`edgeopt.splits`, :mod:`edgeopt.gate`,
:mod:`edgeopt.criteria`, :mod:`edgeopt.timing` and :mod:`edgeopt.decision`. Nothing is written but the output directory,
and that only at the end and as a whole. Two runs with the same inputs give the same model bytes; the report differs in
its times, and so does the digest of the bundle that carries it. Example::

    outcome = run(request, on_step=print)
    outcome.report.verdict, outcome.bundle
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime

import numpy as np

from edgeopt.criteria import Classes, JointJudgement, PairedScores, judge_all
from edgeopt.decision import decide
from edgeopt.evidence import Stopwatch, compose_bundle, compose_report
from edgeopt.graph import prepare
from edgeopt.metrics import class_labels
from edgeopt.models import Model, load_model
from edgeopt.packing import check_output, write_output
from edgeopt.quantizer import Candidate, candidates_for, quantize, scheme_for
from edgeopt.report import CandidateResult, Report
from edgeopt.runtimes.onnx_runtime import OnnxRuntimeSession
from edgeopt.runtimes.port import Session
from edgeopt.samples import Array, stack
from edgeopt.scoring import load_metric
from edgeopt.sources import SplitData, read_splits
from edgeopt.stages import Findings, FloatModel, Int8Model, Request, Setting
from edgeopt.targets import host_target
from edgeopt.timing import Run, Speed, estimate, measure
from edgeopt_contract.bundle import Bundle
from edgeopt_contract.errors import ModelError

__all__ = ["Outcome", "run"]

OnStep = Callable[[str], None]
_PARITY_SAMPLES = 16
_PARITY = 0.01  # greatest mean difference between the original and its ONNX form, in standard deviations
_TIMED_SAMPLES = 8


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of it; ``bundle`` is ``None`` unless the verdict is PASS."""

    report: Report
    bundle: Bundle | None


def run(request: Request, on_step: OnStep) -> Outcome:
    """Do all of it; ``on_step`` is told, in words, what begins. Raises errors of :mod:`edgeopt_contract.errors`."""
    started = time.monotonic()
    setting = _settle(request)
    on_step("loading the model")
    model = load_model(request.model)
    on_step("reading the data")
    splits = read_splits(request.data, request.seed, setting.metric, model.input_shape())
    setting = setting.labelled(splits.classes)
    classes = _classes(splits, request)
    on_step("exporting the model")
    original = _export(model, splits, setting)
    int8 = _quantize(original, setting, on_step)
    on_step(f"judging int8 on {len(original.splits.certification)} certification samples")
    judgement, agreement = _certify(original, int8, setting, classes)
    speed = None
    if setting.native:
        on_step("timing fp32 and int8 in turn")
        speed = _time(original, int8, setting)
    findings = Findings(
        judgement, agreement, speed, decide(judgement.criteria, speed, agreement, setting.metric.wording)
    )
    on_step("writing the result")
    contents = compose_bundle(setting, original, int8, findings)
    stopwatch = Stopwatch(datetime.now(UTC), time.monotonic() - started)
    report = compose_report(setting, original, int8, findings, stopwatch)
    return Outcome(report, write_output(request.output, report, contents))


def _settle(request: Request) -> Setting:
    """Check what can be checked at once, before any work is done."""
    check_output(request.output)
    host = host_target()
    target = request.target or host
    return Setting(request, target, scheme_for(target), target.times_like(host), load_metric(request.metric))


def _export(model: Model, splits: SplitData, setting: Setting) -> FloatModel:
    """Export, prepare and load the float model, and hold it against the original."""
    exported = model.to_onnx(splits.calibration[0])
    prepared = prepare(exported)
    threads = setting.request.threads
    session = OnnxRuntimeSession(prepared.model, threads=threads)
    fitted = splits.fitted(session.inputs)
    few = fitted.calibration[:_PARITY_SAMPLES]
    expected = model.predict(splits.calibration[:_PARITY_SAMPLES])
    if expected is None:
        expected = list(OnnxRuntimeSession(exported, threads=threads).predict(few).values())
    _check_parity(expected, list(session.predict(few).values()))
    return FloatModel(prepared.model, session, fitted, prepared.notes)


def _check_parity(expected: Sequence[Array], actual: Sequence[Array]) -> None:
    """Raise :class:`ModelError` when the exported model computes something else than the original."""
    for index, (want, have) in enumerate(zip(expected, actual, strict=False)):
        if want.shape != have.shape:
            raise ModelError(f"export changed output {index}: expected shape {want.shape}, got {have.shape}")
        difference = float(np.abs(want.astype(np.float64) - have.astype(np.float64)).mean())
        scale = float(want.std()) or 1.0
        if not difference <= _PARITY * scale:
            raise ModelError(
                f"export changed the model: output {index} differs by {difference:.3g} on average, its standard "
                f"deviation is {scale:.3g}; look for code that depends on data, or on training mode"
            )


def _quantize(original: FloatModel, setting: Setting, on_step: OnStep) -> Int8Model:
    """Try each candidate on the selection split and keep the one that agrees best with the float model."""
    baseline = original.session.predict(original.splits.selection)
    tried: list[tuple[CandidateResult, bytes | None, Session | None]] = []
    for candidate in candidates_for(original.model, setting.scheme, original.splits.calibration):
        on_step(f"quantizing: {candidate.name}")
        tried.append(_try(candidate, original, baseline, setting))
    best, model, session = max(tried, key=lambda entry: (entry[0].agreement or -1.0, entry[0].metric or -1.0))
    if model is None or session is None:
        raise ModelError("no way of quantizing worked: " + "; ".join(str(result.problem) for result, _, _ in tried))
    return Int8Model(model, session, tuple(replace(result, chosen=result is best) for result, _, _ in tried))


def _try(
    candidate: Candidate, original: FloatModel, baseline: Mapping[str, Array], setting: Setting
) -> tuple[CandidateResult, bytes | None, Session | None]:
    """Quantize in one way and look at the selection split; what cannot be done is a result as well."""
    selection = original.splits.selection
    try:
        model = quantize(original.model, candidate, setting.scheme, original.splits.calibration)
        session = setting.session(model)
        outputs = session.predict(selection)
    except ModelError as error:
        failure = CandidateResult(name=candidate.name, agreement=None, metric=None, chosen=False, problem=str(error))
        return failure, None, None
    _, scores = setting.metric.scores(baseline, outputs, [sample.label for sample in selection])
    agreement = setting.metric.agreement(baseline, outputs)
    result = CandidateResult(
        name=candidate.name, agreement=float(agreement.mean()), metric=float(scores.mean()), chosen=False
    )
    return result, model, session


def _classes(splits: SplitData, request: Request) -> Classes | None:
    """Return the classes if the worst one is to be judged. Raises :class:`DataError` when the labels are none."""
    if request.max_class_drop is None:
        return None
    certification = class_labels([sample.label for sample in splits.certification])
    others = class_labels([sample.label for sample in (*splits.calibration, *splits.selection)])
    return Classes(certification, tuple(sorted({*certification.tolist(), *others.tolist()})))


def _certify(
    original: FloatModel, int8: Int8Model, setting: Setting, classes: Classes | None
) -> tuple[JointJudgement, float]:
    """Return the gate's judgement and the agreement on the certification split."""
    samples = original.splits.certification
    baseline, variant = original.session.predict(samples), int8.session.predict(samples)
    before, after = setting.metric.scores(baseline, variant, [sample.label for sample in samples])
    agreement = setting.metric.agreement(baseline, variant)
    paired = PairedScores(
        baseline=before, variant=after, agreement=agreement, ceiling=setting.metric.is_agreement, classes=classes
    )
    return judge_all(paired, setting.request.limits), float(agreement.mean())


def _time(original: FloatModel, int8: Int8Model, setting: Setting) -> Speed:
    """Time both models, loaded afresh for each repetition, now one first and now the other."""
    feeds = [stack([sample]) for sample in original.splits.selection[:_TIMED_SAMPLES]]

    def load(repetition: int) -> list[tuple[Run, Run]]:
        models = [original.model, int8.model]
        order = (0, 1) if repetition % 2 else (1, 0)
        sessions = {which: setting.session(models[which]) for which in order}
        return [(sessions[0].call_on(one), sessions[1].call_on(one)) for one in feeds]

    return estimate(measure(load, time.perf_counter, setting.request.timing))
