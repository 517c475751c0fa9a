"""What pruning wins and costs: the residual network on Fashion-MNIST, in float and in int8, in one run.

It prunes ``examples.resnet`` with the code of ``edgeopt prune``, quantizes the original and the pruned network in the
same way (ONNX Runtime's static int8, per channel), and times all of them with the stopwatch of ``edgeopt quantize``. It
prints the figures, writes JSON, and holds the claims: twice fewer multiplications, half a point, 1.6 times as fast, and
in int8 faster than int8 alone. About four minutes; times need a quiet machine. Example::

    python -m benchmarks.optimizer.pruning --output pruning.json
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import click
import msgspec
import numpy as np
import onnx
import torch
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

from edgeopt.criteria import Limits, PairedScores, judge_all
from edgeopt.data import fit_to
from edgeopt.pruning.plan import Importance, PruningPlan
from edgeopt.pruning.run import PruneRequest, run
from edgeopt.pruning.search import Pruned
from edgeopt.pruning.speed import OnnxBench
from edgeopt.runtimes.onnx_runtime import OnnxRuntimeSession
from edgeopt.samples import Array, Sample, stack
from edgeopt.scoring import load_metric
from edgeopt.silence import silenced
from edgeopt.sources import DataSources, SplitData, read_splits
from edgeopt.targets import host_target
from edgeopt.timing import Plan, Speed

__all__ = ["Figures", "Score", "claims", "figures_of", "lines", "main", "statically_quantized"]

_DATA = DataSources(single="examples.resnet:data")
_METRIC = "accuracy"


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """One variant on the certification split: points lost against the original in float, with their interval."""

    value: float
    drop: float
    lower: float
    upper: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """Everything that is claimed. Ratios are those of times, above one is faster."""

    macs_before: int
    macs_after: int
    pruned: Score
    int8: Score
    pruned_int8: Score
    pruned_speed: Speed  # against float
    int8_speed: Speed  # against float
    pruned_int8_speed: Speed  # against float
    pruned_over_int8: Speed  # pruned int8 against int8 alone


class _Reader(CalibrationDataReader):  # type: ignore[misc]  # onnxruntime publishes no types
    """Gives ONNX Runtime's calibrator one sample at a time."""

    def __init__(self, samples: Sequence[Sample]) -> None:
        self._feeds: Iterator[dict[str, Array]] = iter([stack([sample]) for sample in samples])

    def get_next(self) -> dict[str, Array] | None:
        """Return the next sample, ``None`` at the end."""
        return next(self._feeds, None)


def statically_quantized(model: bytes, calibration: Sequence[Sample]) -> bytes:
    """Return ``model`` in static int8, per channel, with 7-bit weights where u8 by s8 products would saturate."""
    with tempfile.TemporaryDirectory(prefix="edgeopt-") as folder, silenced():
        path = Path(folder) / "int8.onnx"
        quantize_static(
            onnx.load_model_from_string(model),
            path,
            _Reader(calibration),
            quant_format=QuantFormat.QDQ,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            per_channel=True,
            reduce_range=not host_target().has_vnni,
        )
        return path.read_bytes()


def figures_of(pruned: Pruned, splits: SplitData, timing: Plan) -> Figures:
    """Quantize, score and time the original and the pruned network."""
    session = OnnxRuntimeSession(pruned.original_onnx, threads=1)
    calibration = fit_to(splits.calibration, session.inputs)
    certification = fit_to(splits.certification, session.inputs)
    original = pruned.original_onnx
    int8, both = (statically_quantized(model, calibration) for model in (original, pruned.onnx))
    bench = OnnxBench(splits.selection, threads=1)
    return Figures(
        macs_before=pruned.macs_before,
        macs_after=pruned.macs_after,
        pruned=_score(original, pruned.onnx, certification),
        int8=_score(original, int8, certification),
        pruned_int8=_score(original, both, certification),
        pruned_speed=bench.time(original, pruned.onnx, timing),
        int8_speed=bench.time(original, int8, timing),
        pruned_int8_speed=bench.time(original, both, timing),
        pruned_over_int8=bench.time(int8, both, timing),
    )


