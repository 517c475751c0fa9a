"""The port to a runtime: a model that was loaded from bytes, and runs one sample at a time.

One adapter for each runtime stands beside this file and is imported only when a bundle asks for it. Another runtime can
be added by a package with an entry point in the group ``edgeopt_agent.runtimes``, named after the runtime, that is an
:class:`Opener`. Example::

    model = open_model("litert", Order(data, threads=1, inputs=("x",), outputs=("p",)))
    model.run({"x": array of shape (1, 4)})["p"]
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module, metadata
from typing import Protocol

from edgeopt_agent.runner.arrays import Array
from edgeopt_contract.errors import ModelError

__all__ = ["ENTRY_POINTS", "Model", "Opener", "Order", "open_model"]

ENTRY_POINTS = "edgeopt_agent.runtimes"
_OWN = {
    "onnxruntime": "edgeopt_agent.runner.onnx_runtime",
    "litert": "edgeopt_agent.runner.litert",
    "openvino": "edgeopt_agent.runner.openvino",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What is to be loaded: the bytes that were hashed, and the names in the bundle's signature."""

    data: bytes
    threads: int
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


class Model(Protocol):
    """A loaded model."""

    @property
    def inputs(self) -> list[str]:
        """The names that :meth:`run` wants."""

    @property
    def outputs(self) -> list[str]:
        """The names that it gives."""

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Return the outputs, in arrays of their own, for one sample; every first axis has the length one."""


class Opener(Protocol):
    """Loads a model; raises what the runtime raises."""

    def __call__(self, order: Order) -> Model:
        """Return the model."""


def open_model(runtime: str, order: Order) -> Model:
    """Load with ``runtime``. Raises :class:`ModelError` when it is not installed, and what the runtime raises."""
    try:
        opener = _opener(runtime)
    except Exception as error:  # a runtime that is broken on this board may raise anything when it is imported
        raise ModelError(f"the runtime {runtime} cannot be imported: {type(error).__name__}: {error}") from error
    return opener(order)


def _opener(runtime: str) -> Opener:
    if runtime in _OWN:
        own: Opener = import_module(_OWN[runtime]).open_model
        return own
    for entry in metadata.entry_points(group=ENTRY_POINTS, name=runtime):
        found: Opener = entry.load()
        return found
    raise LookupError("it is not installed")
