"""A folder or an array file through the bundle that serves on this device, with a runner of its own.

A running agent is not disturbed: its files are only read, its counts not touched. Each input gets its result in a
file of its own, written in one step, so that an interrupted run goes on where it was; a result that is older than its
input is made again. Results of another bundle are never mixed in. Example::

    job = BatchJob(installed, Path("pictures"), Path("answers"), RunnerOptions(threads=2))
    done = await run_batch(job, lambda one, total: print(one.file))
"""

from __future__ import annotations

import asyncio
import io
import json
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeopt_agent.arrays import fit_inputs
from edgeopt_agent.inference.readers import SUFFIXES, read_inputs
from edgeopt_agent.inference.served import NotServingError, Served, ServedOptions
from edgeopt_agent.inference.supervisor import RunnerCrashError, RunnerOptions
from edgeopt_agent.reports.books import layout_of
from edgeopt_agent.reports.counts import Counts
from edgeopt_agent.runner.arrays import array_of, tensor_of
from edgeopt_agent.update.slots import Installed
from edgeopt_contract.errors import EdgeoptError, UsageError
from edgeopt_contract.storage import storage_errors, write_atomically

__all__ = ["BatchJob", "Done", "run_batch"]

Array = npt.NDArray[Any]
_SUMMARY = "summary.json"
_ROWS_AT_ONCE = 64
_CRASHES_IN_A_ROW = 3
_AGAIN_SECONDS = 0.05


@dataclass(frozen=True, slots=True)
class BatchJob:
    """What goes through which bundle, and where the results go."""

    installed: Installed
    source: Path
    target: Path
    runner: RunnerOptions


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """What became of one file: answered, ``kept`` from an earlier run, or an ``error``; the time is the model's."""

    file: str
    result: str = ""
    kept: bool = False
    rows: int = 0
    microseconds: float = 0.0
    error: str = ""


async def run_batch(job: BatchJob, report: Callable[[Done, int], None]) -> list[Done]:
    """Answer every file of ``job`` and call ``report`` with each and the number of files; write the summary.

    A file that cannot be read, does not fit or crashes the model is an error of that file. Raises
    :class:`UsageError` when there is nothing to do or the target belongs to another bundle, :class:`StorageError`,
    and :class:`RunnerCrashError` when the model crashes again and again.
    """
    files = _files(job.source)
    _take_target(job)
    done: list[Done] = []
    with tempfile.TemporaryDirectory(prefix="edgeopt-batch-") as scratch:
        counts = Counts.open(Path(scratch) / "counts", layout_of(job.installed), boot="batch")
        session = _Session(Served(job.installed, ServedOptions(runner=job.runner), counts))
        try:
            await session.start()
            for file in files:
                done.append(await _answer(job, file, session))
                report(done[-1], len(files))
        finally:
            await session.stop()
            counts.close()
            _write_summary(job, done)
    return done


def _files(source: Path) -> list[Path]:
    """Return the inputs below ``source`` in order; a file is its own only input."""
    if source.is_file():
        return [source]
    if not source.is_dir():
        raise UsageError(f"{source} is not there: expected a folder, or an .npy or .npz file")
    found = sorted(path for path in source.rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file())
    if not found:
        raise UsageError(f"{source} holds nothing to answer: expected files ending in {', '.join(SUFFIXES)}")
    return found


def _take_target(job: BatchJob) -> None:
    """Mark the target as this bundle's before the first result. Raises :class:`UsageError` when it is another's."""
    summary = job.target / _SUMMARY
    if job.target.absolute().is_relative_to(job.source.absolute()):
        raise UsageError(f"{job.target} lies in {job.source}: results would be taken for inputs; choose another target")
    try:
        bundle = json.loads(summary.read_bytes())["bundle"] if summary.exists() else None
        if not isinstance(bundle, str | None):
            raise TypeError(bundle)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UsageError(f"{summary} is not a summary of a batch: choose another target") from error
    if bundle not in (None, job.installed.digest):
        raise UsageError(
            f"{job.target} holds results of the bundle {bundle[:12]}, this device serves {job.installed.digest[:12]}: "
            "choose another target"
        )
    with storage_errors(job.target):
        job.target.mkdir(parents=True, exist_ok=True)
    if bundle is None:
        _write_summary(job, [])


