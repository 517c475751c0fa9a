"""From a float model and data to a certified bundle: the steps of ``edgeopt quantize`` and ``optimize`` in order.

Here things are wired together; what decides stands in :mod:`edgeopt.splits`, :mod:`edgeopt.search`,
:mod:`edgeopt.gate`, :mod:`edgeopt.criteria` and :mod:`edgeopt.decision`. Nothing is written but the output directory,
that only at the end and as a whole, and the journal of a search that may have to resume. Example::

    outcome = run(request, Watcher())
    outcome.result.verdict, outcome.bundle
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from edgeopt.certification import Tools, certify
from edgeopt.criteria import Classes
from edgeopt.emulation.execution import Execution, ExecutionKind, execution_for
from edgeopt.evidence import Stopwatch, compose_bundle, compose_result
from edgeopt.files.reading import Shape
from edgeopt.handover import PERFORMANCE, evidence_files, performance_report
from edgeopt.metrics import class_labels
from edgeopt.models import Model, load_model
from edgeopt.noise import cpu_times, noise_note
from edgeopt.original import make_ready
from edgeopt.packing import REPORT_HTML, REPORT_JSON, check_output, with_evidence, write_run
from edgeopt.preprocess_config import read_preprocessing
from edgeopt.preprocess_steps import Preprocessing
from edgeopt.pruning.saved import RECIPE, WEIGHTS
from edgeopt.recipe import Recipe, RuntimeName
from edgeopt.reporting.page import report_html
from edgeopt.results import RunResult, SpeedResult, TrialResult, to_json
from edgeopt.runtimes.apart import compare
from edgeopt.runtimes.child import Load
from edgeopt.runtimes.port import available
from edgeopt.samples import Array, stack
from edgeopt.scoring import load_metric
from edgeopt.search.best import BestSoFar
from edgeopt.search.budget import Budget
from edgeopt.search.choice import Demand
from edgeopt.search.costs import shortened
from edgeopt.search.course import course_for, without_effect
from edgeopt.search.explore import explore
from edgeopt.search.journal import Entry, Journal
from edgeopt.search.laboratory import Bench, Laboratory, Timer
from edgeopt.search.ladder import climb
from edgeopt.search.prospect import Prospect, look_ahead
from edgeopt.search.pruned import Limit, kept_for, with_pruned
from edgeopt.search.requests import NO_TIME, Answer
from edgeopt.search.requests import Request as Question
from edgeopt.search.workshop import Workshop
from edgeopt.sources import SplitData, read_splits
from edgeopt.stages import Findings, Original, Request, Setting
from edgeopt.targets import Target, check_targets, host_target
from edgeopt.timing import SCREENING, Plan, Times, estimate
from edgeopt_contract.bundle import Bundle, BundleContents
from edgeopt_contract.errors import MissingExtraError, UsageError
from edgeopt_contract.values import canonical_json, digest_of

__all__ = ["Outcome", "Watcher", "read_original", "run", "settle"]

_TIMED_SAMPLES = 8
_PRUNING = 0.5  # of what is left of the budget, at most
_FULLY, _SCREENED = 0.06, 0.02  # of the budget, at most, for one measurement
_EMULATED = 0.2  # of a target's share, at most, for the gate of one variant on an emulated CPU


class Watcher:
    """Hears what a run does; this one hears nothing. A command line shows it."""

    def step(self, words: str) -> None:
        """Hear what begins."""

    def trial(self, trial: TrialResult) -> None:
        """Hear what came of a recipe."""

    def begin(self, budget: Budget) -> None:
        """Hear what time there is, once at the beginning; ``budget`` goes on to tell what is spent of it."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of it; ``bundle`` is ``None`` unless the verdict is PASS."""

    result: RunResult
    bundle: Bundle | None


