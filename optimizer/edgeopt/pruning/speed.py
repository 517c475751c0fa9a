"""How much faster one network is than another: both as ONNX, prepared, and run in turn by ONNX Runtime.

Example::

    bench = OnnxBench(samples, threads=1)
    bench.time(bench.compiled(original), bench.compiled(pruned), Plan()).ratio
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Protocol

from edgeopt.data import fit_to
from edgeopt.graph import prepare
from edgeopt.models import TorchModel
from edgeopt.recipe import RuntimeName
from edgeopt.runtimes.port import open_session
from edgeopt.samples import Sample, stack
from edgeopt.timing import Plan, Speed, estimate, loader, measure

if TYPE_CHECKING:
    from torch import nn

__all__ = ["Bench", "OnnxBench"]

_TIMED_SAMPLES = 8


class Bench(Protocol):
    """What makes networks ready to run, and times two of them."""

    def compiled(self, network: nn.Module) -> bytes:
        """Return ``network`` as the ONNX that a device would run. Raises :class:`ModelError`."""

    def time(self, original: bytes, pruned: bytes, plan: Plan) -> Speed:
        """Run both in turn and return the ratio of their times."""


class OnnxBench:
    """ONNX Runtime with a number of threads, on a few of ``samples``; ``clock`` gives seconds."""

    def __init__(self, samples: Sequence[Sample], threads: int, clock: Callable[[], float] = time.perf_counter) -> None:
        self._samples, self._threads, self._clock = samples[:_TIMED_SAMPLES], threads, clock

    def compiled(self, network: nn.Module) -> bytes:
        """Export and prepare a copy of ``network``: the exporter leaves tensors behind that cannot be trained."""
        return prepare(TorchModel(copy.deepcopy(network)).to_onnx(self._samples[0])).model

    def time(self, original: bytes, pruned: bytes, plan: Plan) -> Speed:
        """Load both afresh for each repetition, now one first and now the other, and run them in turn."""
        opened = partial(open_session, runtime=RuntimeName.ONNXRUNTIME, threads=self._threads)
        openers = [partial(opened, model) for model in (original, pruned)]
        feeds = [stack([sample]) for sample in fit_to(self._samples, openers[0]().inputs)]
        return estimate(measure(loader(openers, feeds), self._clock, plan))
