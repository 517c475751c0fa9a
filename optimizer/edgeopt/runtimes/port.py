"""The port to a runtime: a loaded model that predicts, and can be timed.

One adapter for each runtime stands beside this file; :func:`open_session` chooses. Example::

    session = open_session(model, RuntimeName.ONNXRUNTIME, threads=1)
    session.predict(samples)["logits"].shape          # (n, 10)
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from importlib import metadata
from typing import Protocol

from edgeopt.recipe import RuntimeName
from edgeopt.samples import Array, Sample
from edgeopt_contract.errors import ModelError
from edgeopt_contract.manifest import TensorSpec

__all__ = ["Predictor", "Session", "available", "open_session"]

_PACKAGES = {
    RuntimeName.ONNXRUNTIME: "onnxruntime",
    RuntimeName.OPENVINO: "openvino",
    RuntimeName.LITERT: "ai-edge-litert",
}


class Predictor(Protocol):
    """A loaded model that answers. The first axis of every input and output is the batch."""

    @property
    def inputs(self) -> Mapping[str, tuple[str, tuple[int | None, ...]]]:
        """Each input's dtype and shape without batch dimension; ``None`` is any length."""

    def predict(self, samples: Sequence[Sample]) -> dict[str, Array]:
        """Return every output for ``samples``, first axis samples. Raises :class:`ModelError`."""

    def predict_singly(self, samples: Sequence[Sample]) -> dict[str, Array]:
        """Return the same, one sample at a time: exactly what a device computes."""

    def specs(self, sample: Sample) -> tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]]:
        """Return the model's inputs and outputs as they are for ``sample``."""


class Session(Predictor, Protocol):
    """One that is loaded in this process, and can be timed there."""

    def call_on(self, feeds: dict[str, Array]) -> Callable[[], object]:
        """Return a function that runs ``feeds`` (from :func:`edgeopt.samples.stack`) and does nothing else."""


def open_session(model: bytes, runtime: RuntimeName, *, threads: int, simulated: bool = False) -> Session:
    """Load ``model`` (ONNX, or a ``.tflite`` for LiteRT) with ``runtime``, in this process.

    ``simulated`` computes quantized layers as what they stand for instead of with this CPU's integer kernels; only ONNX
    Runtime can. Raises :class:`ModelError`, or :class:`MissingExtraError` when the runtime is not installed.
    """
    if simulated and runtime is not RuntimeName.ONNXRUNTIME:
        raise ModelError(f"{runtime} cannot simulate the integer kernels of another kind of CPU; only onnxruntime can")
    if runtime is RuntimeName.OPENVINO:
        from edgeopt.runtimes.openvino import OpenVinoSession

        return OpenVinoSession(model, threads=threads)
    if runtime is RuntimeName.LITERT:
        from edgeopt.runtimes.litert import LiteRtSession

        return LiteRtSession(model, threads=threads)
    from edgeopt.runtimes.onnx_runtime import OnnxRuntimeSession

    return OnnxRuntimeSession(model, threads=threads, simulated=simulated)


def available() -> dict[RuntimeName, str]:
    """Return the runtimes installed here with their versions; nothing is imported for it."""
    found = {}
    for runtime, package in _PACKAGES.items():
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[runtime] = metadata.version(package)
    return found
