"""A child whose runtime, unless it is ONNX Runtime, ends or stops it at a moment that the arguments name.

``python doomed_child.py <moment> <fate> <descriptor> <pid of the parent>``: moment ``load``, ``predict`` or ``run`` (a
timed run), fate ``segv``, ``exit`` or ``hang``. At other moments it answers each sample with a one.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from edgeopt.recipe import RuntimeName
from edgeopt.runtimes.child import main
from edgeopt.runtimes.port import Session, open_session
from edgeopt.samples import Array, Sample
from edgeopt_contract.manifest import TensorSpec


class Doomed:
    """A session that meets its fate."""

    def __init__(self, moment: str, fate: str) -> None:
        self._moment, self._fate = moment, fate
        self._reach("load")

    @property
    def inputs(self) -> Mapping[str, tuple[str, tuple[int | None, ...]]]:
        """Say that there is one."""
        return {"x": ("float32", (1,))}

    def predict(self, samples: Sequence[Sample]) -> dict[str, Array]:
        """Return ones."""
        self._reach("predict")
        return {"y": np.ones((len(samples), 1), np.float32)}

    def predict_singly(self, samples: Sequence[Sample]) -> dict[str, Array]:
        """Return ones."""
        return self.predict(samples)

    def specs(self, _sample: Sample) -> tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]]:
        """Return nothing."""
        return (), ()

    def call_on(self, _feeds: dict[str, Array]) -> Callable[[], object]:
        """Return a run."""
        return lambda: self._reach("run")

    def _reach(self, moment: str) -> None:
        if moment != self._moment:
            return
        match self._fate:
            case "segv":
                os.kill(os.getpid(), signal.SIGSEGV)
            case "exit":
                raise RuntimeError("no memory left")
            case _:
                signal.pthread_sigmask(signal.SIG_BLOCK, set(signal.Signals) - {signal.SIGKILL, signal.SIGSTOP})
                time.sleep(3600)


def open_doomed(model: bytes, runtime: RuntimeName, *, threads: int) -> Session:
    """Load what is for ONNX Runtime, and a doomed session for any other."""
    if runtime is RuntimeName.ONNXRUNTIME:
        return open_session(model, runtime, threads=threads)
    return Doomed(*sys.argv[1:3])


if __name__ == "__main__":
    main(sys.argv[3:], open_doomed)
