"""The recovery ladder: which recipe to try next, given what the ones before it gave.

From cheap to dear: one-dimensional convolutions written in two dimensions, on which everything else builds if that is
faster; what suits the model's family and the target's CPU; other calibrators; where 7-bit weights are needed only;
equalization, corrected biases and learned rounding, each kept if it brings the outputs nearer to fp32's;
weights only, for their size; the other runtimes; nodes whose int8 form is slower, and, on the quickest runtime, the
most sensitive layers, left in float; the best of all this on the runtimes that have not had it, and on the pruned
network. The rungs that only recover accuracy are left out as soon as a variant keeps it, unless the search is thorough.
Pure: a generator that asks (:mod:`edgeopt.search.requests`) and is told. Example::

    ladder = climb(course)
    request = next(ladder)
    request = ladder.send(laboratory.answer(request))
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable
from dataclasses import dataclass, field, replace

from edgeopt.recipe import Calibrator, Precision, Recipe, RuntimeName
from edgeopt.results import TrialResult
from edgeopt.search.choice import Demand, faster, ranked
from edgeopt.search.requests import Answer, Kind, Request

__all__ = ["Course", "climb"]

_BASELINE = Recipe(precision=Precision.FP32)
_BETTER = 0.99  # of the error before, at most: a rung that gains less than a hundredth is noise
_BEST = 3  # recipes are tried on every runtime, and on the pruned network

_RECOVERY: tuple[tuple[str, Callable[[Recipe], Recipe]], ...] = (
    ("equalization", lambda recipe: replace(recipe, equalized=True)),
    ("bias correction", lambda recipe: replace(recipe, bias_corrected=True)),
    ("learned rounding", lambda recipe: replace(recipe, rounding_learned=True)),
)

Steps = Generator[Request, Answer, None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Course:
    """What the ladder may try. ``first``: recipes for the model's family and the target's CPU, cheapest first.

    ``planar``: fp32 and the first recipes once more, with planar convolutions; empty for a model that has none.
    ``timed``: the target's times can be measured here. ``reducible``: weights that may overflow 16-bit sums, empty
    where the CPU has none. ``calibrators``: those that are worth trying. ``runtimes``: those of the target.
    ``pruned``: there is a pruned network too. ``quantizes``: int8 is wanted at all.
    """

    demand: Demand
    first: tuple[Recipe, ...]
    timed: bool
    planar: tuple[Recipe, ...] = ()
    reducible: tuple[str, ...] = ()
    calibrators: tuple[Calibrator, ...] = tuple(Calibrator)
    runtimes: tuple[RuntimeName, ...] = (RuntimeName.ONNXRUNTIME,)
    pruned: bool = False
    quantizes: bool = True
    thorough: bool = False

    @property
    def others(self) -> tuple[RuntimeName, ...]:
        """The runtimes beside ONNX Runtime."""
        return tuple(runtime for runtime in self.runtimes if runtime is not RuntimeName.ONNXRUNTIME)


@dataclass(slots=True)
class _Climb:
    """What is known so far."""

    course: Course
    trials: list[TrialResult] = field(default_factory=list)
    planar: bool = False  # planar convolutions were surely faster than those of the original

    def plain(self, precision: Precision) -> Recipe:
        """Return the recipe of a number type and nothing else, for the graph that all builds on."""
        return Recipe(precision=precision, planar=self.planar)

    def take(self, rung: str, recipe: Recipe) -> Generator[Request, Answer, TrialResult | None]:
        """Ask for ``recipe`` unless it was tried; return its trial if it worked."""
        known = next((trial for trial in self.trials if trial.recipe == recipe), None)
        if known is None:
            answer = yield Request(kind=Kind.TRY, rung=rung, recipe=recipe)
            known = answer.trial
            if known is None:
                return None
            self.trials.append(known)
        return known if known.problem is None else None

    @property
    def accurate(self) -> bool:
        """Whether a static int8 variant keeps accuracy."""
        return any(_is_static(trial) and self.course.demand.keeps(trial) for trial in self.trials)

    def keeps_on(self, runtime: RuntimeName) -> bool:
        """Whether an int8 variant keeps accuracy on ``runtime``."""
        return any(
            trial.recipe.precision is Precision.INT8
            and trial.recipe.runtime is runtime
            and self.course.demand.keeps(trial)
            for trial in self.trials
        )

    def quickest(self, leader: TrialResult | None) -> RuntimeName:
        """Return the runtime that is surely the fastest with the leader's recipe: ONNX Runtime unless another is."""
        if leader is None or leader.speed is None:
            return RuntimeName.ONNXRUNTIME
        same = [trial for trial in self.trials if _elsewhere(trial.recipe) == leader.recipe and trial.speed is not None]
        best = max(same, key=lambda trial: trial.speed.ratio_low if trial.speed else 0.0, default=leader)
        surely = best.speed is not None and best.speed.ratio_low > leader.speed.ratio_high
        return best.recipe.runtime if surely else leader.recipe.runtime

    @property
    def quick(self) -> bool:
        """Whether a static int8 variant is faster than fp32."""
        return any(_is_static(trial) and faster(trial.speed) for trial in self.trials)

    @property
    def kept(self) -> bool:
        """Whether a variant was found that keeps accuracy and is faster, where that can be measured."""
        best = ranked(self.trials, self.course.demand)
        return bool(best) and (not self.course.timed or faster(best[0].speed))

    def leader(self) -> TrialResult | None:
        """Return the static int8 variant to go on from: the best that keeps accuracy, else the nearest to fp32."""
        static = [trial for trial in self.trials if _is_static(trial)]
        best = ranked(static, self.course.demand)
        if best:
            return best[0]
        return min(static, key=_error, default=None)


