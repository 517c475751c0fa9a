"""Exported programs: ``.pt2`` files that ``torch.export.save`` wrote.

A ``.pt2`` file may also hold pickled objects and compiled libraries, which would run code when loaded. Both are
refused: tensors are loaded by torch's weights-only reader, and archives with anything else are turned away by their
table of contents. What remains is a graph that torch parses itself, and torch evaluates the shape expressions in it: as
with any program, take it from people you trust. Example::

    model = load_exported(Path("net.pt2"))
    model.input_shape()                              # (3, 224, 224)
"""

from __future__ import annotations

import os
import re
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from edgeopt.data import DEFAULT_INPUT
from edgeopt.files.reading import Shape
from edgeopt.loading import call_user_code
from edgeopt.samples import Array, Sample, chunks, stack
from edgeopt.silence import silenced
from edgeopt_contract.errors import MissingExtraError, ModelError

__all__ = ["OPSET", "ExportedModel", "first_cause", "load_exported"]

OPSET = 18  # what the dynamo exporter writes natively; ONNX Runtime 1.20 reads up to 21
_ONLY_TENSORS = "TORCH_FORCE_WEIGHTS_ONLY_LOAD"
_RUNS_CODE = re.compile(r"(^|/)data/(aotinductor|executorch)/|(^|/)data/constants/(?!tensor_|model_constants_config)")


def load_exported(path: Path) -> ExportedModel:
    """Return the program in ``path``. Raises :class:`ModelError` when it cannot be read, or would run code."""
    try:
        import torch
    except ModuleNotFoundError as error:
        raise MissingExtraError("torch", "optimizer") from error
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except FileNotFoundError as error:
        raise ModelError(f"there is no file {path}: check the path") from error
    except (OSError, zipfile.BadZipFile) as error:
        raise ModelError(f"cannot read {path} as an exported program: {error}; torch.export.save writes one") from error
    harmful = [name for name in names if _RUNS_CODE.search(name)]
    if harmful:
        raise ModelError(
            f"{path} holds {harmful[0]}, which would run code from the file when loaded; export the plain program with "
            "torch.export.export and torch.export.save"
        )
    try:
        with silenced(), _only_tensors():
            program = torch.export.load(path)
    except Exception as error:
        raise ModelError(
            f"torch {torch.__version__} cannot load {path}: {first_cause(error)}; "
            "pickled objects in it are never loaded"
        ) from error
    return ExportedModel(program, str(path))


class ExportedModel:
    """A ``torch.export.ExportedProgram`` whose inputs are tensors."""

    def __init__(self, program: Any, reference: str) -> None:
        """Take ``program``. Raises :class:`ModelError` when an input is no tensor, or there is none."""
        self._program = program
        placeholders = {node.name: node.meta.get("val") for node in program.graph.nodes if node.op == "placeholder"}
        wanted = program.graph_signature.user_inputs
        tensors = [placeholders.get(name) if isinstance(name, str) else None for name in wanted]
        positional, keywords = program.call_spec.in_spec.children()
        flat = positional.num_leaves == positional.num_children and keywords.num_leaves == keywords.num_children
        if not wanted or not flat or any(not getattr(tensor, "shape", ()) for tensor in tensors):
            raise ModelError(f"{reference}: expected a program whose inputs are tensors with a batch dimension")
        self._positional = positional.num_children
        self._names = [*wanted[: self._positional], *keywords.context]
        self._tensors = dict(zip(self._names, tensors, strict=True))

    @property
    def module(self) -> Any:
        """The program as a ``torch.nn.Module``; each call unpacks it anew."""
        with silenced():
            return self._program.module()

    def input_shape(self) -> Shape | None:
        """Return the shape of the only input without batch dimension; ``None`` when there are several."""
        if len(self._names) != 1:
            return None
        (tensor,) = self._tensors.values()
        return tuple(size if isinstance(size, int) else None for size in tensor.shape[1:])

    def to_onnx(self, sample: Sample) -> bytes:  # noqa: ARG002  (the port gives it; a program knows its inputs)
        """Export with the dynamo exporter; the batch is free if the program's is. Raises :class:`ModelError`."""
        import torch

        try:
            with silenced():
                exported = torch.onnx.export(
                    self._program, dynamo=True, opset_version=OPSET, input_names=self._names, verbose=False
                )
        except Exception as error:
            raise ModelError(
                f"torch.onnx.export(dynamo=True) cannot export the program: {first_cause(error)}; export it yourself "
                "and give the .onnx file"
            ) from error
        assert exported is not None  # dynamo=True always gives a program
        data: bytes = exported.model_proto.SerializeToString()
        return data

    def predict(self, samples: Sequence[Sample]) -> list[Array]:
        """Return the program's outputs in order, one sample at a time where its batch is fixed."""
        free = not any(isinstance(tensor.shape[0], int) for tensor in self._tensors.values())
        size = len(samples) if free else 1
        module = self.module
        parts = [self._run(module, stack(chunk)) for chunk in chunks(samples, size)]
        return [np.concatenate(outputs) for outputs in zip(*parts, strict=True)]

    def _run(self, module: Any, batch: dict[str, Array]) -> list[Array]:
        import torch
        from torch.utils import _pytree

        named = dict(zip(self._names, batch.values(), strict=True)) if set(batch) == {DEFAULT_INPUT} else batch
        feeds = {
            name: torch.from_numpy(np.ascontiguousarray(named[name])).to(tensor.dtype)
            for name, tensor in self._tensors.items()
        }
        arguments, keywords = self._names[: self._positional], self._names[self._positional :]
        with torch.inference_mode(), silenced():
            outputs = call_user_code(
                lambda: module(*(feeds[name] for name in arguments), **{name: feeds[name] for name in keywords}),
                "running the exported program on samples of the data",
                ModelError,
            )
            return [np.asarray(output) for output in _pytree.tree_leaves(outputs)]


def first_cause(error: BaseException) -> str:
    """Return the first line of the error that began the chain: the exporter wraps it in general advice."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


@contextmanager
def _only_tensors() -> Iterator[None]:
    """Let torch unpickle nothing but tensors: its export reader would otherwise ask for whole objects."""
    before = os.environ.get(_ONLY_TENSORS)
    os.environ[_ONLY_TENSORS] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ[_ONLY_TENSORS]
        else:
            os.environ[_ONLY_TENSORS] = before
