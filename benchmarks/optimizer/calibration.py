"""Calibration beside ONNX Runtime's, in memory and time, with 100 and 2,000 samples, in one run.

Each measurement is a process of its own, so that its peak memory is its own. edgeopt's one pass gives the ranges of one
calibrator or of all four; ONNX Runtime makes a pass for each. It asserts nothing; it says which of the two claims held:
peak memory with 2,000 samples at most 1.15 times that with 100, and four calibrators in at most 1.3 times the time of
one. Times need a quiet machine. Example::

    python -m benchmarks.optimizer.calibration --output calibration.json
"""

from __future__ import annotations

import dataclasses
import json
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np

from benchmarks.optimizer.machine import machine
from edgeopt.calibration.collection import collect
from edgeopt.recipe import Calibrator
from edgeopt.samples import Sample, stack
from edgeopt.silence import silenced

__all__ = ["Measured", "claims", "main", "table"]

FEW, MANY = 100, 2000
_MEMORY, _TIME = 1.15, 1.3  # what is claimed
_ONE, _FOUR = "edgeopt, one calibrator", "edgeopt, four calibrators"
_PERCENTILE, _ENTROPY = "onnxruntime, percentile", "onnxruntime, entropy"
_TOOLS = (_ONE, _FOUR, _PERCENTILE, _ENTROPY)
_ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """What one tool took for ``samples`` samples: the median time and the peak memory of its process."""

    tool: str
    samples: int
    seconds: float
    peak_mib: float


def table(rows: Sequence[Measured]) -> str:
    """Return ``rows`` as text; ratios are to edgeopt with one calibrator and as many samples."""
    base = {row.samples: row for row in rows if row.tool == _ONE}
    lines = [f"{'tool':<27} {'samples':>7} {'seconds':>8} {'ratio':>6} {'peak MiB':>9} {'ratio':>6}"]
    for row in rows:
        one = base[row.samples]
        times, sizes = row.seconds / one.seconds, row.peak_mib / one.peak_mib
        lines.append(
            f"{row.tool:<27} {row.samples:>7} {row.seconds:>8.2f} {times:>6.2f} {row.peak_mib:>9.0f} {sizes:>6.2f}"
        )
    return "\n".join(lines)


def claims(rows: Sequence[Measured]) -> list[str]:
    """Return one sentence for each claim, beginning with MET or MISSED, and what ONNX Runtime's growth is."""
    found = {(row.tool, row.samples): row for row in rows}
    growth = {tool: found[tool, MANY].peak_mib / found[tool, FEW].peak_mib for tool in _TOOLS}
    theirs = f"onnxruntime's is {growth[_PERCENTILE]:.2f} (percentile), {growth[_ENTROPY]:.2f} (entropy)"
    memory = f"peak memory with {MANY} samples is {growth[_FOUR]:.2f} times that with {FEW} (at most {_MEMORY})"
    cost = found[_FOUR, MANY].seconds / found[_ONE, MANY].seconds
    times = f"four calibrators take {cost:.2f} times the time of one (at most {_TIME})"
    return [f"{_met(growth[_FOUR] <= _MEMORY)}: {memory}; {theirs}", f"{_met(cost <= _TIME)}: {times}"]


def _met(held: bool) -> str:  # noqa: FBT001  (one word for a truth)
    return "MET" if held else "MISSED"


@click.command(epilog="Example: python -m benchmarks.optimizer.calibration --repetitions 5")
@click.option("--repetitions", default=3, show_default=True, help="Processes for each measurement.")
@click.option("--output", type=click.Path(path_type=Path, dir_okay=False), help="Where to write the JSON.")
@click.option("--worker", nargs=3, type=str, hidden=True, help="Tool, samples and folder: measure in this process.")
def main(repetitions: int, output: Path | None, worker: tuple[str, str, str] | None) -> None:
    """Measure calibration on the Fashion-MNIST example's depthwise CNN."""
    if worker is not None:
        tool, samples, place = worker
        click.echo(json.dumps(_work(tool, int(samples), Path(place))))
        return
    with tempfile.TemporaryDirectory() as folder:
        _prepare(Path(folder))
        rows = list(_measured(Path(folder), repetitions))
    click.echo(table(rows))
    said = claims(rows)
    click.echo("\n".join(said))
    if output is not None:
        result = {"machine": machine(), "claims": said, "rows": [dataclasses.asdict(row) for row in rows]}
        output.write_text(json.dumps(result, indent=2) + "\n")