def climb(course: Course) -> Steps:
    """Yield requests until there is nothing more to try."""
    state = _Climb(course)
    yield from _planar(state)
    if course.quantizes:
        for recipe in course.planar[1:] if state.planar else course.first:
            yield from state.take("first recipes", recipe)
        yield from _calibrators(state)
        yield from _selective_range(state)
        yield from _recovery(state)
        yield from _size_only(state)
    yield from _by_runtime(state, _to_compare(state), course.others)
    if course.quantizes:
        yield from _islands(state)
        yield from _in_float(state)
    if course.others:
        yield from _by_runtime(state, _best(state), course.runtimes)
    yield from _pruned(state)


def _planar(state: _Climb) -> Steps:
    """Write one-dimensional convolutions in two dimensions, for all that follows if that is faster."""
    if not state.course.planar or not state.course.timed:
        return
    trial = yield from state.take("planar convolutions", state.course.planar[0])
    state.planar = trial is not None and faster(trial.speed)


def _calibrators(state: _Climb) -> Steps:
    leader = state.leader()
    if leader is None or (state.accurate and not state.course.thorough):
        return
    for calibrator in state.course.calibrators:
        yield from state.take("calibrator", replace(leader.recipe, calibrator=calibrator))


def _selective_range(state: _Climb) -> Steps:
    """Ask which weights really saturate, and reduce only those."""
    leader = state.leader()
    if leader is None or not state.course.reducible or (state.accurate and not state.course.thorough):
        return
    full = replace(leader.recipe, reduced_weights=())
    answer = yield Request(kind=Kind.SATURATION, rung="selective range", recipe=full)
    if answer.problem is None:
        yield from state.take("selective range", replace(full, reduced_weights=answer.weights))


def _recovery(state: _Climb) -> Steps:
    """Add the rungs that cost no time on the device, one on the other; each stays only if it helps."""
    if state.accurate and not state.course.thorough:
        return
    best = state.leader()
    for rung, changed in _RECOVERY:
        if best is None:
            return
        trial = yield from state.take(rung, changed(best.recipe))
        if trial is not None and _error(trial) < _BETTER * _error(best):
            best = trial


