"""Making a float ONNX graph ready for quantization: newer opset, constants folded, shapes known, nodes named.

It quantizes nothing. Names of machines and source lines that exporters leave in the file are removed, so equal
graphs give equal bytes; every node has a name of its own, by which recipes leave it in float. Weights are initializers
of the main graph, those of LSTM and GRU included, and If nodes whose condition the graph decides are gone; an If that
depends on the data stays as it is. Example::

    ready = prepare(exported, shapes={"input": (3, 224, 224)})
    ready.model, ready.notes               # bytes, and what could not be done
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx
from onnx import inliner, version_converter

from edgeopt.folding import inline_decided, lift_constants
from edgeopt.nodes import all_nodes, first_line, name_nodes, parsed
from edgeopt.silence import silenced
from edgeopt_contract.errors import ModelError

__all__ = ["Prepared", "input_shapes", "op_types", "prepare", "stripped", "with_external_weights"]

_MAX_IR = 10  # what ONNX Runtime 1.20 reads, the oldest on a device
_MAX_OPSET = 21  # what it reads
_LEAST_OPSET = 13  # per-channel DequantizeLinear (ONNX operator changelog)
_OPSET = 17  # where older graphs are taken
_DOMAINS = frozenset(("", "ai.onnx", "ai.onnx.ml", "com.microsoft"))  # what ONNX Runtime has without extensions
_OUR_WORK = ["eliminate_if_with_const_cond"]  # onnxsim's leaves nodes out of order where branches are nested


@dataclass(frozen=True, slots=True)
class Prepared:
    """The float model as it will run, and which steps had to be left out, in words."""

    model: bytes
    notes: tuple[str, ...]


def prepare(model: bytes, shapes: Mapping[str, tuple[int, ...]] | None = None) -> Prepared:
    """Return ``model`` folded and simplified, at an opset at which per-channel quantization is valid.

    ``shapes`` are those of one sample by input, without batch dimension: where they are given, the axes that the model
    leaves free are fixed to them (the batch stays free), and what depends on them is decided. Raises
    :class:`ModelError` when the bytes are not a valid ONNX model, use operators that no device has, or an opset that
    cannot be upgraded.
    """
    graph = _upgraded(_parse(model))
    _fix_axes(graph, shapes or {})
    lift_constants(graph)
    name_nodes(graph)  # before branches are opened: ONNX Runtime refuses two nodes of one name
    simplified, simplifying = _simplified(graph)
    preprocessed, preprocessing = _preprocessed(simplified)
    lift_constants(preprocessed)
    name_nodes(preprocessed)
    return Prepared(stripped(preprocessed), tuple(note for note in (simplifying, preprocessing) if note))


def op_types(model: bytes) -> frozenset[str]:
    """Return the operators that the graph and its subgraphs use."""
    return frozenset(node.op_type for node in all_nodes(parsed(model).graph))


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
    nodes = list(all_nodes(graph))
    for item in (*nodes, *graph.input, *graph.output, *graph.value_info, *graph.initializer):
        item.doc_string = ""
        del item.metadata_props[:]
    used = {node.domain for node in nodes} | {"", "ai.onnx"}
    kept = [opset for opset in model.opset_import if opset.domain in used]
    del model.opset_import[:]
    model.opset_import.extend(kept)
    data: bytes = model.SerializeToString(deterministic=True)
    return data


def with_external_weights(model: bytes, path: Path) -> bytes:
    """Return ``model``, read from ``path``, with the weights that it keeps in files beside it.

    Raises :class:`ModelError` when it is no model, or a file of weights is missing, outside the folder or too short.
    """
    try:
        graph = onnx.load_model_from_string(model)
        if not any(tensor.data_location == onnx.TensorProto.EXTERNAL for tensor in graph.graph.initializer):
            return model
    except Exception as error:  # protobuf raises errors of its own
        raise ModelError(f"{path} is not a valid ONNX model: {first_line(error)}") from error
    try:
        onnx.load_external_data_for_model(graph, str(path.parent))
        data: bytes = graph.SerializeToString()
    except Exception as error:  # onnx checks the paths in C++, and protobuf holds at most 2 GiB
        raise ModelError(f"cannot read the weights beside {path}: {first_line(error)}") from error
    return data


def _parse(model: bytes) -> Any:
    graph = parsed(model)
    _refuse_external(graph)
    try:
        onnx.checker.check_model(graph)
        graph = inliner.inline_local_functions(graph) if graph.functions else graph
    except Exception as error:  # onnx raises whatever its C++ checker raises
        raise ModelError(f"not a valid ONNX model: {first_line(error)}") from error
    foreign = next((node for node in all_nodes(graph.graph) if node.domain not in _DOMAINS), None)
    if foreign is not None:
        raise ModelError(
            f"the model uses the operator {foreign.op_type} of the domain '{foreign.domain}', which ONNX Runtime has "
            "only with an extension library: a device has none; express it in standard operators, or leave it out of "
            "the model"
        )
    return graph


def _refuse_external(model: Any) -> None:
    """Weights beside the file cannot be read from bytes; :func:`with_external_weights` reads them."""
    for tensor in model.graph.initializer:
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            place = next((entry.value for entry in tensor.external_data if entry.key == "location"), "?")
            raise ModelError(f"the weight '{tensor.name}' is in the file {place}: give the path of the .onnx beside it")


def _fix_axes(model: Any, shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Give the free axes of the inputs, but for the batch, the sizes in ``shapes``, in place.

    A single input takes a single shape, whatever its name; data of another rank are refused elsewhere.
    """
    weights = {tensor.name for tensor in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in weights]
    if len(inputs) == len(shapes) == 1:
        shapes = {inputs[0].name: next(iter(shapes.values()))}
    for value in inputs:
        axes, sizes = value.type.tensor_type.shape.dim[1:], shapes.get(value.name, ())
        for axis, size in zip(axes, sizes if len(sizes) == len(axes) else (), strict=False):
            if not axis.HasField("dim_value") or axis.dim_value <= 0:
                axis.dim_value = size


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
    """Return ``model`` simplified and without decided If nodes, or as far as that went with the reason."""
    import onnxsim

    while True:
        try:
            with silenced():
                simplified, valid = onnxsim.simplify(model, skipped_optimizers=_OUR_WORK)
        except Exception as error:  # a graph that onnxsim cannot read is still one that ONNX Runtime can run
            return model, f"not simplified: onnxsim stopped with {type(error).__name__}: {first_line(error)}"
        if not valid:
            return model, "not simplified: onnxsim's result differs from the original"
        model = simplified
        lift_constants(model)
        if not inline_decided(model):
            return model, ""


def _preprocessed(model: Any) -> tuple[Any, str]:
    """Return ``model`` after ONNX Runtime's own preparation, without symbolic shapes where those crash it."""
    from onnxruntime.quantization.shape_inference import quant_pre_process

    # chdir: where symbolic shape inference gives up, it leaves what it has in the working directory
    with tempfile.TemporaryDirectory(prefix="edgeopt-") as folder, contextlib.chdir(folder), silenced():
        original, result = str(Path(folder) / "original.onnx"), str(Path(folder) / "prepared.onnx")
        onnx.save_model(model, original)  # a path: given the model itself, a first attempt that fails leaves it changed
        try:
            quant_pre_process(original, result)
        except OSError:
            raise  # the disk's fault, not the model's
        except Exception as error:
            note = f"symbolic shape inference left out: it stopped with {type(error).__name__}"
        else:
            return onnx.load_model(result), ""
        try:
            quant_pre_process(original, result, skip_symbolic_shape=True)
        except Exception as error:
            raise ModelError(f"ONNX Runtime cannot prepare the model for quantization: {error}") from error
        return onnx.load_model(result), note