@dataclass(slots=True)
class _Run:
    """One run under way."""

    setting: Setting
    original: Original
    workshop: Workshop
    watcher: Watcher
    budget: Budget
    prospect: Prospect
    classes: Classes | None

    def find(self, target: Target, parts: int) -> Findings:
        """Search for the best variant for ``target``, the next of ``parts``, and certify it."""
        execution = execution_for(target, self.setting.host, self.setting.request.emulator)
        demand = self._demand()
        timed = _timed(self.setting, target)
        plan = self._within(self.setting.request.timing, _FULLY) if timed else None
        self._share(execution, parts, plan)
        searched = self._search(target, execution, demand)
        timer = None if plan is None else self._timer(plan)
        return certify(self.original, target, searched, self._tools(execution, demand, timer))

    def _share(self, execution: Execution, parts: int, plan: Plan | None) -> None:
        """Give the search its part of the budget; ``plan`` is that of the final timing."""
        emulated = execution.emulator is not None
        screening = None if plan is None else self._within(SCREENING, _SCREENED)
        self.budget.share(
            parts=parts,
            ends=self.prospect.ends(self.original, plan, self._emulated_seconds() if emulated else 0.0),
            writing=self.prospect.writing(self.original),
            costs=self.prospect.costs(screening, emulated=emulated),
        )

    def _within(self, plan: Plan, share: float) -> Plan:
        """Return ``plan`` with at most that ``share`` of the budget."""
        return plan if self.budget.seconds is None else shortened(plan, share * self.budget.seconds)

    def _emulated_seconds(self) -> float:
        """Return how long an emulated CPU may take for one variant."""
        asked, seconds = self.setting.request.emulator_seconds, self.budget.seconds
        return asked if seconds is None else min(asked, _EMULATED * seconds / len(self.setting.targets))

    def _tools(self, execution: Execution, demand: Demand, timer: Timer | None) -> Tools:
        return Tools(
            self.setting,
            self.workshop,
            execution,
            demand,
            timer,
            self.classes,
            self.watcher.step,
            self._emulated_seconds(),
        )

    def _demand(self) -> Demand:
        request, metric, samples = self.setting.request, self.setting.metric, self.original.splits.selection
        outputs = self.original.session.predict(samples)
        score, _ = metric.scores(outputs, outputs, [sample.label for sample in samples])
        return Demand(
            baseline=float(score.mean()),
            size_bytes=len(self.original.float.model),
            max_drop=request.max_drop,
            min_agreement=request.min_agreement,
        )

    def _search(self, target: Target, execution: Execution, demand: Demand) -> list[Entry]:
        request, splits = self.setting.request, self.original.splits
        tools = self._tools(execution, demand, None)
        bench = Bench(
            selection=splits.selection,
            calibration=splits.calibration,
            baseline=self.original.session.predict(splits.selection),
            metric=self.setting.metric,
            threads=request.threads,
            simulated=execution.kind is not ExecutionKind.NATIVE,
            timer=self._timer(self._within(SCREENING, _SCREENED)) if _timed(self.setting, target) else None,
            on_target=tools.predict,
        )
        laboratory = Laboratory(self.workshop, bench)
        folder = request.effort.journal
        best = None if folder is None else BestSoFar(folder / target.name, demand, self.workshop.build)
        course = course_for(self.original, target, demand, request.effort, timed=_timed(self.setting, target))

        def answer(question: Question) -> Answer:
            self.watcher.step(f"{target.name}, {question.rung}: {question.recipe.title}")
            return laboratory.answer(question)

        def hear(entry: Entry, *, replayed: bool) -> None:
            trial = entry.answer.trial
            if trial is not None:
                self.watcher.trial(trial)
                if best is not None:
                    best.hear(trial, more=replayed)

        journal = self._journal(target)
        if best is not None:
            best.hear(None, more=bool(journal and journal.recorded))
        return explore(climb(course), answer, journal, self.budget, hear)

    def _journal(self, target: Target) -> Journal | None:
        """Open the journal of the search for ``target``, if the search is to be remembered."""
        directory = self.setting.request.effort.journal
        if directory is None:
            return None
        return Journal.open(directory / f"{target.name}.jsonl", _fingerprint(self.setting, self.original, target))

    def _timer(self, plan: Plan) -> Timer:
        """Return what times a variant in turn with fp32; both are loaded afresh for each repetition."""
        feeds = [stack([sample]) for sample in self.original.splits.selection[:_TIMED_SAMPLES]]
        threads = self.setting.request.threads
        fp32 = Load(model=self.original.float.model, runtime=RuntimeName.ONNXRUNTIME, threads=threads)

        def timer(model: bytes, recipe: Recipe) -> SpeedResult:
            variant = Load(model=model, runtime=recipe.runtime, threads=threads)
            return _speed(compare((fp32, variant), feeds, plan))

        return timer


