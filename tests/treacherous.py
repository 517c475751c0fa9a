"""Runtimes that behave until their input is poison. Tests register them by entry point, as a package would.

``segfaulting`` dies of signal 11, ``stopping`` hangs as a stopped process does, ``hoarding`` takes shared memory, which
no limit of the kernel refuses, and ``absent`` cannot be imported at all.
"""

from __future__ import annotations

import mmap
import os
import signal
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from edgeopt_agent.runner.onnx_runtime import open_model
from edgeopt_agent.runner.port import ENTRY_POINTS, Model, Order
from tests.tiny import POISON

_CHUNK = 16 << 20
_hoard: list[mmap.mmap] = []


class _Treacherous:
    def __init__(self, model: Model, act: Callable[[], None]) -> None:
        self._model = model
        self._act = act
        self.inputs, self.outputs = model.inputs, model.outputs

    def run(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Answer, or act."""
        if np.max(inputs["x"]) >= POISON:
            self._act()
        return self._model.run(inputs)


def segfaulting(order: Order) -> Model:
    """Load a model that dies of poison."""
    return _Treacherous(open_model(order), lambda: os.kill(os.getpid(), signal.SIGSEGV))


def stopping(order: Order) -> Model:
    """Load a model that stops at poison."""
    return _Treacherous(open_model(order), lambda: os.kill(os.getpid(), signal.SIGSTOP))


def hoarding(order: Order) -> Model:
    """Load a model that takes more and more memory at poison."""

    def hoard() -> None:
        while True:
            chunk = mmap.mmap(-1, _CHUNK)
            chunk.write(bytes(_CHUNK))
            _hoard.append(chunk)

    return _Treacherous(open_model(order), hoard)


def register(directory: Path) -> None:
    """Install the runtimes into ``directory``, which is to stand on the module path."""
    info = directory / "treacherous-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: treacherous\nVersion: 1.0\n")
    lines = [f"{name} = tests.treacherous:{name}" for name in ("segfaulting", "stopping", "hoarding", "absent")]
    (info / "entry_points.txt").write_text("\n".join([f"[{ENTRY_POINTS}]", *lines]) + "\n")
