"""edgeopt beside its peers on public models: the same float model, the same splits, the same stopwatch, one run.

For every model of ``CASES`` it runs the real command ``edgeopt quantize``, then ONNX Runtime's own
``quantize_static`` with its defaults and with the settings people tune, and measures all of them on the
certification split that the command used. It prints a table and writes JSON. It asserts nothing but one claim: on a
CPU with VNNI, EfficientNet-Lite0 reaches a ratio of 1.6. Times need a quiet machine. Example::

    python -m benchmarks.optimizer.public_models --output public_models.json
    python -m benchmarks.optimizer.public_models --only letter
"""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click
import onnx
from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static

from benchmarks.optimizer.machine import machine
from edgeopt.graph import prepare
from edgeopt.models import load_model
from edgeopt.runtimes.onnx_runtime import OnnxRuntimeSession
from edgeopt.samples import Sample, stack
from edgeopt.scoring import load_metric
from edgeopt.silence import silenced
from edgeopt.sources import DataSources, SplitData, read_splits
from edgeopt.targets import host_target
from edgeopt.timing import Plan, Run, estimate, measure

__all__ = ["CASES", "RATIO_ON_VNNI", "Case", "Row", "claims", "main", "quantize", "row_of_report", "table"]

RATIO_ON_VNNI = 1.6  # of EfficientNet-Lite0; without VNNI no such claim is made
_ROOT = Path(__file__).resolve().parents[2]
_SPLITS = ("calibration", "selection", "certification")
_TIMED_SAMPLES = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A model with its data: ``three`` when the example gives a factory for each split, else one ``data``."""

    name: str
    max_drop: str
    metric: str = "accuracy"
    three: bool = False

    @property
    def model(self) -> str:
        """The factory of the model, as the command names it."""
        return f"examples.{self.name}:model"

    @property
    def sources(self) -> DataSources:
        """The factories of the data."""
        if self.three:
            calibration, selection, certification = (f"examples.{self.name}:{split}" for split in _SPLITS)
            return DataSources(calibration=calibration, selection=selection, certification=certification)
        return DataSources(single=f"examples.{self.name}:data")

    def arguments(self, output: Path) -> list[str]:
        """Return what stands behind ``edgeopt quantize``."""
        data = (
            [f"--{split}-data=examples.{self.name}:{split}" for split in _SPLITS]
            if self.three
            else [f"--data=examples.{self.name}:data"]
        )
        return [self.model, *data, f"--max-drop={self.max_drop}", f"--metric={self.metric}", "-o", str(output)]


CASES = (
    Case(name="digits", max_drop="2%"),
    Case(name="fashion_mnist", max_drop="1%"),
    Case(name="letter", max_drop="1%"),
    Case(name="efficientnet_lite0", max_drop="10%", metric="agreement", three=True),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One line of the table; ratios are fp32 time / variant time, sizes are bytes, seconds are those of quantizing."""

    case: str
    tool: str
    verdict: str
    chosen: str
    agreement: float
    score: float | None
    fp32_bytes: int
    size_bytes: int
    ratio: float | None
    ratio_low: float | None
    ratio_high: float | None
    seconds: float


@dataclass(frozen=True, slots=True)
class _Peer:
    """A way in which people call ``quantize_static``."""

    tool: str
    options: Mapping[str, Any] = field(default_factory=dict)


_U8S8 = {"per_channel": True, "activation_type": QuantType.QUInt8, "weight_type": QuantType.QInt8}
_PEERS = (
    _Peer("onnxruntime, defaults"),
    _Peer("onnxruntime, u8s8 per channel", _U8S8),
    _Peer("onnxruntime, u8s8 per channel, 7 bits", _U8S8 | {"reduce_range": True}),
)


def quantize(case: Case, output: Path) -> tuple[int, Mapping[str, Any], str]:
    """Run the real command; return its exit code, its report (empty when it wrote none) and what it said."""
    command = [str(Path(sys.executable).with_name("edgeopt")), "quantize", *case.arguments(output)]
    done = subprocess.run(command, cwd=_ROOT, capture_output=True, text=True, check=False)
    report = output / "report.json"
    return done.returncode, json.loads(report.read_text()) if report.exists() else {}, done.stdout + done.stderr


def row_of_report(case: Case, report: Mapping[str, Any]) -> Row:
    """Return the command's own line: the figures of int8, and what it chose."""
    (int8,) = (variant for variant in report["variants"] if variant["name"] == "int8")
    return Row(
        case=case.name,
        tool="edgeopt",
        verdict=report["verdict"],
        chosen=report["chosen"] or "nothing",
        agreement=int8["agreement"],
        score=int8["metric"]["value"],
        fp32_bytes=report["baseline"]["size_bytes"],
        size_bytes=int8["size_bytes"],
        ratio=int8["latency_ms"]["ratio"],
        ratio_low=int8["latency_ms"]["ratio_low"],
        ratio_high=int8["latency_ms"]["ratio_high"],
        seconds=report["seconds"],
    )


def table(rows: Sequence[Row]) -> str:
    """Return ``rows`` as text, one line each."""
    head = f"{'model':<19} {'tool':<37} {'verdict':<13} {'ships':<8} {'agreement':>9} {'MB':>12} {'ratio':>19}"
    return "\n".join([head, *map(_line, rows)])


