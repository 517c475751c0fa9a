"""Looking ahead: how long fp32 takes here, and from that what must be kept back of a budget.

It measures the float model once, in a moment. Example::

    prospect = look_ahead(original, threads=1)
    prospect.ends(original, plan, emulated_seconds=0.0)          # seconds that certification will take
"""

from __future__ import annotations

import time
from dataclasses import dataclass

from edgeopt.nodes import all_nodes, parsed
from edgeopt.original import STAGE_SAMPLES
from edgeopt.recipe import RuntimeName
from edgeopt.runtimes.port import open_session
from edgeopt.search.costs import Costs, timing_seconds
from edgeopt.stages import Original
from edgeopt.timing import Plan

__all__ = ["Prospect", "look_ahead"]

_PROBES = 64
_HEAVY = ("Conv", "ConvTranspose", "MatMul", "Gemm", "LSTM", "GRU")
_SHIPS = 2  # variants: the best, and one for devices that lack its runtime
_TIMED = 2  # variants, likely: these two, or one and another that is refused
_PAPERS = 3.0  # seconds: reports, golden outputs, writing


@dataclass(frozen=True, slots=True, kw_only=True)
class Prospect:
    """Seconds for fp32 to ``answer`` one sample and to ``load``; how many ``layers`` it has that int8 is for."""

    answer: float
    load: float
    layers: int

    def costs(self, screening: Plan | None, *, emulated: bool) -> Costs:
        """Return what steps of a search take that times each variant by ``screening`` (``None``: not at all)."""
        timing = 0.0 if screening is None else timing_seconds(screening, self.answer, self.load)
        return Costs(answer=self.answer, load=self.load, layers=self.layers, timing=timing, emulated=emulated)

    def ends(self, original: Original, timing: Plan | None, emulated_seconds: float) -> float:
        """Return how long the end takes for one target: the timing in full, the gate, the stages.

        ``emulated_seconds``: how long an emulated CPU may take for one variant; zero without one.
        """
        samples = len(original.splits.certification) + 2 * STAGE_SAMPLES
        timed = 0.0 if timing is None else _TIMED * timing_seconds(timing, self.answer, self.load)
        return timed + _SHIPS * (samples * self.answer + emulated_seconds)

    def writing(self, original: Original) -> float:
        """Return how long it takes after all targets: the reference profile, the golden outputs, the papers."""
        profiled = len(original.splits.calibration) + len(original.splits.selection)
        return _PAPERS + profiled * self.answer


def look_ahead(original: Original, threads: int) -> Prospect:
    """Load the float model anew and let it answer some samples of the selection split."""
    model, probes = original.float.model, original.splits.selection[:_PROBES]
    begun = time.monotonic()
    session = open_session(model, RuntimeName.ONNXRUNTIME, threads=threads)
    loaded = time.monotonic()
    session.predict(probes)
    answered = time.monotonic()
    return Prospect(
        answer=(answered - loaded) / len(probes),
        load=loaded - begun,
        layers=sum(node.op_type in _HEAVY for node in all_nodes(parsed(model).graph)),
    )
