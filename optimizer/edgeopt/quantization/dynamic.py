"""Dynamic int8: weights in int8 beforehand, the range of each activation taken anew while the model runs.

Nothing is calibrated, so no activation can leave a range that data once had: what keeps transformers and recurrent nets
sound, where static ranges fail. Matrix products with constant weights become MatMulInteger, an LSTM becomes
DynamicQuantizeLSTM (ONNX Runtime's quantizer writes both). Looked-up tables, the weights of a GRU, for which ONNX
Runtime has no integer kernel, and those of convolutions, whose ConvInteger is no match for the float kernels, are kept
in int8 and computed in float (:mod:`edgeopt.quantization.weights`). Example::

    small = quantize_dynamic(prepared.model, Recipe(precision=Precision.INT8_DYNAMIC))
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

from edgeopt.graph import stripped
from edgeopt.nodes import all_nodes, attributes, name_nodes, parsed
from edgeopt.quantization.pairs import pair_safe
from edgeopt.quantization.weights import compress_weights, compressible_weights
from edgeopt.recipe import Precision, Recipe
from edgeopt.samples import Array
from edgeopt.silence import silenced
from edgeopt_contract.errors import ModelError

__all__ = ["dynamic_weights", "quantize_dynamic"]

_COMPUTED = ("MatMul", "Gemm", "LSTM")
_STORED = ("Gather", "GRU", "Conv", "ConvTranspose")


def quantize_dynamic(model: bytes, recipe: Recipe) -> bytes:
    """Return ``model`` with ``recipe.operators`` (if empty: all that the module's description names) in dynamic int8.

    Weights have one scale for each output channel. If ``recipe.reduced_weights`` names any, all that are multiplied
    have seven bits, or with ``recipe.pair_safe`` as much of eight as their pairs allow: products of u8 by s8 saturate
    on x86 without VNNI, and ONNX Runtime's quantizer knows only all or none. Products of two activations (attention
    scores), and Gemm nodes with alpha or beta other than one, stay in float. The same arguments give the same bytes.
    Raises :class:`ModelError` when nothing can be quantized, or an LSTM's weights are computed while it runs.
    """
    graph = name_nodes(parsed(model))
    chosen = _chosen(graph.graph, recipe)
    stored = tuple(kind for kind in _STORED if kind in (recipe.operators or _STORED))
    weights_only = Recipe(precision=Precision.INT8_WEIGHTS, operators=stored, float_nodes=recipe.float_nodes)
    if not chosen:
        raise ModelError(
            f"nothing to quantize dynamically: expected {', '.join(_COMPUTED)} with constant weights; "
            "weights alone (int8-weights) may still make the file smaller"
        )
    reduced = bool(recipe.reduced_weights)
    _turn(graph, chosen)
    quantized = _by_onnxruntime(graph, chosen, reduce_range=reduced and not recipe.pair_safe)
    if reduced and recipe.pair_safe:
        quantized = _pair_safe(quantized, graph, [name for node in chosen for name in _weights(node)])
    return compress_weights(quantized, weights_only) if compressible_weights(quantized, weights_only) else quantized


def dynamic_weights(model: bytes, recipe: Recipe) -> tuple[str, ...]:
    """Return the names of the weights that :func:`quantize_dynamic` multiplies in int8, in the graph's order."""
    graph = name_nodes(parsed(model)).graph
    names = [name for node in _chosen(graph, recipe) for name in _weights(node)]
    return tuple(dict.fromkeys(names))


def _chosen(graph: Any, recipe: Recipe) -> list[Any]:
    """Return the nodes that get integer kernels. Raises :class:`ModelError` for an LSTM without constant weights."""
    constants = {one.name for one in graph.initializer if one.data_type == onnx.TensorProto.FLOAT}
    operators = set(recipe.operators or _COMPUTED) & set(_COMPUTED)
    nodes = []
    for node in graph.node:
        if node.op_type not in operators or node.name in recipe.float_nodes or not _is_plain(node):
            continue
        if constants.issuperset(_weights(node)):
            nodes.append(node)
        elif node.op_type == "LSTM":
            raise ModelError(
                f"the weights of LSTM '{node.name}' are computed while it runs, so quantizers skip it: prepare the "
                "model first (edgeopt.graph.prepare folds them)"
            )
    return nodes