def lines(figures: Figures) -> list[str]:
    """Return the figures for people."""
    fewer = figures.macs_before / figures.macs_after
    named = (
        ("pruned", figures.pruned, figures.pruned_speed),
        ("int8", figures.int8, figures.int8_speed),
        ("pruned + int8", figures.pruned_int8, figures.pruned_int8_speed),
    )
    table = [
        f"{name:14} {score.value:.2%}  drop {score.drop * 100:+.2f} points [{score.lower * 100:+.2f}, "
        f"{score.upper * 100:+.2f}]  {speed.variant_ms:.3f} ms, x{speed.ratio:.2f} [{speed.ratio_low:.2f}, "
        f"{speed.ratio_high:.2f}] of float"
        for name, score, speed in named
    ]
    over = figures.pruned_over_int8
    return [
        f"multiplications {figures.macs_before:,} -> {figures.macs_after:,}: {fewer:.2f} times fewer",
        *table,
        f"pruned + int8 beside int8 alone: x{over.ratio:.2f} [{over.ratio_low:.2f}, {over.ratio_high:.2f}]",
    ]


def claims(figures: Figures) -> list[tuple[str, bool]]:
    """Return what is claimed, and whether it held."""
    return [
        ("at least 2 times fewer multiplications", figures.macs_before >= 2 * figures.macs_after),
        ("at most 0.5 points", figures.pruned.drop <= 0.005),
        ("at least 1.6 times as fast", figures.pruned_speed.ratio_low >= 1.6),
        ("pruned + int8 faster than int8 alone", figures.pruned_over_int8.ratio_low > 1),
    ]


def _score(original: bytes, variant: bytes, samples: Sequence[Sample]) -> Score:
    """Return the paired judgement of one variant."""
    before, after = (OnnxRuntimeSession(model, threads=1).predict(samples) for model in (original, variant))
    metric = load_metric(_METRIC)
    baseline, scores = metric.scores(before, after, [sample.label for sample in samples])
    paired = PairedScores(baseline=baseline, variant=scores, agreement=np.ones_like(scores))
    drop = judge_all(paired, Limits(max_drop=0.01, confidence=0.95)).criteria[0]
    return Score(
        value=float(scores.mean()),
        drop=float(drop.value or 0),
        lower=float(drop.lower or 0),
        upper=float(drop.upper or 0),
    )


@click.command()
@click.option("--speedup", default=1.6, show_default=True)
@click.option("--epochs", default=3, show_default=True)
@click.option(
    "--importance", default="magnitude", show_default=True, type=click.Choice([str(one) for one in Importance])
)
@click.option("--seed", default=0, show_default=True)
@click.option("--output", type=click.Path(path_type=Path), help="Write the figures as JSON.")
def main(speedup: float, epochs: int, importance: str, seed: int, output: Path | None) -> None:
    """Prune the residual network, and hold the claims."""
    torch.set_num_threads(1)
    plan = PruningPlan(speedup=speedup, epochs=epochs, importance=Importance(importance), seed=seed)
    shown = ""

    def on_progress(step: str, done: int, total: int) -> None:  # noqa: ARG001  (a line for each step is enough)
        nonlocal shown
        if step != shown:
            print(f"  {step}", file=sys.stderr)
            shown = step

    with tempfile.TemporaryDirectory(prefix="edgeopt-") as folder:
        request = PruneRequest(
            model="examples.resnet:model",
            data=_DATA,
            output=Path(folder) / "pruned",
            limits=Limits(max_drop=0.01, confidence=0.95),
            plan=plan,
            train_data="examples.resnet:train_data",
        )
        outcome = run(request, on_progress)
    print(outcome.verdict, *outcome.reasons, sep="\n  ")
    if outcome.pruned is None:
        sys.exit(1)
    splits = read_splits(_DATA, seed, load_metric(_METRIC))
    figures = figures_of(outcome.pruned, splits, plan.timing)
    print(*lines(figures), sep="\n")
    held = claims(figures)
    print(*(f"{'held  ' if holds else 'FAILED'} {claim}" for claim, holds in held), sep="\n")
    if output is not None:
        output.write_text(json.dumps(msgspec.to_builtins({"figures": figures, "plan": plan}), indent=1) + "\n")
    sys.exit(0 if all(holds for _, holds in held) else 1)


if __name__ == "__main__":
    main()