def run(request: Request, watcher: Watcher, begun: float | None = None) -> Outcome:
    """Do all of it. Raises errors of :mod:`edgeopt_contract.errors`.

    ``begun``: when the budget began to run, by ``time.monotonic``, if that was earlier.
    """
    budget = Budget(time.monotonic, request.effort.budget_seconds, begun)
    watcher.begin(budget)
    busy = cpu_times()
    check_output(request.output)
    setting, original, splits = read_original(settle(request), watcher.step)
    kept = None if request.pruning is None else kept_for(_kept(request), original, setting)
    pruning: tuple[str, ...] = ()
    if kept is not None:
        limit = Limit(_PRUNING * budget.left, watcher.step)
        original, pruning = with_pruned(original, splits, setting, kept, limit)
    workshop = Workshop(original.floats, original.splits.calibration, seed=request.seed, threads=request.threads)
    prospect = look_ahead(original, request.threads)
    under_way = _Run(setting, original, workshop, watcher, budget, prospect, _classes(original.splits, request))
    targets = setting.targets
    findings = [under_way.find(target, len(targets) - at) for at, target in enumerate(targets)]
    watcher.step("writing the result")
    unused = [without_effect(one, request.effort, timed=_timed(setting, one)) for one in targets]
    notes = (*pruning, *unused, *map(_left_out, findings), noise_note(busy, cpu_times()))
    measured = tuple(filter(None, notes))
    stopwatch = Stopwatch(datetime.now(UTC), budget.spent)
    return _write(setting, original, findings, _Measured(stopwatch, measured, kept))


def _kept(request: Request) -> Path:
    """Return where the pruned network is kept until the result is written. Raises :class:`UsageError`."""
    if request.effort.journal is None:
        raise UsageError("pruning takes long, and needs a journal directory to resume from: set Effort.journal")
    return request.effort.journal


@dataclass(frozen=True, slots=True)
class _Measured:
    """What another run would not find again: the time, ``notes`` on it; and where the pruned network is ``kept``."""

    stopwatch: Stopwatch
    notes: tuple[str, ...]
    kept: Path | None


def _write(setting: Setting, original: Original, findings: Sequence[Findings], measured: _Measured) -> Outcome:
    contents = compose_bundle(setting, original, findings)
    result = compose_result(setting, original, findings, measured.stopwatch)
    if contents is not None:
        contents = with_evidence(contents, evidence_files(result, contents))
    result = replace(result, notes=(*result.notes, *measured.notes))  # the evidence has none that do not repeat
    beside = {
        REPORT_JSON: to_json(result),
        REPORT_HTML: report_html(result),
        PERFORMANCE: performance_report(result),
        **_pruned_files(measured.kept, contents),
    }
    return Outcome(result, write_run(setting.request.output, contents, beside))


def _pruned_files(kept: Path | None, contents: BundleContents | None) -> dict[str, bytes]:
    """Return the pruned network's weights and recipe if a variant was made of it: they rebuild it."""
    recipes = {} if contents is None else contents.lineage.get("recipes", {})
    if kept is None or not any(recipe["pruned"] for recipe in recipes.values()):
        return {}
    return {name: (kept / name).read_bytes() for name in (WEIGHTS, RECIPE)}