def _is_plain(node: Any) -> bool:
    """Say whether a node is no more than a product and a sum, as ONNX Runtime's quantizer wants a Gemm."""
    if node.op_type != "Gemm":
        return True
    settings = attributes(node)
    return (settings.get("alpha", 1.0), settings.get("beta", 1.0), settings.get("transA", 0)) == (1.0, 1.0, 0)


def _turn(graph: Any, chosen: Sequence[Any]) -> None:
    """Store transposed weights of Gemm nodes the other way round, in place.

    ONNX Runtime's quantizer does so itself, but under names that differ between its versions, and before 1.32 also for
    other nodes that read the same weights. Those keep them here.
    """
    stored = {item.name: item for item in graph.graph.initializer}
    turned: dict[str, str] = {}
    for node in chosen:
        flag = next((one for one in node.attribute if one.name == "transB" and one.i), None)
        if node.op_type != "Gemm" or flag is None:
            continue
        name = node.input[1]
        if name not in turned:
            weights = np.ascontiguousarray(numpy_helper.to_array(stored[name]).T)
            turned[name] = next(new for number in count() if (new := f"{name}_turned{number or ''}") not in stored)
            graph.graph.initializer.append(numpy_helper.from_array(weights, turned[name]))
        node.input[1] = turned[name]
        node.attribute.remove(flag)
    read = {name for node in all_nodes(graph.graph) for name in node.input} | {one.name for one in graph.graph.output}
    for name in turned:
        if name not in read:
            graph.graph.initializer.remove(stored[name])


def _weights(node: Any) -> list[str]:
    return list(node.input[1:3] if node.op_type == "LSTM" else node.input[1:2])


def _by_onnxruntime(model: Any, chosen: list[Any], *, reduce_range: bool) -> bytes:
    from onnxruntime.quantization import QuantType
    from onnxruntime.quantization import quantize_dynamic as quantize

    # Its first step replaces each Gemm by a MatMul of this name and an Add.
    names = [f"{node.name}_MatMul" if node.op_type == "Gemm" else node.name for node in chosen]
    with tempfile.TemporaryDirectory(prefix="edgeopt-") as folder, silenced():
        result = Path(folder) / "dynamic.onnx"
        try:
            quantize(
                model,
                str(result),
                op_types_to_quantize=["MatMul", "LSTM"],
                nodes_to_quantize=names,
                per_channel=True,
                reduce_range=reduce_range,
                weight_type=QuantType.QInt8,
            )
        except OSError:
            raise  # the disk's fault, not the model's
        except Exception as error:  # whatever a model can do to ONNX Runtime's Python code
            raise ModelError(f"ONNX Runtime cannot quantize the model dynamically: {error}") from error
        return stripped(onnx.load_model(str(result)))


def _pair_safe(quantized: bytes, original: Any, names: Sequence[str]) -> bytes:
    """Return ``quantized`` with the weights ``names`` of ``original`` as :mod:`edgeopt.quantization.pairs` has them."""
    model = parsed(quantized)
    constants = {item.name: item for item in model.graph.initializer}
    floats = {item.name: item for item in original.graph.initializer}
    for name in dict.fromkeys(names):
        stored, scale = (constants[f"{name}_{part}"] for part in ("quantized", "scale"))
        integers, scales = (numpy_helper.to_array(one) for one in (stored, scale))
        weights = _oriented(numpy_helper.to_array(floats[name]), integers * np.expand_dims(scales, -2))
        rows = np.swapaxes(weights, -1, -2)  # outputs before inputs, for one direction or several
        flat, found = pair_safe(rows.reshape(-1, rows.shape[-1]))
        safe = np.ascontiguousarray(np.swapaxes(flat.reshape(rows.shape), -1, -2))
        stored.CopyFrom(numpy_helper.from_array(safe, stored.name))
        scale.CopyFrom(numpy_helper.from_array(found.reshape(scales.shape), scale.name))
    data: bytes = model.SerializeToString(deterministic=True)
    return data


def _oriented(weights: Array, rounded: Array) -> Array:
    """Return ``weights`` as the quantizer has them, which may be transposed: the form that is nearer to ``rounded``."""
    forms = [one for one in (weights, np.swapaxes(weights, -1, -2)) if one.shape == rounded.shape]
    return min(forms, key=lambda one: float(np.abs(one - rounded).sum()))