def _islands(state: _Climb) -> Steps:
    """Leave in float what int8 makes slower."""
    leader = state.leader()
    if leader is None or not state.course.timed or (state.quick and not state.course.thorough):
        return
    answer = yield Request(kind=Kind.ISLANDS, rung="islands", recipe=leader.recipe)
    together = {node for nodes in answer.node_sets for node in nodes}
    if together:
        yield from state.take("islands", _with_float(leader.recipe, together))


def _in_float(state: _Climb) -> Steps:
    """Leave the most sensitive layers in float, more and more of them, on the runtime that is quickest."""
    leader = state.leader()
    runtime = state.quickest(leader)
    if leader is None or (state.keeps_on(runtime) and not state.course.thorough):
        return
    answer = yield Request(kind=Kind.RANK, rung="layers in float", recipe=leader.recipe)
    for nodes in answer.node_sets:
        yield from state.take("layers in float", replace(_with_float(leader.recipe, nodes), runtime=runtime))
        if state.keeps_on(runtime) and not state.course.thorough:
            return


def _size_only(state: _Climb) -> Steps:
    """Where int8 does not make it faster, its weights still make it smaller."""
    if not state.kept:
        yield from state.take("weights only", state.plain(Precision.INT8_WEIGHTS))


def _to_compare(state: _Climb) -> list[Recipe]:
    """Return what tells runtimes apart: fp32, weights only, dynamic ranges, and the best static recipe so far."""
    recipes = [_BASELINE, state.plain(Precision.FP32)]
    if state.course.quantizes:
        recipes += [state.plain(Precision.INT8_WEIGHTS), state.plain(Precision.INT8_DYNAMIC)]
    leader = state.leader()
    if leader is not None:
        recipes += [leader.recipe, replace(leader.recipe, float_nodes=())]
    return recipes


def _best(state: _Climb) -> list[Recipe]:
    """Return the recipes that ship as far as is known, best first."""
    return [trial.recipe for trial in ranked(state.trials, state.course.demand)][:_BEST]


def _by_runtime(state: _Climb, recipes: Iterable[Recipe], runtimes: Iterable[RuntimeName]) -> Steps:
    """Try ``recipes`` on each of ``runtimes``, but for the baseline itself."""
    for runtime in runtimes:
        for recipe in recipes:
            planar = recipe.planar and runtime is not RuntimeName.LITERT  # which starts from the module
            wanted = replace(recipe, runtime=runtime, planar=planar)
            if wanted != _BASELINE:
                yield from state.take(f"by {runtime}", wanted)


def _pruned(state: _Climb) -> Steps:
    """Try fp32 and the best recipes on the pruned network."""
    if not state.course.pruned:
        return
    leader = state.leader()
    plain = [] if leader is None else [replace(leader.recipe, float_nodes=())]
    for recipe in dict.fromkeys([state.plain(Precision.FP32), *_best(state), *plain]):
        yield from state.take("pruned", replace(recipe, pruned=True))


def _with_float(recipe: Recipe, nodes: Iterable[str]) -> Recipe:
    """Return ``recipe`` with ``nodes`` in float as well."""
    return replace(recipe, float_nodes=tuple(sorted({*recipe.float_nodes, *nodes})))


def _elsewhere(recipe: Recipe) -> Recipe:
    """Return ``recipe`` as ONNX Runtime would run it."""
    return replace(recipe, runtime=RuntimeName.ONNXRUNTIME)


def _is_static(trial: TrialResult) -> bool:
    recipe = trial.recipe
    ours = recipe.precision is Precision.INT8 and recipe.runtime is RuntimeName.ONNXRUNTIME and not recipe.pruned
    return ours and trial.problem is None


def _error(trial: TrialResult) -> float:
    return trial.error if trial.error is not None else float("inf")