def _prepare(folder: Path) -> None:
    """Write the prepared model and the samples where the workers find them."""
    from edgeopt.graph import prepare
    from edgeopt.models import load_model
    from examples import fashion_mnist

    inputs, _ = fashion_mnist.pictures("train")
    model = prepare(load_model("examples.fashion_mnist:model").to_onnx(Sample({"input": inputs[0]}, None))).model
    (folder / "model.onnx").write_bytes(model)
    np.save(folder / "samples.npy", inputs[:MANY])


def _measured(folder: Path, repetitions: int) -> Iterator[Measured]:
    """Yield each tool's figures; repetitions are interleaved, so that a noisy minute spoils none alone."""
    tasks = [(tool, samples) for samples in (FEW, MANY) for tool in _TOOLS]
    found: dict[tuple[str, int], list[dict[str, float]]] = {task: [] for task in tasks}
    for _ in range(repetitions):
        for tool, samples in tasks:
            command = [sys.executable, "-m", __spec__.name, "--worker", tool, str(samples), str(folder)]
            done = subprocess.run(command, cwd=_ROOT, capture_output=True, text=True, check=False)
            if done.returncode:
                raise SystemExit(f"{tool} with {samples} samples failed:\n{done.stderr}")
            found[tool, samples].append(json.loads(done.stdout.splitlines()[-1]))
    for (tool, samples), runs in found.items():
        seconds, peaks = ([run[key] for run in runs] for key in ("seconds", "peak_mib"))
        yield Measured(
            tool=tool, samples=samples, seconds=statistics.median(seconds), peak_mib=statistics.median(peaks)
        )


def _work(tool: str, count: int, folder: Path) -> dict[str, float]:
    """Calibrate in this process and return its time and the peak of its memory."""
    model = (folder / "model.onnx").read_bytes()
    name = _input_name(model)
    stored = np.load(folder / "samples.npy", mmap_mode="r")[:count]
    samples = [Sample({name: picture}, None) for picture in stored]
    started = time.perf_counter()
    with silenced():
        if tool in (_ONE, _FOUR):
            found = collect(model, samples)
            for calibrator in Calibrator if tool == _FOUR else (Calibrator.PERCENTILE,):
                found.ranges(calibrator)
        else:
            _onnxruntime(tool, folder, samples)
    seconds = time.perf_counter() - started
    return {"seconds": seconds, "peak_mib": _peak_mib()}


def _peak_mib() -> float:
    """Return the peak of this process's memory; ru_maxrss would begin with what the parent had when it started it."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    if found is None:
        raise SystemExit("this system does not tell the peak of a process's memory (VmHWM in /proc/self/status)")
    return int(found[1]) / 1024


def _onnxruntime(tool: str, folder: Path, samples: Sequence[Sample]) -> None:
    """Calibrate as onnxruntime.quantization.quantize_static does."""
    from onnxruntime.quantization.calibrate import CalibrationMethod, create_calibrator
    from onnxruntime.quantization.registry import QDQRegistry, QLinearOpsRegistry

    method = CalibrationMethod.Percentile if tool == _PERCENTILE else CalibrationMethod.Entropy
    calibrator = create_calibrator(
        folder / "model.onnx",
        [*QDQRegistry, *QLinearOpsRegistry],
        augmented_model_path=str(folder / "augmented.onnx"),
        calibrate_method=method,
    )
    feeds = iter(samples)

    class Reader:
        """Hands the samples over one at a time."""

        def get_next(self) -> dict[str, Any] | None:
            sample = next(feeds, None)
            return None if sample is None else stack([sample])

    calibrator.collect_data(Reader())
    calibrator.compute_data()


def _input_name(model: bytes) -> str:
    import onnx

    name: str = onnx.load_model_from_string(model).graph.input[0].name
    return name


if __name__ == "__main__":
    main()
