"""From a factory and data to a pruned network that is certified: the steps of ``edgeopt prune`` in order.

The network is trained on ``train_data``, or for want of it on the calibration and selection splits; the certification
split judges it, and a training sample in it is refused. Nothing is written unless the verdict is PASS. Example::

    outcome = run(request, on_progress=print)
    outcome.verdict, outcome.reasons
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import msgspec

from edgeopt.criteria import Classes, Criterion, Limits, Name, PairedScores, judge_all
from edgeopt.data import fit_to
from edgeopt.gate import Verdict
from edgeopt.pruning.answers import build
from edgeopt.pruning.plan import PruningPlan
from edgeopt.pruning.saved import check_output, recipe_of, write_pruned
from edgeopt.pruning.search import NotFaster, OnProgress, Pruned, prune
from edgeopt.pruning.speed import Bench
from edgeopt.pruning.training import distill, load_training
from edgeopt.recipe import RuntimeName
from edgeopt.runtimes.port import open_session
from edgeopt.samples import Sample
from edgeopt.scoring import Metric, load_metric
from edgeopt.sources import DataSources, SplitData, read_splits
from edgeopt.splits import merkle_root, sample_digest
from edgeopt.timing import Speed
from edgeopt.wording import Wording
from edgeopt_contract.errors import DataError
from edgeopt_contract.values import digest_of

__all__ = ["PruneOutcome", "PruneRequest", "Scores", "TrainingSamples", "judge_pruned", "run", "training_samples"]

_PACKAGES = ("edgeopt", "torch", "torch-pruning", "safetensors", "onnx", "onnxruntime", "onnxsim", "numpy")
_NO_OWN_DATA = (
    "no --train-data was given: the pruned model was trained on the {count} calibration and selection samples, which "
    "is little; give training data to lose less accuracy"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class PruneRequest:
    """What the user asked for; ``train`` names a training function, ``train_data`` data that only trains."""

    model: str
    data: DataSources
    output: Path
    limits: Limits
    plan: PruningPlan
    metric: str = "accuracy"
    train: str | None = None
    train_data: str | None = None


@dataclass(frozen=True, slots=True)
class TrainingSamples:
    """What the pruned network is trained on, the Merkle root over it, and a warning if it is little."""

    samples: Sequence[Sample]
    root: str
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scores:
    """The certification split's judgement of the pruned network beside the original, both run as ONNX."""

    baseline: float
    pruned: float
    agreement: float
    criteria: tuple[Criterion, ...]
    verdict: Verdict


@dataclass(frozen=True, slots=True, kw_only=True)
class PruneOutcome:
    """What came of it. ``pruned`` and ``scores`` are ``None`` when it does not get faster; ``speed`` if untimed."""

    verdict: Verdict
    reasons: tuple[str, ...]
    notes: tuple[str, ...]
    pruned: Pruned | None = None
    scores: Scores | None = None

    @property
    def speed(self) -> Speed | None:
        """How much faster the pruned network is."""
        return None if self.pruned is None else self.pruned.speed


def run(request: PruneRequest, on_progress: OnProgress, bench: Bench | None = None) -> PruneOutcome:
    """Do all of it. Raises errors of :mod:`edgeopt_contract.errors`; a slow result is a verdict, not an error."""
    check_output(request.output)
    metric = load_metric(request.metric)
    train = distill if request.train is None else load_training(request.train)
    on_progress("loading the model and the data", 0, 0)
    network = build(request.model)
    splits = read_splits(request.data, request.plan.seed, metric)
    training = training_samples(splits, request.data, request.train_data)
    pruned = prune(network, training.samples, request.plan, train=train, bench=bench, on_progress=on_progress)
    notes = tuple(note for note in (training.note, *pruned.notes) if note)
    if isinstance(pruned, NotFaster):
        return PruneOutcome(verdict=Verdict.FAIL, reasons=(pruned.reason, "nothing is written"), notes=notes)
    on_progress(f"judging the pruned model on {len(splits.certification)} certification samples", 0, 0)
    scores = judge_pruned(pruned, splits.certification, metric, request.limits)
    outcome = _decide(pruned, scores, request, metric.wording, notes)
    if outcome.verdict is Verdict.PASS:
        evidence = _evidence(request, outcome, splits, training)
        write_pruned(request.output, recipe_of(pruned, network, request.model, evidence), pruned)
    return outcome


def training_samples(splits: SplitData, sources: DataSources, train_data: str | None) -> TrainingSamples:
    """Return the samples of ``train_data``, or for want of it those of the calibration and selection splits.

    Raises :class:`DataError` when one of them is in the certification split too, or has another shape.
    """
    if train_data is None:
        samples = [*splits.calibration, *splits.selection]
        return TrainingSamples(samples, _root(samples), _NO_OWN_DATA.format(count=len(samples)))
    shape = next(iter(splits.certification[0].inputs.values())).shape
    samples = sources.read(train_data, shape).samples
    _check_like(samples[0], splits.certification[0], train_data)
    certified = {sample_digest(sample.inputs) for sample in splits.certification}
    shared = {sample_digest(sample.inputs) for sample in samples} & certified
    if shared:
        raise DataError(
            f"{train_data} shares {len(shared)} of its samples with the certification split: remove them, or a pass "
            "would prove nothing"
        )
    return TrainingSamples(samples, _root(samples))


