"""One judge for all: a model's answers on the certification split, and its time beside fp32's in ONNX Runtime.

edgeopt's choice and the peers' models go through the same code: the same samples, one thread, and the stopwatch of
:mod:`edgeopt.timing`. Example::

    court = Court.of(CASES["digits"])
    court.judge(made, Plan(seconds=3))
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import numpy.typing as npt

from benchmarks.optimizer.cases import Case
from benchmarks.optimizer.peers.openvino_tools import IrSession
from benchmarks.optimizer.peers.port import Form, Made, Work
from benchmarks.optimizer.rows import Figures
from edgeopt.graph import prepare
from edgeopt.models import load_model
from edgeopt.recipe import RuntimeName
from edgeopt.runtimes.port import Session, open_session
from edgeopt.samples import Array, Sample, stack
from edgeopt.scoring import Metric, load_metric
from edgeopt.sources import SplitData, read_splits
from edgeopt.timing import Plan, estimate, loader, measure

__all__ = ["Court", "Judged", "opened"]

SEED = 0
_THREADS = 1
_TIMED_SAMPLES = 4
_SELECTION = 1000  # samples at most that a peer gets to judge by


@dataclass(frozen=True, slots=True)
class Judged:
    """The figures of a model, and on which samples it agrees with fp32, shape (n,)."""

    figures: Figures
    agrees: npt.NDArray[np.float64]

    def beside(self, ours: npt.NDArray[np.float64]) -> Figures:
        """Return the figures with the samples counted on which it differs from edgeopt's choice, ``ours``."""
        nearer, farther = int((self.agrees > ours).sum()), int((self.agrees < ours).sum())
        return replace(self.figures, nearer=nearer, farther=farther)


@dataclass(frozen=True, slots=True)
class Court:
    """A case made ready: the float model as edgeopt prepares it, its splits, and its answers."""

    case: Case
    float_model: bytes
    splits: SplitData
    metric: Metric
    baseline: dict[str, Array]

    @classmethod
    def of(cls, case: Case) -> Court:
        """Read and prepare ``case``."""
        metric = load_metric(case.metric)
        splits = read_splits(case.sources, SEED, metric)
        model = prepare(load_model(case.model).to_onnx(splits.calibration[0])).model
        session = open_session(model, RuntimeName.ONNXRUNTIME, threads=_THREADS)
        splits = splits.fitted(session.inputs)
        return cls(case, model, splits, metric, session.predict(splits.certification))

    @property
    def fp32_score(self) -> float:
        """The float model's score on the certification split."""
        _, scores = self.metric.scores(self.baseline, self.baseline, self._labels())
        return float(scores.mean())

    def work(self) -> Work:
        """Return what a peer gets."""
        return Work(
            float_model=self.float_model,
            reference=self.case.model,
            calibration=self.splits.calibration,
            selection=_spread(self.splits.selection, _SELECTION),
            metric=self.case.metric,
            max_drop=self.case.margin,
        )

    def judge(self, made: Made, plan: Plan) -> Judged:
        """Return what ``made`` is worth. Raises :class:`ModelError` when its runtime cannot load or run it."""
        session = opened(made)
        answers = session.predict(self.splits.certification)
        _, scores = self.metric.scores(self.baseline, answers, self._labels())
        agrees = self.metric.agreement(self.baseline, answers)
        feeds = [stack([sample]) for sample in self.splits.selection[:_TIMED_SAMPLES]]
        openers = [partial(opened, Made(model=self.float_model)), partial(opened, made)]
        speed = estimate(measure(loader(openers, feeds), time.perf_counter, plan))
        figures = Figures(
            runtime=str(made.runtime),
            agreement=float(agrees.mean()),
            score=float(scores.mean()),
            size_bytes=len(made.model),
            fp32_ms=speed.baseline_ms,
            milliseconds=speed.variant_ms,
            ratio=speed.ratio,
            ratio_low=speed.ratio_low,
            ratio_high=speed.ratio_high,
        )
        return Judged(figures, agrees)

    def _labels(self) -> list[object]:
        return [sample.label for sample in self.splits.certification]


def opened(made: Made) -> Session:
    """Load ``made`` in its runtime, for one thread."""
    if made.form is Form.IR:
        return IrSession(made.model, threads=_THREADS)
    return open_session(made.model, made.runtime, threads=_THREADS)


def _spread(samples: Sequence[Sample], most: int) -> Sequence[Sample]:
    """Return at most ``most`` of ``samples``, taken evenly."""
    return samples[:: -(-len(samples) // most)]
