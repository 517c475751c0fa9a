"""What a run found, as records: the shape of ``report.json``, and what every other paper is written from.

Records only. ``schema`` changes when a field changes its meaning. Times are measurements, so two runs differ in them;
everything else repeats. Drops and scores are in the metric's unit, ratios are fp32 time / variant time (above one is
faster), times are milliseconds, sizes bytes. Example::

    run.target("raspberry-pi-4").chosen          # "int8"
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from edgeopt.criteria import Criterion
from edgeopt.gate import Verdict
from edgeopt.recipe import Recipe
from edgeopt_contract.errors import UsageError

__all__ = [
    "SCHEMA",
    "Baseline",
    "LayerSensitivity",
    "MetricResult",
    "RunResult",
    "SpeedResult",
    "SplitResult",
    "StageResult",
    "TargetResult",
    "TrialResult",
    "VariantResult",
    "from_json",
    "to_json",
]

SCHEMA = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Baseline:
    """The float model in ONNX Runtime: its score on the certification split, its size, its median latency."""

    metric: float
    size_bytes: int
    latency_ms: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class SplitResult:
    """How many samples a split has, and the Merkle root over their contents and labels."""

    size: int
    hash: str


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricResult:
    """A variant's score; ``drop`` = baseline - value, with its one-sided bounds at ``confidence``."""

    name: str
    value: float
    drop: float
    drop_lower: float
    drop_upper: float
    confidence: float
    n: int
    samples_needed: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class SpeedResult:
    """How long one inference takes. ``ratios`` has the ratio of each repetition, of which the interval is made."""

    baseline_ms: float
    variant_ms: float
    ratio: float
    ratio_low: float
    ratio_high: float
    ratios: tuple[float, ...]
    rounds: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialResult:
    """One recipe that was tried, as the selection split and the stopwatch saw it.

    ``rung`` is the step of the ladder or search that proposed it, ``error`` the mean absolute difference of its outputs
    from the float model's, in standard deviations of those. ``problem`` says why it could not be tried, in words;
    everything measured is then ``None``. ``on_front``: nothing else is both faster and nearer to the float model.
    """

    rung: str
    title: str
    recipe: Recipe
    agreement: float | None = None
    score: float | None = None
    error: float | None = None
    size_bytes: int | None = None
    speed: SpeedResult | None = None
    seconds: float = 0.0
    chosen: bool = False
    on_front: bool = False
    problem: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerSensitivity:
    """What quantizing one layer alone costs: error as in :class:`TrialResult`; ``saved_ms`` may be negative."""

    node: str
    operator: str
    error: float
    saved_ms: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class StageResult:
    """The model at one stage of its way, on the certification split: where accuracy was lost.

    ``stage``: for instance ``torch``, ``onnx``, ``prepared``, ``int8 simulated``, ``int8 by onnxruntime on x86-avx2``.
    """

    stage: str
    score: float
    agreement: float
    error: float
    n: int


@dataclass(frozen=True, slots=True, kw_only=True)
class VariantResult:
    """One variant that a target may get, and its verdict there."""

    name: str
    file: str
    recipe: Recipe
    verdict: Verdict
    metric: MetricResult
    agreement: float
    size_bytes: int
    speed: SpeedResult | None


@dataclass(frozen=True, slots=True, kw_only=True)
class TargetResult:
    """What was found for one kind of CPU.

    ``execution`` says, in words, on what the certification ran: this CPU, an emulated one, or simulated integers.
    ``variants``: the one that was certified, and fp32. ``criteria`` are what the certified one was held against;
    ``chosen`` is the variant this target gets, ``None`` when none passed. ``stages`` attribute the drop.
    """

    target: str
    arch: str
    features: tuple[str, ...]
    execution: str
    verdict: Verdict
    chosen: str | None
    reasons: tuple[str, ...]
    criteria: tuple[Criterion, ...]
    variants: tuple[VariantResult, ...]
    trials: tuple[TrialResult, ...]
    sensitivity: tuple[LayerSensitivity, ...]
    stages: tuple[StageResult, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class RunResult:
    """Everything a run found. ``is_share``: the metric lies between 0 and 1, and differences are points.

    The verdict is the worst of the targets'. ``created`` is UTC in ISO 8601, ``seconds`` the whole run's duration.
    """

    name: str
    version: str
    verdict: Verdict
    metric: str
    is_share: bool
    margin: float
    confidence: float
    baseline: Baseline
    targets: tuple[TargetResult, ...]
    splits: Mapping[str, SplitResult]
    notes: tuple[str, ...]
    lineage: Mapping[str, Any]
    machine: str
    created: str
    seconds: float
    schema: int = SCHEMA

    def target(self, name: str) -> TargetResult:
        """Return the result for the target ``name``. Raises ``KeyError``."""
        return {one.target: one for one in self.targets}[name]


def to_json(run: RunResult) -> bytes:
    """Return ``report.json``, indented for people."""
    return msgspec.json.format(msgspec.json.encode(run), indent=2) + b"\n"


def from_json(data: bytes) -> RunResult:
    """Return the run that :func:`to_json` wrote. Raises :class:`UsageError` for anything else, an older report too."""
    try:
        schema = msgspec.json.decode(data).get("schema")
        if schema == SCHEMA:
            return msgspec.json.decode(data, type=RunResult)
    except (msgspec.MsgspecError, UnicodeDecodeError, AttributeError, RecursionError) as error:
        raise UsageError(
            f"this is no report of edgeopt ({error}): expected the report.json that 'edgeopt quantize' wrote"
        ) from error
    raise UsageError(f"the report has the schema {schema!r}, this edgeopt reads {SCHEMA}: run edgeopt again")