def judge_pruned(
    pruned: Pruned, certification: Sequence[Sample], metric: Metric, limits: Limits, classes: Classes | None = None
) -> Scores:
    """Hold the pruned ONNX against the original's, sample by sample, with the paired gate.

    ``classes`` are needed if ``limits`` ask for the worst class.
    """
    sessions = [
        open_session(model, RuntimeName.ONNXRUNTIME, threads=1) for model in (pruned.original_onnx, pruned.onnx)
    ]
    samples = fit_to(certification, sessions[0].inputs)
    before, after = (session.predict(samples) for session in sessions)
    baseline, variant = metric.scores(before, after, [sample.label for sample in samples])
    agreement = metric.agreement(before, after)
    paired = PairedScores(
        baseline=baseline, variant=variant, agreement=agreement, ceiling=metric.is_agreement, classes=classes
    )
    judgement = judge_all(paired, limits)
    return Scores(
        baseline=float(baseline.mean()),
        pruned=float(variant.mean()),
        agreement=float(agreement.mean()),
        criteria=judgement.criteria,
        verdict=judgement.verdict,
    )


def _decide(
    pruned: Pruned, scores: Scores, request: PruneRequest, wording: Wording, notes: tuple[str, ...]
) -> PruneOutcome:
    """Fast enough and accurate enough: both, by the bounds that hold at the stated confidence."""
    speed, asked = pruned.speed, request.plan.speedup
    fast = speed.ratio_low >= asked
    sure = f"at least {speed.ratio_low:.2f} at {speed.confidence:.0%} confidence (asked for: {asked:g})"
    found = "fast enough" if fast else "pruning did not make it fast enough"
    reasons = [
        f"{found}: {speed.ratio:.2f} times as fast, {sure}",
        *(_sentence(criterion, wording) for criterion in scores.criteria),
    ]
    verdict = scores.verdict if fast else Verdict.FAIL
    if verdict is not Verdict.PASS:
        reasons.append("nothing is written")
    return PruneOutcome(verdict=verdict, reasons=tuple(reasons), notes=notes, pruned=pruned, scores=scores)


def _sentence(seen: Criterion, wording: Wording) -> str:
    """Say what was found for one criterion, what it was held against, and what to do about it."""
    share = Wording(is_share=True).score
    if seen.name is Name.AGREEMENT:
        found = f"agreement with the original: {share(seen.value or 0)}, between {share(seen.lower or 0)} and "
        found += f"{share(seen.upper or 0)} (asked for: {seen.limit * 100:g} %)"
    else:
        found = (
            f"a drop of {wording.drop(seen.value or 0)} on {seen.n} samples, between {wording.number(seen.lower or 0)}"
        )
        found += f" and {wording.drop(seen.upper or 0)} (allowed: {wording.margin(seen.limit)})"
    advice = {
        Verdict.PASS: "",
        Verdict.FAIL: ": train longer (--epochs), on more data (--train-data), or ask for less speed",
        Verdict.INCONCLUSIVE: f": about {seen.samples_needed} certification samples like these would decide it"
        if seen.samples_needed
        else ": too near what is allowed for more samples to help; train longer, or allow more",
    }[seen.verdict]
    return f"{found}{advice}"


def _evidence(
    request: PruneRequest, outcome: PruneOutcome, splits: SplitData, training: TrainingSamples
) -> dict[str, Any]:
    """Return what stands in the recipe for people and lineage."""
    assert outcome.pruned is not None
    pruned = outcome.pruned
    record = {
        "plan": request.plan,
        "train": request.train or "distillation",
        "data": {**request.data.given(), **({"train": request.train_data} if request.train_data else {})},
        "roots": {**{str(split): root for split, root in splits.roots.items()}, "train": training.root},
        "ratio": pruned.ratio,
        "macs": {"before": pruned.macs_before, "after": pruned.macs_after},
        "speed": pruned.speed,
        "metric": request.metric,
        "scores": outcome.scores,
        "notes": outcome.notes,
        "versions": {package: metadata.version(package) for package in _PACKAGES},
    }
    plain: dict[str, Any] = msgspec.to_builtins(record)
    return plain


def _check_like(sample: Sample, like: Sample, source: str) -> None:
    shapes = [{name: (array.shape, array.dtype) for name, array in one.inputs.items()} for one in (like, sample)]
    if shapes[0] != shapes[1]:
        raise DataError(f"{source} gives inputs {shapes[1]}, the certification data {shapes[0]}: expected the same")


def _root(samples: Sequence[Sample]) -> str:
    return merkle_root([digest_of(f"{sample_digest(one.inputs)}\0{one.label!r}".encode()) for one in samples])
