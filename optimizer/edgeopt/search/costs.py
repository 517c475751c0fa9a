"""What a step of a search is likely to take before it was tried, and what has to be kept back for its end.

Everything is told in a few figures that take a moment to measure: how long fp32 takes to load and to answer. The
multiples of these were read off searches on EfficientNet-Lite0 and on the digits of the examples; a guess by half or
double is good enough to know what not to begin, and a request of a kind that was seen is judged by what it took.
Pure. Example::

    costs = Costs(answer=0.012, load=0.1, layers=50, timing=6.0)
    costs.of(Request(kind=Kind.RANK, rung="layers in float", recipe=recipe))         # seconds
"""

from __future__ import annotations

from dataclasses import dataclass

from edgeopt.recipe import RuntimeName
from edgeopt.search.requests import Kind, Request
from edgeopt.timing import Plan

__all__ = ["Costs", "kind_of", "shortened", "timing_seconds"]

_PROBES = 64  # the samples that a probe of the laboratory uses
_TRY = 8  # in passes of the probes: build, check, score
_ROUNDING = 45
_EQUALIZATION = 15  # another calibration
_RANK = 4  # for each layer
_ISLANDS = 10
_SATURATION = 40
_EMULATED = 600  # the same with the probes on an emulated CPU, several times
_FIRST_OPENVINO = 3.0  # seconds: importing and compiling
_FIRST_LITERT = 25.0  # seconds: another exporter
_RUNS = 16  # of a pair of models on the eight samples that are timed, and in a round


def kind_of(request: Request) -> tuple[Kind, RuntimeName, bool, bool]:
    """Return what requests that take about as long have in common."""
    recipe = request.recipe
    return request.kind, recipe.runtime, recipe.equalized, recipe.rounding_learned


def timing_seconds(plan: Plan, answer: float, load: float) -> float:
    """Return about how many seconds timing a variant by ``plan`` takes; ``answer`` and ``load`` are one model's."""
    warm = plan.repetitions * plan.warm_up * _RUNS * answer
    rounds = plan.repetitions * plan.least_rounds * _RUNS / 2 * answer
    return warm + max(plan.seconds, rounds) + plan.repetitions * 2 * load


def shortened(plan: Plan, seconds: float) -> Plan:
    """Return ``plan`` with at most ``seconds`` of measuring; as many repetitions, of which the interval is made."""
    return Plan(
        seconds=min(plan.seconds, seconds),
        repetitions=plan.repetitions,
        warm_up=plan.warm_up,
        least_rounds=plan.least_rounds,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Costs:
    """Seconds for fp32 to ``answer`` one sample and to ``load``, and for ``timing`` a variant; the number of layers."""

    answer: float
    load: float
    layers: int
    timing: float
    emulated: bool = False

    def of(self, request: Request) -> float:
        """Return about how many seconds ``request`` takes the first time."""
        probes, recipe = _PROBES * self.answer + self.load, request.recipe
        match request.kind:
            case Kind.RANK:
                return _RANK * self.layers * probes
            case Kind.ISLANDS:
                return _ISLANDS * probes
            case Kind.SATURATION:
                return (_EMULATED if self.emulated else _SATURATION) * probes
        first = {RuntimeName.OPENVINO: _FIRST_OPENVINO, RuntimeName.LITERT: _FIRST_LITERT}.get(recipe.runtime, 0.0)
        extra = _ROUNDING * recipe.rounding_learned + _EQUALIZATION * recipe.equalized
        return self.timing + (_TRY + extra) * probes + first
