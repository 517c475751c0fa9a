"""Static int8 by ONNX Runtime's quantizer: Q/DQ nodes, and one scale for each output channel of a weight.

The recipe says which nodes and number types, the ranges come from :mod:`edgeopt.calibration`; nothing is run and
nothing is judged here. Weights are signed, activations unsigned or signed as the recipe says, biases are int32. Where
ONNX Runtime's defaults give a model that is wrong or does not run (a weight that two nodes need in different forms,
stacks of matrices, channels that are all zero) it says so by tensor. Example::

    ranges = collect(model, samples).ranges(recipe.calibrator)
    int8 = quantize_static(model, recipe, ranges)
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper
from onnxruntime.quantization import CalibrationMethod, QuantType
from onnxruntime.quantization.calibrate import TensorsData
from onnxruntime.quantization.qdq_quantizer import QDQQuantizer
from onnxruntime.quantization.registry import QDQRegistry, QLinearOpsRegistry

from edgeopt.graph import stripped
from edgeopt.layers import convolutions
from edgeopt.nodes import attributes, name_nodes, parsed
from edgeopt.recipe import Recipe
from edgeopt.samples import Array
from edgeopt.silence import silenced
from edgeopt_contract.errors import ModelError

__all__ = ["depthwise_weights", "quantize_static", "reducible_weights", "weighted_layers"]

_LEAST_OPSET = 13  # DequantizeLinear has an axis from there on (ONNX operator changelog)
_FLOATS = (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16)
_WEIGHT_INPUT = 1  # of Conv, ConvTranspose, Gemm and MatMul alike
# Which axis of a weight counts the output channels (ONNX operator reference); a Gemm's may be transposed.
_AXES = {"Conv": 0, "ConvTranspose": 1, "Gemm": 1, "MatMul": 1}


@dataclass(frozen=True, slots=True)
class _Use:
    """A constant that a node reads. ``axis`` counts output channels; ``None``: one scale for the whole tensor."""

    constant: str
    node: str
    weight: bool
    axis: int | None

    @property
    def form(self) -> tuple[bool, int | None]:
        """What must be the same for uses that share one quantized tensor."""
        return self.weight, self.axis


def quantize_static(model: bytes, recipe: Recipe, ranges: Mapping[str, tuple[float, float]]) -> bytes:
    """Return ``model`` (float, opset 13 or later) in int8. The same arguments give the same bytes.

    ``ranges`` are (low, high) by tensor name, of every activation that is quantized. ``recipe.operators`` empty means
    all that ONNX Runtime knows. Exactly ``recipe.reduced_weights`` use 7 of 8 bits. Raises :class:`ModelError`, with
    ONNX Runtime's reason where it cannot quantize the model.
    """
    graph = name_nodes(parsed(model))
    _check(graph, recipe)
    copies = _untied(graph, recipe)
    known = {**QLinearOpsRegistry, **QDQRegistry}
    with silenced():
        try:
            quantizer = QDQQuantizer(
                graph,
                per_channel=True,
                reduce_range=False,
                weight_qType=QuantType.QInt8,
                activation_qType=QuantType.QInt8 if recipe.signed_activations else QuantType.QUInt8,
                tensors_range=_tensors_data(graph, ranges),
                nodes_to_quantize=[],
                nodes_to_exclude=list(recipe.float_nodes),
                op_types_to_quantize=list(recipe.operators or known),
                extra_options={"TensorQuantOverrides": dict(_overrides(graph, recipe, copies))},
            )
            quantizer.quantize_model()
            quantizer.model.topological_sort()
        except OSError:
            raise  # the disk's fault, not the model's
        except Exception as error:  # whatever a model can do to ONNX Runtime's Python code
            raise ModelError(f"ONNX Runtime cannot quantize the model ({recipe.title}): {error}") from error
    return stripped(quantizer.model.model)


def reducible_weights(model: bytes) -> tuple[str, ...]:
    """Return the constant weights of dense convolutions and matrix products, in the graph's order.

    Those are what x86 without VNNI multiplies in pairs that can saturate; depthwise kernels add products in 32 bits.
    """
    depthwise = set(depthwise_weights(model))
    return tuple(name for name in dict.fromkeys(name for _, name in weighted_layers(model)) if name not in depthwise)


def depthwise_weights(model: bytes) -> tuple[str, ...]:
    """Return the weights of depthwise convolutions with one output for each input, in the graph's order.

    With more outputs (a channel multiplier) ONNX Runtime takes the kernel of dense ones, which saturates.
    """
    graph = parsed(model).graph
    outputs = {constant.name: constant.dims[0] for constant in graph.initializer if constant.dims}
    groups = {
        node.input[_WEIGHT_INPUT]: attributes(node).get("group", 1) for node in graph.node if node.op_type == "Conv"
    }
    weights = dict.fromkeys(layer.weight for layer in convolutions(model) if layer.depthwise)
    return tuple(name for name in weights if groups[name] == outputs[name])


def weighted_layers(model: bytes) -> tuple[tuple[str, str], ...]:
    """Return the node and the weight of each convolution and matrix product with constant weights, in order."""
    graph = name_nodes(parsed(model))
    return tuple((use.node, use.constant) for use in _uses(graph) if use.weight)


def _check(graph: Any, recipe: Recipe) -> None:
    version = next((opset.version for opset in graph.opset_import if opset.domain in ("", "ai.onnx")), 1)
    if version < _LEAST_OPSET:
        raise ModelError(
            f"the model uses opset {version}, and one scale for each channel needs {_LEAST_OPSET}: prepare it first "
            "(edgeopt.graph.prepare upgrades it)"
        )
    there = {"nodes": {node.name for node in graph.graph.node}, "weights": {use.constant for use in _uses(graph)}}
    for what, named in (("nodes", recipe.float_nodes), ("weights", recipe.reduced_weights)):
        unknown = sorted(set(named) - there[what])
        if unknown:
            raise ModelError(
                f"the recipe names {what} that the model does not have ({', '.join(unknown[:3])}): it was made for "
                "another model, or before this one was prepared"
            )


def _uses(graph: Any) -> Iterator[_Use]:
    """Yield how nodes of the main graph use its constant floats, in the graph's order; biases are left out."""
    ranks = {one.name: len(one.dims) for one in graph.graph.initializer if one.data_type in _FLOATS}
    for node in graph.graph.node:
        for position, name in enumerate(node.input):
            if name not in ranks:
                continue
            if node.op_type not in _AXES:
                yield _Use(name, node.name, weight=False, axis=None)
            elif position == _WEIGHT_INPUT:
                yield _Use(name, node.name, weight=True, axis=_axis(node, ranks[name]))


