"""One peer at work in a process of its own: a crash, a hang or a swollen memory costs one row, not the run.

:func:`quantized` starts it; the work and the result lie in a folder. Example::

    with tempfile.TemporaryDirectory() as folder:
        write_work(Path(folder), work)
        quantized("nncf on ONNX", Path(folder), Path(sys.executable), limit_seconds=180).made
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.optimizer.peers.catalogue import PEERS
from benchmarks.optimizer.peers.port import Form, Made, Refused, Work
from edgeopt.recipe import RuntimeName
from edgeopt.samples import Sample
from edgeopt.silence import silenced_natively

__all__ = ["Result", "quantized", "read_work", "write_work"]

_ROOT = Path(__file__).resolve().parents[3]
_FLOAT, _WORK, _MODEL, _MADE = "float.onnx", "work.json", "made.model", "made.json"
_LONGEST = 300  # characters of a tool's complaint
_QUIET = {
    "OMP_NUM_THREADS": "1",
    "CI": "true",  # without it openvino_telemetry, which nncf uses, reports to its makers
    "OLIVE_DISABLE_TELEMETRY": "1",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What a peer gave (``made``) or why it did not (``problem``), and the seconds that quantizing took it."""

    made: Made | None
    seconds: float
    problem: str | None = None


def quantized(peer: str, folder: Path, python: Path, *, limit_seconds: float) -> Result:
    """Let ``peer`` do the work in ``folder``, with the interpreter ``python``, for ``limit_seconds`` at most."""
    for name in (_MODEL, _MADE):
        (folder / name).unlink(missing_ok=True)
    path = os.pathsep.join([*filter(None, [os.environ.get("PYTHONPATH")]), str(_ROOT)])
    command = [str(python), "-m", "benchmarks.optimizer.peers.worker", peer, str(folder)]
    began = time.monotonic()
    try:
        done = subprocess.run(
            command,
            env={**os.environ, **_QUIET, "PYTHONPATH": path},
            capture_output=True,
            text=True,
            errors="replace",
            timeout=limit_seconds,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return Result(made=None, seconds=limit_seconds, problem=f"not done after {limit_seconds:.0f} s")
    if not (folder / _MADE).exists():
        said = (done.stderr.strip().splitlines() or [f"it ended with {done.returncode} and no word"])[-1]
        return Result(made=None, seconds=time.monotonic() - began, problem=said[:_LONGEST])
    told = json.loads((folder / _MADE).read_text())
    if "problem" in told:
        return Result(made=None, seconds=told["seconds"], problem=told["problem"])
    made = Made(
        model=(folder / _MODEL).read_bytes(),
        runtime=RuntimeName(told["runtime"]),
        form=Form(told["form"]),
        note=told["note"],
    )
    return Result(made=made, seconds=told["seconds"])


def write_work(folder: Path, work: Work) -> None:
    """Write ``work`` into ``folder``."""
    (folder / _FLOAT).write_bytes(work.float_model)
    splits = {"calibration": work.calibration, "selection": work.selection}
    for name, samples in splits.items():
        arrays = {f"{index}/{key}": array for index, one in enumerate(samples) for key, array in one.inputs.items()}
        np.savez(folder / f"{name}.npz", **arrays)  # type: ignore[arg-type]  # the stubs take the names for options
    labels = {name: [_plain(sample.label) for sample in samples] for name, samples in splits.items()}
    told = {"reference": work.reference, "metric": work.metric, "max_drop": work.max_drop, "labels": labels}
    (folder / _WORK).write_text(json.dumps(told))


def read_work(folder: Path) -> Work:
    """Return what :func:`write_work` wrote."""
    told = json.loads((folder / _WORK).read_text())
    return Work(
        float_model=(folder / _FLOAT).read_bytes(),
        reference=told["reference"],
        calibration=_samples(folder / "calibration.npz", told["labels"]["calibration"]),
        selection=_samples(folder / "selection.npz", told["labels"]["selection"]),
        metric=told["metric"],
        max_drop=told["max_drop"],
    )


def _samples(path: Path, labels: Sequence[int | None]) -> list[Sample]:
    inputs: list[dict[str, np.ndarray]] = [{} for _ in labels]
    with np.load(path) as stored:
        for key in stored.files:
            index, _, name = key.partition("/")
            inputs[int(index)][name] = stored[key]
    return [Sample(one, label) for one, label in zip(inputs, labels, strict=True)]


def _plain(label: object) -> int | None:
    return None if label is None else int(label)  # type: ignore[call-overload]  # numpy's integers


def _main(peer: str, folder: Path) -> None:
    work = read_work(folder)
    began = time.monotonic()
    try:
        with silenced_natively():
            made = PEERS[peer].quantize(work)
    except Exception as error:
        words = str(error) if isinstance(error, Refused) else f"{type(error).__name__}: {error}"
        told = {"problem": " ".join(words.split())[:_LONGEST], "seconds": time.monotonic() - began}
    else:
        (folder / _MODEL).write_bytes(made.model)
        told = {"runtime": made.runtime, "form": made.form, "note": made.note, "seconds": time.monotonic() - began}
    (folder / _MADE).write_text(json.dumps(told))


if __name__ == "__main__":
    _main(sys.argv[1], Path(sys.argv[2]))
