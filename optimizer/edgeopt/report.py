"""What a run found, as ``report.json`` and as one HTML page that works offline.

The records here are the shape of the JSON; ``schema`` changes when a field changes its meaning. Times are
measurements, so two runs differ in them; everything else repeats. It decides nothing. Example::

    report_json(report)          # bytes
    report_html(report)          # bytes
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from typing import Any

import msgspec

from edgeopt import wording
from edgeopt.criteria import Criterion
from edgeopt.gate import Verdict

__all__ = [
    "SCHEMA",
    "Baseline",
    "CandidateResult",
    "LatencyResult",
    "MetricResult",
    "Report",
    "SplitResult",
    "VariantResult",
    "report_html",
    "report_json",
]

SCHEMA = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Baseline:
    """The float model: its score on the certification split, its size, and its median latency in milliseconds."""

    metric: float
    size_bytes: int
    latency_ms: float | None


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
class LatencyResult:
    """Median milliseconds; ``ratio`` = fp32 time / variant time, above one is faster. ``None``: not measured."""

    median: float | None
    ratio: float | None
    ratio_low: float | None
    ratio_high: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class VariantResult:
    """One variant and its verdict."""

    name: str
    file: str
    runtime: str
    target: str
    verdict: Verdict
    metric: MetricResult
    agreement: float
    size_bytes: int
    latency_ms: LatencyResult


@dataclass(frozen=True, slots=True, kw_only=True)
class CandidateResult:
    """A way of quantizing that was tried, as the selection split saw it. ``problem`` says why it could not be."""

    name: str
    agreement: float | None
    metric: float | None
    chosen: bool
    problem: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SplitResult:
    """How many samples a split has, and the Merkle root over their contents and labels."""

    size: int
    hash: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """Everything a run found. ``is_share`` says that the metric lies between 0 and 1, and differences are points.

    ``criteria`` are what int8 was held against; the verdict of int8 is that of all of them together.
    """

    name: str
    version: str
    verdict: Verdict
    reasons: tuple[str, ...]
    target: str
    scheme: str
    margin: float
    is_share: bool
    baseline: Baseline
    variants: tuple[VariantResult, ...]
    chosen: str | None
    criteria: tuple[Criterion, ...]
    candidates: tuple[CandidateResult, ...]
    splits: Mapping[str, SplitResult]
    notes: tuple[str, ...]
    lineage: Mapping[str, Any]
    created: str
    seconds: float
    schema: int = SCHEMA


def report_json(report: Report) -> bytes:
    """Return ``report`` as JSON, indented for people."""
    return msgspec.json.format(msgspec.json.encode(report), indent=2) + b"\n"


def report_html(report: Report) -> bytes:
    """Return ``report`` as one HTML page without scripts, fonts or links to anywhere."""
    import jinja2

    source = resources.files("edgeopt").joinpath("templates/report.html").read_text(encoding="utf-8")
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters.update(size=wording.size, ms=wording.milliseconds)
    words = wording.Wording(report.is_share)
    page = environment.from_string(source).render(
        report=report,
        int8=report.variants[0],
        words=words,
        shares=wording.Wording(is_share=True),
        charts=_charts(report, words),
    )
    return page.encode()


def _charts(report: Report, words: wording.Wording) -> dict[str, str | None]:
    from edgeopt.charts import Interval, drop_chart, ratio_chart

    metric, latency = report.variants[0].metric, report.variants[0].latency_ms
    low, middle, high = latency.ratio_low, latency.ratio, latency.ratio_high
    return {
        "drop": drop_chart(Interval(metric.drop_lower, metric.drop, metric.drop_upper), report.margin, words),
        "ratio": None if low is None or middle is None or high is None else ratio_chart(Interval(low, middle, high)),
    }
