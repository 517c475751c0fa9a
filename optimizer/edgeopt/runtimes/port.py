"""The port to a runtime: a loaded model that predicts, and can be timed.

One adapter for each runtime stands beside this file; :func:`open_session` chooses. Example::

    session = open_session(model, RuntimeName.ONNXRUNTIME, threads=1)
    session.predict(samples)["logits"].shape          # (n, 10)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from edgeopt.recipe import RuntimeName
from edgeopt.samples import Array, Sample
from edgeopt_contract.manifest import TensorSpec

__all__ = ["Session", "open_session"]


class Session(Protocol):
    """A loaded model. The first axis of every input and output is the batch."""

    @property
    def inputs(self) -> Mapping[str, tuple[str, tuple[int | None, ...]]]:
        """Each input's dtype and shape without batch dimension; ``None`` is any length."""

    def predict(self, samples: Sequence[Sample]) -> dict[str, Array]:
        """Return every output for ``samples``, first axis samples. Raises :class:`ModelError`."""

    def predict_singly(self, samples: Sequence[Sample]) -> dict[str, Array]:
        """Return the same, one sample at a time: exactly what a device computes."""

    def call_on(self, feeds: dict[str, Array]) -> Callable[[], object]:
        """Return a function that runs ``feeds`` (from :func:`edgeopt.samples.stack`) and does nothing else."""

    def specs(self, sample: Sample) -> tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]]:
        """Return the model's inputs and outputs as they are for ``sample``."""


def open_session(model: bytes, runtime: RuntimeName, *, threads: int, simulated: bool = False) -> Session:
    """Load ``model`` (ONNX, or a ``.tflite`` for LiteRT) with ``runtime``.

    ``simulated`` computes quantized layers as what they stand for instead of with this CPU's integer kernels; only ONNX
    Runtime can. Raises :class:`ModelError`, or :class:`MissingExtraError` when the runtime is not installed.
    """
    if runtime is RuntimeName.ONNXRUNTIME:
        from edgeopt.runtimes.onnx_runtime import OnnxRuntimeSession

        return OnnxRuntimeSession(model, threads=threads, simulated=simulated)
    raise NotImplementedError(runtime)
