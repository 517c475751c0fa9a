"""What the steps of a run hand to each other.

Records only; the steps are in :mod:`edgeopt.pipeline`, what is made of them in :mod:`edgeopt.evidence`. Example::

    Request(model="examples.digits:model", data=DataSources(single="examples.digits:data"), ...)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from edgeopt.criteria import JointJudgement, Limits
from edgeopt.decision import Decision
from edgeopt.emulation.execution import Execution
from edgeopt.preprocess_steps import Preprocessing
from edgeopt.pruning.plan import PruningPlan
from edgeopt.recipe import Recipe, RuntimeName
from edgeopt.results import SpeedResult, StageResult
from edgeopt.runtimes.port import Session
from edgeopt.samples import Array
from edgeopt.scoring import Metric
from edgeopt.search.journal import Entry
from edgeopt.search.workshop import Float
from edgeopt.sources import DataSources, SplitData
from edgeopt.targets import Target
from edgeopt.timing import Plan

__all__ = ["Effort", "Findings", "Original", "Pruning", "Request", "Setting", "Variant"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Effort:
    """How hard to search. ``thorough`` climbs the whole ladder; ``budget_seconds`` ends it; ``journal`` remembers it.

    ``runtimes``: candidates beside those that the target's profile names; empty for just those.
    """

    thorough: bool = False
    quantizes: bool = True
    budget_seconds: float | None = None
    journal: Path | None = None
    runtimes: tuple[RuntimeName, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Pruning:
    """How to prune: a plan, the data that train the pruned network, and a training function by its name."""

    plan: PruningPlan
    train_data: str | None = None
    train: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What the user asked for. ``max_drop`` is in the metric's unit; no ``targets``: this machine.

    ``max_class_drop`` and ``min_agreement`` (a share) are criteria that are judged as well unless they are ``None``.
    ``preprocess`` names a file of steps to fold into the graph. ``emulator`` is the folder with systems of other
    architectures, ``emulator_seconds`` how long an emulated CPU may take to certify one variant.
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
    targets: tuple[Target, ...] = ()
    seed: int = 0
    labels: tuple[str, ...] = ()
    threads: int = 1
    timing: Plan = field(default_factory=Plan)
    preprocess: Path | None = None
    pruning: Pruning | None = None
    effort: Effort = field(default_factory=Effort)
    emulator: Path | None = None
    emulator_seconds: float = 300.0

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
    """The request with what follows from it: the ``host``, the ``targets``, the metric, and the steps to fold in."""

    request: Request
    host: Target
    targets: tuple[Target, ...]
    metric: Metric
    steps: Preprocessing

    def labelled(self, classes: tuple[str, ...]) -> Setting:
        """Return the same with the data's ``classes`` as labels, unless the user named some."""
        return replace(self, request=replace(self.request, labels=self.request.labels or classes))


@dataclass(frozen=True, slots=True)
class Original:
    """The float model as it will run, the data in its dtypes, its way up to here, and steps that were left out.

    ``pruned``: the pruned form, if there is one. ``baseline``: the outputs on the certification split.
    """

    float: Float
    session: Session
    splits: SplitData
    baseline: Mapping[str, Array]
    stages: tuple[StageResult, ...]
    notes: tuple[str, ...]
    pruned: Float | None = None

    @property
    def floats(self) -> dict[bool, Float]:
        """The networks by ``Recipe.pruned``."""
        return {False: self.float} if self.pruned is None else {False: self.float, True: self.pruned}


@dataclass(frozen=True, slots=True)
class Variant:
    """A variant that was judged for a target: its bytes, what was found about it, and on what it was run."""

    recipe: Recipe
    model: bytes
    judgement: JointJudgement
    agreement: float
    speed: SpeedResult | None
    execution: Execution


@dataclass(frozen=True, slots=True)
class Findings:
    """What was found for one target.

    ``execution`` says on what the certification ran. ``certified``: the variant that was judged (``None``: nothing was
    worth it), and behind it a second one for devices that lack its runtime. ``searched``: all that was tried.
    """

    target: Target
    execution: str
    decision: Decision
    certified: tuple[Variant, ...]
    searched: Sequence[Entry]
    stages: tuple[StageResult, ...]
