"""The recovery ladder: which recipe to try next, given what the ones before it gave.

From cheap to dear: what suits the model's family and the target's CPU; other calibrators; where 7-bit weights are
needed only; equalization, corrected biases and learned rounding, each kept if it brings the outputs nearer to fp32's;
nodes whose int8 form is slower, and the most sensitive layers, left in float; weights only, for their size; the same on
the other runtimes; the same on the pruned network. The rungs that only recover accuracy are left out as soon as a
variant keeps it, unless the search is thorough. Pure: a generator that asks (:mod:`edgeopt.search.requests`) and is
told. Example::

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

_BETTER = 0.99  # of the error before, at most: a rung that gains less than a hundredth is noise
_PRUNED = 3  # of the best recipes are tried on the pruned network

_RECOVERY: tuple[tuple[str, Callable[[Recipe], Recipe]], ...] = (
    ("equalization", lambda recipe: replace(recipe, equalized=True)),
    ("bias correction", lambda recipe: replace(recipe, bias_corrected=True)),
    ("learned rounding", lambda recipe: replace(recipe, rounding_learned=True)),
)

Steps = Generator[Request, Answer, None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Course:
    """What the ladder may try. ``first``: recipes for the model's family and the target's CPU, cheapest first.

    ``timed``: the target's times can be measured here. ``reducible``: weights that may overflow 16-bit sums, empty
    where the CPU has none. ``calibrators``: those that are worth trying. ``runtimes``: those of the target.
    ``pruned``: there is a pruned network too. ``quantizes``: int8 is wanted at all.
    """

    demand: Demand
    first: tuple[Recipe, ...]
    timed: bool
    reducible: tuple[str, ...] = ()
    calibrators: tuple[Calibrator, ...] = tuple(Calibrator)
    runtimes: tuple[RuntimeName, ...] = (RuntimeName.ONNXRUNTIME,)
    pruned: bool = False
    quantizes: bool = True
    thorough: bool = False


@dataclass(slots=True)
class _Climb:
    """What is known so far."""

    course: Course
    trials: list[TrialResult] = field(default_factory=list)

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
    if course.quantizes:
        for recipe in course.first:
            yield from state.take("first recipes", recipe)
        yield from _calibrators(state)
        yield from _selective_range(state)
        yield from _recovery(state)
        yield from _islands(state)
        yield from _in_float(state)
        yield from _size_only(state)
    yield from _runtimes(state)
    yield from _pruned(state)


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
    """Leave the most sensitive layers in float, more and more of them."""
    leader = state.leader()
    if leader is None or (state.accurate and not state.course.thorough):
        return
    answer = yield Request(kind=Kind.RANK, rung="layers in float", recipe=leader.recipe)
    for nodes in answer.node_sets:
        yield from state.take("layers in float", _with_float(leader.recipe, nodes))
        if state.accurate and not state.course.thorough:
            return


def _size_only(state: _Climb) -> Steps:
    """Where int8 does not make it faster, its weights still make it smaller."""
    if not state.kept:
        yield from state.take("weights only", Recipe(precision=Precision.INT8_WEIGHTS))


def _runtimes(state: _Climb) -> Steps:
    """Try the other runtimes: fp32, weights only, and the best static recipe, with and without layers in float."""
    others = [runtime for runtime in state.course.runtimes if runtime is not RuntimeName.ONNXRUNTIME]
    recipes = [Recipe(precision=Precision.FP32)]
    if state.course.quantizes:
        recipes.append(Recipe(precision=Precision.INT8_WEIGHTS))
    leader = state.leader()
    if leader is not None:
        recipes += [leader.recipe, replace(leader.recipe, float_nodes=())]
    for runtime in others:
        for recipe in dict.fromkeys(recipes):
            yield from state.take(f"by {runtime}", replace(recipe, runtime=runtime))


def _pruned(state: _Climb) -> Steps:
    """Try fp32 and the best recipes on the pruned network."""
    if not state.course.pruned:
        return
    best = [trial.recipe for trial in ranked(state.trials, state.course.demand)][:_PRUNED]
    leader = state.leader()
    plain = [] if leader is None else [replace(leader.recipe, float_nodes=())]
    for recipe in dict.fromkeys([Recipe(precision=Precision.FP32), *best, *plain]):
        yield from state.take("pruned", replace(recipe, pruned=True))


def _with_float(recipe: Recipe, nodes: Iterable[str]) -> Recipe:
    """Return ``recipe`` with ``nodes`` in float as well."""
    return replace(recipe, float_nodes=tuple(sorted({*recipe.float_nodes, *nodes})))


def _is_static(trial: TrialResult) -> bool:
    recipe = trial.recipe
    ours = recipe.precision is Precision.INT8 and recipe.runtime is RuntimeName.ONNXRUNTIME and not recipe.pruned
    return ours and trial.problem is None


def _error(trial: TrialResult) -> float:
    return trial.error if trial.error is not None else float("inf")
