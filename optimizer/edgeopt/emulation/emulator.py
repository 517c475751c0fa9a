"""An emulated CPU that answers samples with the real runtime, several worker processes side by side.

It measures nothing: how long an emulated CPU takes says nothing of the real one. Workers die with this process, and
with the first that fails. Example::

    emulator = Emulator(command=("qemu-x86_64-static", "-cpu", "Haswell", sys.executable), title="Haswell")
    emulator.predict(model, samples)["logits"].shape          # (n, 10)
"""

from __future__ import annotations

import os
import selectors
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from edgeopt.emulation import worker
from edgeopt.emulation.leash import leashed
from edgeopt.emulation.planning import Cost
from edgeopt.recipe import RuntimeName
from edgeopt.samples import Array, Sample
from edgeopt_contract.errors import ModelError, UsageError

__all__ = ["EMULATED_RUNTIMES", "Emulator"]

EMULATED_RUNTIMES = (RuntimeName.ONNXRUNTIME, RuntimeName.OPENVINO)
_PATIENCE = 300.0  # seconds without a sign of life; loading a large model on a busy machine takes a minute
_TOLD = 12  # lines of a dead worker's last words
_TRIED = 3  # samples that tell how long one takes; the first one also warms the translator up


def _cores() -> int:
    return len(os.sched_getaffinity(0))


@dataclass(frozen=True, slots=True, kw_only=True)
class Emulator:
    """An emulated CPU. ``command`` starts Python on it; ``patience`` is in seconds without any progress."""

    command: tuple[str, ...]
    title: str
    processes: int = field(default_factory=_cores)
    patience: float = _PATIENCE

    def predict(
        self,
        model: bytes,
        samples: Sequence[Sample],
        *,
        runtime: RuntimeName = RuntimeName.ONNXRUNTIME,
        threads: int = 1,
        on_sample: Callable[[], None] | None = None,
    ) -> dict[str, Array]:
        """Return every output for ``samples``, one sample at a time, first axis samples.

        ``on_sample`` is called after each. Raises :class:`ModelError` with the worker's last words when it fails,
        crashes or hangs, and :class:`UsageError` for a runtime that is not run here, or no sample.
        """
        if runtime not in EMULATED_RUNTIMES or not samples:
            raise UsageError(f"expected samples for {' or '.join(EMULATED_RUNTIMES)}, got {len(samples)} for {runtime}")
        tick = on_sample or (lambda: None)
        return self._answered(model, samples, (str(runtime), str(threads)), lambda _worker: tick())

    def cost(self, model: bytes, samples: Sequence[Sample], *, threads: int = 1) -> Cost:
        """Return what a few of ``samples`` take: seconds to start, and seconds for each more, all workers busy."""
        few = (list(samples) * _TRIED)[: _TRIED * self.processes]
        begun = time.monotonic()
        marks: dict[int, list[float]] = {}  # of each worker: one may start much later than another
        self._answered(
            model,
            few,
            (str(RuntimeName.ONNXRUNTIME), str(threads)),
            lambda worker: marks.setdefault(worker, []).append(time.monotonic()),
        )
        busy = sum(times[-1] - times[0] for times in marks.values())
        more = max(1, len(few) - len(marks))
        return Cost(start=max(times[0] for times in marks.values()) - begun, each=busy / more / len(marks))

    def _answered(
        self, model: bytes, samples: Sequence[Sample], settings: tuple[str, ...], on_sample: Callable[[int], None]
    ) -> dict[str, Array]:
        """Return the outputs; ``on_sample`` is called after each sample, with the number of the worker."""
        with tempfile.TemporaryDirectory(prefix="edgeopt-") as folder:
            crew = _Crew(self, Path(folder))
            try:
                crew.start(model, samples, settings)
                crew.watch(on_sample)
                return crew.outputs()
            finally:
                crew.dismiss()


class _Crew:
    """The workers of one call, each with its share of the samples."""

    def __init__(self, emulator: Emulator, folder: Path) -> None:
        self._emulator = emulator
        self._folder = folder
        self._workers: list[subprocess.Popen[bytes]] = []

    def start(self, model: bytes, samples: Sequence[Sample], settings: tuple[str, ...]) -> None:
        path = self._folder / "model.onnx"
        path.write_bytes(model)
        count = min(self._emulator.processes, len(samples))
        for number in range(count):
            part = samples[number * len(samples) // count : (number + 1) * len(samples) // count]
            arrays: Any = {
                f"{index}:{name}": array for index, one in enumerate(part) for name, array in one.inputs.items()
            }
            np.savez(self._file(number, "in.npz"), **arrays)
            files = (str(path), str(self._file(number, "in.npz")), str(self._file(number, "out.npz")))
            self._workers.append(self._started(number, (*settings, *files)))

    def watch(self, on_sample: Callable[[int], None]) -> None:
        """Wait until all are done; count their samples meanwhile."""
        heard = dict.fromkeys(range(len(self._workers)), time.monotonic())
        with selectors.DefaultSelector() as selector:
            for number, process in enumerate(self._workers):
                assert process.stdout is not None  # it was started with a pipe
                selector.register(process.stdout, selectors.EVENT_READ, number)
            while selector.get_map():
                for key, _ in selector.select(timeout=1.0):
                    said = os.read(key.fd, 2**16)
                    heard[key.data] = time.monotonic()
                    for _ in range(said.count(b"sample\n")):
                        on_sample(key.data)
                    if not said:
                        selector.unregister(key.fileobj)
                        self._check_end(key.data)
                        del heard[key.data]
                self._check_patience(heard)

    def outputs(self) -> dict[str, Array]:
        """Return the outputs of all, in the order of the samples."""
        parts = []
        for number in range(len(self._workers)):
            with np.load(self._file(number, "out.npz")) as stored:
                parts.append({key[1:]: stored[key] for key in stored.files})
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    def dismiss(self) -> None:
        """End every worker that still runs."""
        for process in self._workers:
            process.kill()
            process.wait()
            if process.stdout is not None:
                process.stdout.close()

    def _started(self, number: int, arguments: tuple[str, ...]) -> subprocess.Popen[bytes]:
        # -P: the folder of the script holds modules that are none of its business
        python = (*self._emulator.command, "-P", "-s", "-B", "-W", "ignore", str(worker.__file__))
        kept = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
        with self._file(number, "stderr").open("wb") as stderr:
            return subprocess.Popen(
                leashed(*python, *arguments),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=stderr,
                env=kept | {"OMP_NUM_THREADS": "1"},
            )

    def _check_end(self, number: int) -> None:
        code = self._workers[number].wait()
        if code != 0:
            raise ModelError(f"{self._emulator.title} ended with code {code} and said: {self._last_words(number)}")

    def _check_patience(self, heard: dict[int, float]) -> None:
        for number, last in heard.items():
            if time.monotonic() - last > self._emulator.patience:
                raise ModelError(
                    f"{self._emulator.title} showed no sign of life for {self._emulator.patience:g} s, and was ended; "
                    f"it said: {self._last_words(number)}"
                )

    def _last_words(self, number: int) -> str:
        """Return the end of what a worker wrote, without QEMU's warnings of features that nobody asked for."""
        lines = self._file(number, "stderr").read_text(errors="replace").splitlines()
        told = [line for line in lines if "warning: TCG doesn't support requested feature" not in line]
        return "\n".join(told[-_TOLD:]) or "nothing"

    def _file(self, number: int, name: str) -> Path:
        return self._folder / f"{number}.{name}"