def _write_summary(job: BatchJob, done: Sequence[Done]) -> None:
    manifest = job.installed.manifest
    document = {
        "bundle": job.installed.digest,
        "name": manifest.name,
        "version": manifest.version,
        "variant": job.installed.variant.name,
        "answered": sum(not one.kept and not one.error for one in done),
        "kept": sum(one.kept for one in done),
        "failed": sum(bool(one.error) for one in done),
        "files": [asdict(one) for one in done],
    }
    write_atomically(job.target / _SUMMARY, json.dumps(document, indent=1).encode() + b"\n")


async def _answer(job: BatchJob, file: Path, session: _Session) -> Done:
    name = file.relative_to(file.parent if file == job.source else job.source).as_posix()
    result = job.target / f"{name}.npz"
    if _is_newer(result, file):
        return Done(file=name, result=f"{name}.npz", kept=True)
    try:
        outputs, rows, microseconds = await session.answer(file)
    except RunnerCrashError as error:
        if session.crashes >= _CRASHES_IN_A_ROW:
            raise
        return Done(file=name, error=str(error))
    except EdgeoptError as error:
        return Done(file=name, error=str(error))
    packed = io.BytesIO()
    np.savez(packed, **outputs)  # type: ignore[arg-type]  # the stub takes names for options
    write_atomically(result, packed.getbuffer())
    return Done(file=name, result=f"{name}.npz", rows=rows, microseconds=round(microseconds, 1))


def _is_newer(result: Path, file: Path) -> bool:
    """Say whether ``result`` was made after ``file``; make its directory."""
    with storage_errors(result):
        result.parent.mkdir(parents=True, exist_ok=True)
        return result.exists() and result.stat().st_mtime_ns >= file.stat().st_mtime_ns


class _Session:
    """A runner with the bundle; one that crashed is awaited."""

    def __init__(self, served: Served) -> None:
        self._served = served
        self.crashes = 0  # in a row
        self._specs = served.installed.manifest.inputs

    async def start(self) -> None:
        await self._served.start()

    async def stop(self) -> None:
        await self._served.stop()

    async def answer(self, file: Path) -> tuple[dict[str, Array], int, float]:
        """Return the outputs of one file, its rows, and the microseconds that the model took."""
        arrays, is_batch = fit_inputs(self._specs, read_inputs(file, self._specs))
        rows = len(next(iter(arrays.values())))
        parts: list[dict[str, Array]] = []
        microseconds = 0.0
        for start in range(0, rows, _ROWS_AT_ONCE):
            part, took = await self._infer({name: a[start : start + _ROWS_AT_ONCE] for name, a in arrays.items()})
            parts.append(part)
            microseconds += took
        joined = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        return (joined if is_batch else {name: array[0] for name, array in joined.items()}), rows, microseconds

    async def _infer(self, arrays: dict[str, Array]) -> tuple[dict[str, Array], float]:
        tensors = [tensor_of(name, array) for name, array in arrays.items()]
        while True:
            try:
                answer, outputs = await self._served.infer(tensors)
            except NotServingError as error:
                if self._served.health.crashes > _CRASHES_IN_A_ROW:
                    raise RunnerCrashError(str(error)) from error
                await asyncio.sleep(_AGAIN_SECONDS)  # it is being started again after the file before
            except RunnerCrashError:
                self.crashes += 1
                raise
            else:
                self.crashes = 0
                return {tensor.name: array_of(tensor) for tensor in outputs}, answer.microseconds