def _line(row: Row) -> str:
    sizes = f"{row.fp32_bytes / 1e6:.2f}>{row.size_bytes / 1e6:.2f}"
    ratio = "not measured" if row.ratio is None else f"{row.ratio:.2f} ({row.ratio_low:.2f} to {row.ratio_high:.2f})"
    return (
        f"{row.case:<19} {row.tool:<37} {row.verdict:<13} {row.chosen:<8} {row.agreement:>9.1%} {sizes:>12} {ratio:>19}"
    )


def claims(rows: Sequence[Row], *, vnni: bool) -> list[str]:
    """Return one sentence for each claim that was looked at, beginning with MET, MISSED or NOT MADE."""
    ours = [row for row in rows if (row.case, row.tool) == ("efficientnet_lite0", "edgeopt")]
    if not ours:
        return []
    ratio = ours[0].ratio or 0.0
    if not vnni:
        return [f"NOT MADE: a ratio of {RATIO_ON_VNNI} needs VNNI, which this CPU lacks; here it is {ratio:.2f}"]
    word = "MET" if ratio >= RATIO_ON_VNNI else "MISSED"
    return [f"{word}: EfficientNet-Lite0 is {ratio:.2f} times as fast in int8, {RATIO_ON_VNNI} were promised"]


@click.command(epilog="Example: python -m benchmarks.optimizer.public_models --only letter")
@click.option("--only", type=click.Choice([case.name for case in CASES]), help="One model instead of all.")
@click.option("--output", type=click.Path(path_type=Path, dir_okay=False), help="Where to write the JSON.")
@click.option("--seconds", default=6.0, show_default=True, help="How long to time each peer.")
def main(only: str | None, output: Path | None, seconds: float) -> None:
    """Measure edgeopt and its peers on public models."""
    rows: list[Row] = []
    for case in (case for case in CASES if only in (None, case.name)):
        rows.extend(_measured(case, Plan(seconds=seconds)))
        click.echo(table(rows) if len(rows) <= 1 + len(_PEERS) else "\n".join(map(_line, rows[-1 - len(_PEERS) :])))
    looked_at = claims(rows, vnni=host_target().has_vnni)
    click.echo("\n".join(looked_at))
    if output is not None:
        result = {"machine": machine(), "claims": looked_at, "rows": [dataclasses.asdict(row) for row in rows]}
        output.write_text(json.dumps(result, indent=2) + "\n")
    if any(claim.startswith("MISSED") for claim in looked_at):
        raise SystemExit(1)


def _measured(case: Case, plan: Plan) -> Iterator[Row]:
    with tempfile.TemporaryDirectory() as folder:
        code, report, said = quantize(case, Path(folder) / "bundle")
    if not report:
        raise SystemExit(f"{case.name}: edgeopt quantize ended with {code} and no report:\n{said}")
    yield row_of_report(case, report)
    splits = read_splits(case.sources, seed=0, metric=load_metric(case.metric))
    hashes = {name: split["hash"] for name, split in report["splits"].items()}
    if {str(split): root for split, root in splits.roots.items()} != hashes:
        raise SystemExit(f"{case.name}: the peers would be judged on other splits than edgeopt was")
    model = prepare(load_model(case.model).to_onnx(splits.calibration[0])).model
    baseline = OnnxRuntimeSession(model, threads=1)
    splits = splits.fitted(baseline.inputs)
    for peer in _PEERS:
        yield _peer_row(case, peer, model, baseline, splits, plan)


def _peer_row(
    case: Case, peer: _Peer, model: bytes, baseline: OnnxRuntimeSession, splits: SplitData, plan: Plan
) -> Row:
    started = time.monotonic()
    quantized = _quantized(model, peer, splits.calibration)
    seconds = time.monotonic() - started
    session, metric = OnnxRuntimeSession(quantized, threads=1), load_metric(case.metric)
    before, after = baseline.predict(splits.certification), session.predict(splits.certification)
    _, scores = metric.scores(before, after, [sample.label for sample in splits.certification])
    feeds = [stack([sample]) for sample in splits.selection[:_TIMED_SAMPLES]]

    def load(repetition: int) -> list[tuple[Run, Run]]:
        models = [model, quantized]
        order = (0, 1) if repetition % 2 else (1, 0)
        fresh = {which: OnnxRuntimeSession(models[which], threads=1) for which in order}
        return [(fresh[0].call_on(one), fresh[1].call_on(one)) for one in feeds]

    speed = estimate(measure(load, time.perf_counter, plan))
    return Row(
        case=case.name,
        tool=peer.tool,
        verdict="no gate",
        chosen="int8",  # it ships whatever came out
        agreement=float(metric.agreement(before, after).mean()),
        score=float(scores.mean()),
        fp32_bytes=len(model),
        size_bytes=len(quantized),
        ratio=speed.ratio,
        ratio_low=speed.ratio_low,
        ratio_high=speed.ratio_high,
        seconds=seconds,
    )


def _quantized(model: bytes, peer: _Peer, calibration: Sequence[Sample]) -> bytes:
    with tempfile.TemporaryDirectory() as folder, silenced():
        path = Path(folder) / "int8.onnx"
        quantize_static(onnx.load_model_from_string(model), str(path), _Reader(calibration), **peer.options)
        return path.read_bytes()


class _Reader(CalibrationDataReader):  # type: ignore[misc]  # onnxruntime publishes no types
    """Hands the samples over one at a time."""

    def __init__(self, samples: Sequence[Sample]) -> None:
        self._samples = iter(samples)

    def get_next(self) -> dict[str, Any] | None:
        """Return the next sample as a batch of one; ``None`` at the end."""
        sample = next(self._samples, None)
        return None if sample is None else stack([sample])


if __name__ == "__main__":
    main()
