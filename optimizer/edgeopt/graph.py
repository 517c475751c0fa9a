"""Making a float ONNX graph ready for quantization: newer opset, constants folded, shapes known.

It quantizes nothing. Names of machines and source lines that exporters leave in the file are removed, so equal
graphs give equal bytes. Example::

    ready = prepare(exported)
    ready.model, ready.notes               # bytes, and what could not be done
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx
from onnx import version_converter

from edgeopt.silence import silenced
from edgeopt_contract.errors import ModelError

__all__ = ["MINIMUM_RUNTIME", "Prepared", "input_shapes", "op_types", "prepare", "stripped"]

MINIMUM_RUNTIME = "1.20"  # the oldest ONNX Runtime on a device
_MAX_IR = 10  # what it reads
_MAX_OPSET = 21  # what it reads
_LEAST_OPSET = 13  # per-channel DequantizeLinear (ONNX operator changelog)
_OPSET = 17  # where older graphs are taken


@dataclass(frozen=True, slots=True)
class Prepared:
    """The float model as it will run, and which steps had to be left out, in words."""

    model: bytes
    notes: tuple[str, ...]


def prepare(model: bytes) -> Prepared:
    """Return ``model`` folded and simplified, at an opset at which per-channel quantization is valid.

    Raises :class:`ModelError` when the bytes are not a valid ONNX model or the opset cannot be upgraded.
    """
    graph = _upgraded(_parse(model))
    simplified, simplifying = _simplified(graph)
    preprocessed, preprocessing = _preprocessed(simplified)
    return Prepared(stripped(preprocessed), tuple(note for note in (simplifying, preprocessing) if note))


def op_types(model: bytes) -> frozenset[str]:
    """Return the operators that the graph and its subgraphs use."""
    return frozenset(node.op_type for node in _nodes(onnx.load_model_from_string(model).graph))


def input_shapes(model: bytes) -> dict[str, tuple[int | None, ...]]:
    """Return the shape of each input without its first axis; ``None`` is any length. Raises :class:`ModelError`."""
    graph = _parse(model).graph
    weights = {item.name for item in graph.initializer}
    shapes = {node.name: node.type.tensor_type.shape.dim for node in graph.input if node.name not in weights}
    return {
        name: tuple(size.dim_value if size.HasField("dim_value") else None for size in dims[1:])
        for name, dims in shapes.items()
    }


def stripped(model: Any) -> bytes:
    """Serialize ``model`` without documentation, metadata and unused opsets, for the oldest runtime on a device."""
    model.ir_version = min(model.ir_version, _MAX_IR)
    model.producer_name, model.producer_version, model.doc_string = "edgeopt", "", ""
    del model.metadata_props[:]
    graph = model.graph
    graph.doc_string = ""
    del graph.metadata_props[:]
    nodes = list(_nodes(graph))
    for item in (*nodes, *graph.input, *graph.output, *graph.value_info, *graph.initializer):
        item.doc_string = ""
        del item.metadata_props[:]
    used = {node.domain for node in nodes} | {"", "ai.onnx"}
    kept = [opset for opset in model.opset_import if opset.domain in used]
    del model.opset_import[:]
    model.opset_import.extend(kept)
    data: bytes = model.SerializeToString(deterministic=True)
    return data


def _parse(model: bytes) -> Any:
    try:
        graph = onnx.load_model_from_string(model)
        onnx.checker.check_model(graph)
    except Exception as error:  # onnx raises whatever protobuf and its C++ checker raise
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ModelError(f"not a valid ONNX model: {reason}") from error
    return graph


def _upgraded(model: Any) -> Any:
    version = next((opset.version for opset in model.opset_import if opset.domain in ("", "ai.onnx")), 1)
    if version > _MAX_OPSET:
        raise ModelError(
            f"the model uses opset {version}, and devices read up to {_MAX_OPSET}: export it with an older opset"
        )
    if version >= _LEAST_OPSET:
        return model
    try:
        with silenced():
            return version_converter.convert_version(model, _OPSET)
    except Exception as error:
        raise ModelError(
            f"the model uses opset {version} and cannot be upgraded to {_OPSET} ({error}); per-channel quantization "
            f"needs at least {_LEAST_OPSET}: export it again with a newer opset"
        ) from error


def _simplified(model: Any) -> tuple[Any, str]:
    """Return ``model`` simplified, or as it is with the reason."""
    import onnxsim

    try:
        with silenced():
            simplified, valid = onnxsim.simplify(model)
    except Exception as error:  # a graph that onnxsim cannot read is still one that ONNX Runtime can run
        return model, f"not simplified: onnxsim stopped with {type(error).__name__}: {error}"
    return (simplified, "") if valid else (model, "not simplified: onnxsim's result differs from the original")


def _preprocessed(model: Any) -> tuple[Any, str]:
    """Return ``model`` after ONNX Runtime's own preparation, without symbolic shapes where those crash it."""
    from onnxruntime.quantization.shape_inference import quant_pre_process

    with tempfile.TemporaryDirectory(prefix="edgeopt-") as folder, silenced():
        result = str(Path(folder) / "prepared.onnx")
        try:
            quant_pre_process(model, result)
        except OSError:
            raise  # the disk's fault, not the model's
        except Exception as error:
            note = f"symbolic shape inference left out: it stopped with {type(error).__name__}"
        else:
            return onnx.load_model(result), ""
        try:
            quant_pre_process(model, result, skip_symbolic_shape=True)
        except Exception as error:
            raise ModelError(f"ONNX Runtime cannot prepare the model for quantization: {error}") from error
        return onnx.load_model(result), note


def _nodes(graph: Any) -> Iterable[Any]:
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            for subgraph in (*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs):
                yield from _nodes(subgraph)
