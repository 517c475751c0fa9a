"""Answering the ladder for one target: build, score on the selection split, time in turn with fp32.

What cannot be built or run is an answer as well. It decides nothing: that is :mod:`edgeopt.search.ladder`. Example::

    laboratory = Laboratory(workshop, bench)
    laboratory.answer(request).trial
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from edgeopt.graph import op_types
from edgeopt.metrics import output_error
from edgeopt.quantization.islands import islands
from edgeopt.quantization.kernels import dataflow, measure_nodes, saved_ms
from edgeopt.quantization.mixed import float_node_sets
from edgeopt.quantization.sensitivity import rank
from edgeopt.recipe import Precision, Recipe, RuntimeName
from edgeopt.results import SpeedResult, TrialResult
from edgeopt.runtimes.apart import open_apart
from edgeopt.runtimes.port import Predictor, open_session
from edgeopt.samples import Array, Sample
from edgeopt.saturation import saturating_layers, selective_reduction
from edgeopt.scoring import Metric
from edgeopt.search.requests import Answer, Kind, Request
from edgeopt.search.workshop import Workshop
from edgeopt_contract.errors import EdgeoptError, ModelError

__all__ = ["Bench", "Laboratory", "Timer"]

Timer = Callable[[bytes, Recipe], SpeedResult]

_RANKED = 16  # samples for ranking layers: each costs one inference for each layer
_PROBES = 64  # samples for what is lost to saturation, and for times by node
_LOST = 0.02  # standard deviations of the outputs that saturation may cost beyond what is lost anyway
_SATURATION_PROBES = 16  # for finding where: every product is looked at, so this is slow


@dataclass(frozen=True, slots=True, kw_only=True)
class Bench:
    """What the laboratory works with.

    ``baseline``: fp32's outputs on ``selection``. ``timer``: times a variant against fp32, ``None`` where the target's
    times cannot be had here. ``on_target``: outputs of a variant on the target's kind of CPU, emulated if need be.
    ``simulated``: elsewhere int8 is computed as what it stands for, since this is another CPU.
    """

    selection: Sequence[Sample]
    calibration: Sequence[Sample]
    baseline: Mapping[str, Array]
    metric: Metric
    threads: int
    simulated: bool
    timer: Timer | None
    on_target: Callable[[bytes, Recipe, Sequence[Sample]], Mapping[str, Array]]


class Laboratory:
    """Answers requests with the variants that its workshop builds."""

    def __init__(self, workshop: Workshop, bench: Bench) -> None:
        self._workshop = workshop
        self._bench = bench

    def answer(self, request: Request) -> Answer:
        """Return what came of ``request``; a variant that cannot be had is an answer with its problem."""
        match request.kind:
            case Kind.TRY:
                return Answer(trial=self._try(request))
            case Kind.RANK:
                return self._asked(request, self._rank)
            case Kind.ISLANDS:
                return self._asked(request, self._islands)
            case Kind.SATURATION:
                return self._asked(request, self._saturation)

    def open(self, model: bytes, recipe: Recipe) -> Predictor:
        """Load a variant so that it computes what the target will."""
        return open_apart(model, recipe.runtime, threads=self._bench.threads, simulated=self._bench.simulated)

    def _try(self, request: Request) -> TrialResult:
        begun = time.monotonic()
        recipe, bench = request.recipe, self._bench
        try:
            model = self._workshop.build(recipe)
            _check_integers(model, recipe)
            outputs = self.open(model, recipe).predict(bench.selection)
            speed = None if bench.timer is None else bench.timer(model, recipe)
        except EdgeoptError as error:
            return TrialResult(rung=request.rung, title=recipe.title, recipe=recipe, problem=str(error))
        _, scores = bench.metric.scores(bench.baseline, outputs, [sample.label for sample in bench.selection])
        return TrialResult(
            rung=request.rung,
            title=recipe.title,
            recipe=recipe,
            agreement=float(bench.metric.agreement(bench.baseline, outputs).mean()),
            score=float(scores.mean()),
            error=output_error(bench.baseline, outputs),
            size_bytes=len(model),
            speed=speed,
            seconds=time.monotonic() - begun,
        )

    def _asked(self, request: Request, ask: Callable[[bytes, Recipe], Answer]) -> Answer:
        """Ask about a variant and the float graph that it is the int8 form of."""
        try:
            return ask(self._workshop.source_of(request.recipe), request.recipe)
        except EdgeoptError as error:
            return Answer(problem=str(error))

    def _rank(self, original: bytes, recipe: Recipe) -> Answer:
        variant, probes = self._workshop.build(recipe), self._bench.calibration[:_RANKED]
        timed = self._bench.timer is not None
        saved = saved_ms(original, variant, probes, threads=self._bench.threads) if timed else None
        ranking = rank(original, variant, probes, saved)
        return Answer(ranking=ranking, node_sets=float_node_sets(ranking, dataflow(original, probes[0])))

    def _islands(self, original: bytes, recipe: Recipe) -> Answer:
        probes = self._bench.selection[:_PROBES]
        models = (original, self._workshop.build(recipe))
        before, after = measure_nodes(original, models, probes, threads=self._bench.threads)
        return Answer(node_sets=islands(before, after, dataflow(original, probes[0])))

    def _saturation(self, original: bytes, recipe: Recipe) -> Answer:
        """Find the fewest weights that must use 7 bits for the target to compute what the integers stand for."""
        probes = self._bench.calibration[:_PROBES]
        build = self._workshop.build

        def lost(variant: bytes) -> float:
            exact = open_session(variant, recipe.runtime, threads=self._bench.threads, simulated=True)
            return output_error(exact.predict(probes), self._bench.on_target(variant, recipe, probes))

        layers = saturating_layers(build(recipe), original, probes[:_SATURATION_PROBES])
        reduction = selective_reduction(
            layers, lambda weights: build(replace(recipe, reduced_weights=weights)), lost, _LOST
        )
        return Answer(weights=reduction.weights)


def _check_integers(model: bytes, recipe: Recipe) -> None:
    """Raise :class:`ModelError` for an int8 variant that has nothing in int8: it would be fp32 by another name."""
    onnx = recipe.runtime is not RuntimeName.LITERT
    if onnx and recipe.precision is Precision.INT8 and "QuantizeLinear" not in op_types(model):
        raise ModelError("with these nodes in float, nothing is left in int8")