def _axis(node: Any, rank: int) -> int | None:
    if node.op_type == "MatMul" and rank != 2:
        return None  # QLinearMatMul takes columns of one matrix only
    return 0 if attributes(node).get("transB", 0) else _AXES[node.op_type]


def _quantized(graph: Any, recipe: Recipe) -> list[_Use]:
    """Return the uses by nodes that are quantized."""
    kept = set(recipe.float_nodes)
    if recipe.operators:
        kept |= {node.name for node in graph.graph.node if node.op_type not in recipe.operators}
    return [use for use in _uses(graph) if use.node not in kept]


def _untied(graph: Any, recipe: Recipe) -> dict[str, str]:
    """Give each form in which a constant is needed a constant of its own, in place; return originals by copy.

    An embedding that is also the last layer's weight has a scale for the table and one for each row of the weight.
    ONNX Runtime's quantizer keeps one of the two, and the model computes something else or does not run.
    """
    constants = {constant.name: constant for constant in graph.graph.initializer}
    nodes = {node.name: node for node in graph.graph.node}
    forms: dict[str, dict[tuple[bool, int | None], str]] = {}
    copies: dict[str, str] = {}
    for use in _quantized(graph, recipe):
        named = forms.setdefault(use.constant, {use.form: use.constant})
        if use.form not in named:
            named[use.form] = next(name for name in _names(use.constant) if name not in constants)
            copy = graph.graph.initializer.add()
            copy.CopyFrom(constants[use.constant])
            copy.name = named[use.form]
            constants[copy.name] = copy
            copies[copy.name] = use.constant
        inputs = nodes[use.node].input
        if use.weight:
            inputs[_WEIGHT_INPUT] = named[use.form]
        else:
            inputs[:] = [named[use.form] if name == use.constant else name for name in inputs]
    return copies


def _names(original: str) -> Iterator[str]:
    return (f"{original}_copy_{number}" for number in itertools.count(1))


def _tensors_data(graph: Any, ranges: Mapping[str, tuple[float, float]]) -> TensorsData:
    """Return ``ranges`` as ONNX Runtime wants them: a scale gets the float type of its range."""
    values = (*graph.graph.value_info, *graph.graph.output, *graph.graph.input)
    halves = {value.name for value in values if value.type.tensor_type.elem_type == onnx.TensorProto.FLOAT16}
    kinds = {name: np.float16 if name in halves else np.float32 for name in ranges}
    # the method matters only to those who calibrate: here it says that two numbers make a range
    return TensorsData(
        CalibrationMethod.MinMax,
        {name: tuple(np.array(end, kinds[name]) for end in ends) for name, ends in ranges.items()},
    )


def _overrides(graph: Any, recipe: Recipe, copies: Mapping[str, str]) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """Yield, in the words of ONNX Runtime's quantizer, the weights that its defaults do not suit."""
    constants = {constant.name: constant for constant in graph.graph.initializer}
    for use in _quantized(graph, recipe):
        if not use.weight:
            continue
        reduced = copies.get(use.constant, use.constant) in recipe.reduced_weights
        kind = {"quant_type": QuantType.QInt8, "reduce_range": reduced}
        if use.axis is None:
            yield use.constant, [kind]
            continue
        stand_ins = _stand_ins(numpy_helper.to_array(constants[use.constant]), use.axis)
        if reduced or stand_ins:
            yield use.constant, [kind | {"axis": use.axis} | extra for extra in stand_ins or [{}]]


def _stand_ins(weights: Array, axis: int) -> Sequence[dict[str, Any]]:
    """Return a range for each channel that is all zero, and nothing for the others; empty when there is none.

    ONNX Runtime gives such a channel a scale of 1, which is also the grain of its bias, the only thing that the channel
    still computes: the range of a middling channel keeps the bias.
    """
    greatest = np.abs(weights).max(axis=tuple(set(range(weights.ndim)) - {axis}), initial=0)
    alive = greatest[greatest > 0]
    if not 0 < len(alive) < len(greatest):
        return []
    middling = np.median(alive).astype(weights.dtype)
    return [{} if one else {"rmin": -middling, "rmax": middling} for one in greatest]
