"""How much faster one network is than another: both as ONNX, prepared, and run in turn by ONNX Runtime.

Example::

    timer = timer_on(samples, threads=1)
    timer(compiled(original, samples[0]), compiled(pruned, samples[0]), Plan()).ratio
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgeopt.data import fit_to
from edgeopt.graph import prepare
from edgeopt.models import TorchModel
from edgeopt.recipe import RuntimeName
from edgeopt.runtimes.port import open_session
from edgeopt.samples import Sample, stack
from edgeopt.timing import Plan, Run, Speed, estimate, measure

if TYPE_CHECKING:
    from torch import nn

__all__ = ["Timer", "compiled", "timer_on"]

_TIMED_SAMPLES = 8

Timer = Callable[[bytes, bytes, Plan], Speed]  # (original, pruned, how long) -> the ratio of their times


def compiled(network: nn.Module, sample: Sample) -> bytes:
    """Return ``network`` as the ONNX that a device would run. Raises :class:`ModelError`."""
    return prepare(TorchModel(network).to_onnx(sample)).model


@dataclass(frozen=True, slots=True)
class _Stopwatch:
    samples: Sequence[Sample]
    threads: int
    clock: Callable[[], float]

    def __call__(self, original: bytes, pruned: bytes, plan: Plan) -> Speed:
        """Load both afresh for each repetition, now one first and now the other, and run them in turn."""
        models = (original, pruned)

        def load(repetition: int) -> list[tuple[Run, Run]]:
            order = (0, 1) if repetition % 2 else (1, 0)
            sessions = {at: open_session(models[at], RuntimeName.ONNXRUNTIME, threads=self.threads) for at in order}
            fitted = fit_to(self.samples, sessions[0].inputs)
            feeds = [stack([sample]) for sample in fitted]
            return [(sessions[0].call_on(one), sessions[1].call_on(one)) for one in feeds]

        return estimate(measure(load, self.clock, plan))


def timer_on(samples: Sequence[Sample], threads: int, clock: Callable[[], float] = time.perf_counter) -> Timer:
    """Return what times two ONNX models on a few of ``samples`` with ``threads`` of ONNX Runtime."""
    return _Stopwatch(samples[:_TIMED_SAMPLES], threads, clock)