def read_original(setting: Setting, on_step: Callable[[str], None]) -> tuple[Setting, Original, SplitData]:
    """Read the model and the data and make the float model ready.

    The setting comes back with the data's labels, and with it the data as they were read.
    """
    request = setting.request
    on_step("loading the model")
    model = load_model(request.model)
    on_step("reading the data")
    splits = read_splits(request.data, request.seed, setting.metric, _shape(model, setting))
    setting = setting.labelled(splits.classes)
    on_step("exporting the model")
    original = make_ready(model, splits, setting)
    _check_labels(request.labels, next(iter(original.baseline.values())))
    return setting, original, splits


def settle(request: Request) -> Setting:
    """Return what follows from ``request``, reading what it names. Raises :class:`UsageError`.

    That includes :class:`MissingExtraError` for a runtime that is asked for and not installed.
    Without a target it is this machine with ONNX Runtime, whatever else happens to be installed here.
    """
    check_targets(request.targets)
    for runtime in request.effort.runtimes:
        if runtime not in available():
            raise MissingExtraError(str(runtime), str(runtime))
    host = host_target()
    plain = replace(host, runtimes={RuntimeName.ONNXRUNTIME: host.runtimes[RuntimeName.ONNXRUNTIME]})
    steps = Preprocessing() if request.preprocess is None else read_preprocessing(request.preprocess)
    return Setting(
        request,
        host,
        request.targets or (host if request.effort.runtimes else plain,),
        load_metric(request.metric),
        steps,
    )


def _timed(setting: Setting, target: Target) -> bool:
    """Tell whether the times of ``target`` can be measured on this machine."""
    return target.times_like(setting.host)


def _left_out(found: Findings) -> str:
    """Return what the search for a target had no time for, in words; nothing if it went to its end."""
    rungs = dict.fromkeys(entry.request.rung for entry in found.searched if entry.answer == NO_TIME)
    if not rungs:
        return ""
    return f"the budget left no time for all of the search for {found.target.name}: {', '.join(rungs)}"


def _shape(model: Model, setting: Setting) -> Shape | None:
    """Return the shape that files are read as: the model's, unless steps in front of it take another."""
    return None if setting.steps.inputs else model.input_shape()


def _check_labels(labels: Sequence[str], scores: Array) -> None:
    """Raise :class:`UsageError` when the user's ``labels`` are not as many as ``scores`` (n x classes) has classes."""
    classes = scores.shape[1] if scores.ndim == 2 and scores.dtype.kind == "f" else 1  # else it has no score for each
    if labels and classes > 1 and len(labels) != classes:
        raise UsageError(
            f"--labels names {len(labels)} classes, the model has {classes}: name all, in the order of its scores"
        )


def _classes(splits: SplitData, request: Request) -> Classes | None:
    """Return the classes if the worst one is to be judged. Raises :class:`DataError` when the labels are none."""
    if request.max_class_drop is None:
        return None
    certification = class_labels([sample.label for sample in splits.certification])
    others = class_labels([sample.label for sample in (*splits.calibration, *splits.selection)])
    return Classes(certification, tuple(sorted({*certification.tolist(), *others.tolist()})))


def _fingerprint(setting: Setting, original: Original, target: Target) -> str:
    """Return a digest of everything that the answers of a search depend on."""
    request = setting.request
    decides = {
        "model": [digest_of(one.model) for one in original.floats.values()],
        "splits": {str(split): root for split, root in original.splits.roots.items()},
        "target": asdict(target),
        "runtimes": available(),
        "metric": request.metric,
        "limits": [request.max_drop, request.min_agreement],
        "seed": request.seed,
        "threads": request.threads,
    }
    return digest_of(canonical_json(decides))


def _speed(times: Times) -> SpeedResult:
    speed = estimate(times)
    return SpeedResult(
        baseline_ms=speed.baseline_ms,
        variant_ms=speed.variant_ms,
        ratio=speed.ratio,
        ratio_low=speed.ratio_low,
        ratio_high=speed.ratio_high,
        ratios=speed.ratios,
        rounds=speed.rounds,
    )
