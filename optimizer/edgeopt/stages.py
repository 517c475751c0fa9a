"""What the steps of a run hand to each other.

Records only; the steps are in :mod:`edgeopt.pipeline`, what is made of them in :mod:`edgeopt.evidence`. Example::

    Request(model="examples.digits:model", data=DataSources(single="examples.digits:data"), ...)
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

from edgeopt.criteria import JointJudgement, Limits
from edgeopt.decision import Decision
from edgeopt.quantizer import Scheme
from edgeopt.recipe import RuntimeName
from edgeopt.report import CandidateResult
from edgeopt.runtimes.port import Session, open_session
from edgeopt.scoring import Metric
from edgeopt.sources import DataSources, SplitData
from edgeopt.targets import Target
from edgeopt.timing import Plan, Speed

__all__ = ["Findings", "FloatModel", "Int8Model", "Request", "Setting"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What the user asked for. ``max_drop`` is in the metric's unit; ``target`` ``None`` is this machine.

    ``max_class_drop`` and ``min_agreement`` (a share) are criteria that are judged as well unless they are ``None``.
    """

    model: str
    data: DataSources
    output: Path
    max_drop: float
    name: str
    version: str = "1"
    max_class_drop: float | None = None
    min_agreement: float | None = None
    confidence: float = 0.95
    metric: str = "accuracy"
    target: Target | None = None
    seed: int = 0
    labels: tuple[str, ...] = ()
    threads: int = 1
    timing: Plan = field(default_factory=Plan)

    @property
    def limits(self) -> Limits:
        """What the gate holds the variant against."""
        return Limits(
            max_drop=self.max_drop,
            confidence=self.confidence,
            max_class_drop=self.max_class_drop,
            min_agreement=self.min_agreement,
        )


@dataclass(frozen=True, slots=True)
class Setting:
    """The request with what follows from it; ``native`` says that this machine computes like the target."""

    request: Request
    target: Target
    scheme: Scheme
    native: bool
    metric: Metric

    def labelled(self, classes: tuple[str, ...]) -> Setting:
        """Return the same with the data's ``classes`` as labels, unless the user named some."""
        return replace(self, request=replace(self.request, labels=self.request.labels or classes))

    def session(self, model: bytes) -> Session:
        """Load a quantized model so that it computes what the target will."""
        return open_session(model, RuntimeName.ONNXRUNTIME, threads=self.request.threads, simulated=not self.native)


@dataclass(frozen=True, slots=True)
class FloatModel:
    """The float model as it will run, the data in its dtypes, and the steps that had to be left out."""

    model: bytes
    session: Session
    splits: SplitData
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Int8Model:
    """The candidate that the selection split preferred, and all that were tried."""

    model: bytes
    session: Session
    tried: tuple[CandidateResult, ...]


@dataclass(frozen=True, slots=True)
class Findings:
    """What the certification split and the stopwatch said, and what was decided; ``speed`` ``None``: not timed."""

    judgement: JointJudgement
    agreement: float
    speed: Speed | None
    decision: Decision
