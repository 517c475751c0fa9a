"""Convolutions along one dimension, written as two-dimensional ones of height one: the same numbers, faster kernels.

ONNX Runtime keeps eight or sixteen channels side by side (its layout NCHWc) in float convolutions whose weights have
four axes, and only in those (``NchwcTransformerImpl::TransformConv`` in its ``core/optimizer/nchwc_transformer.cc``).
A network for sound or sensors, whose tensors are (batch, channels, length), gets the slower general kernels. Here its
tensors become (batch, channels, 1, length) from the first such convolution on, for as long as the nodes that follow
do the same in both forms; a mean over the length becomes a GlobalAveragePool, which that layout has as well. Whether it
pays is for the stopwatch to say. Nodes keep their names, and weights theirs. Example::

    faster = planar(prepared.model) if has_lines(prepared.model) else prepared.model
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from edgeopt.graph import stripped
from edgeopt.nodes import attributes, name_nodes, parsed, subgraphs
from edgeopt_contract.errors import ModelError

__all__ = ["has_lines", "planar"]

_HEIGHT = 2  # the axis that is added
_FLAT_RANK = 3  # batch, channels, length
_AXIS = "planar/axis"
# One entry for each dimension of the window in these attributes, and two in ``pads`` (ONNX operator reference).
_WINDOW = ("kernel_shape", "strides", "dilations")
_POOLS = frozenset({"MaxPool", "AveragePool"})
# The first input is the tensor, the others are constants by channel or for all; the result has its shape, or length 1.
_SMOOTH = (
    "Elu",
    "Erf",
    "Gelu",
    "HardSigmoid",
    "HardSwish",
    "LeakyRelu",
    "Selu",
    "Sigmoid",
    "Softplus",
    "Softsign",
    "Tanh",
)
_PLAIN = (
    "Abs",
    "BatchNormalization",
    "Clip",
    "Exp",
    "GlobalAveragePool",
    "GlobalMaxPool",
    "Identity",
    "Neg",
    "Relu",
    "Sqrt",
)
_ALIKE = frozenset((*_SMOOTH, *_PLAIN))
_TOGETHER = frozenset({"Add", "Div", "Max", "Min", "Mul", "Sub", "Sum"})


def has_lines(model: bytes) -> bool:
    """Tell whether ``model`` has a convolution that :func:`planar` rewrites."""
    graph = parsed(model).graph
    return bool(_convolutions(graph)) and not any(True for node in graph.node for _ in subgraphs(node))


def planar(model: bytes) -> bytes:
    """Return ``model`` (float, opset 13 or later) with its one-dimensional convolutions as two-dimensional ones.

    It computes the same but for the order of sums, and inputs and outputs keep their shapes. The same bytes give the
    same bytes. Raises :class:`ModelError` when there is nothing to rewrite (:func:`has_lines`).
    """
    if not has_lines(model):
        raise ModelError(
            "no convolution to write in two dimensions: expected a Conv with constant float weights of three axes, in "
            "a graph without If and Loop"
        )
    whole = name_nodes(parsed(model))
    _Rewriting(whole.graph).run()
    name_nodes(whole)
    del whole.graph.value_info[:]
    return stripped(onnx.shape_inference.infer_shapes(whole))


def _convolutions(graph: Any) -> set[str]:
    """Return the first outputs of the convolutions that are rewritten: nothing else reads their weights."""
    given = {value.name for value in (*graph.input, *graph.output)}
    lines = {
        item.name
        for item in graph.initializer
        if len(item.dims) == _FLAT_RANK and item.data_type == onnx.TensorProto.FLOAT and item.name not in given
    }
    for node in graph.node:
        weight = node.input[1] if node.op_type == "Conv" else None
        lines -= {name for name in node.input if name != weight}
    return {node.output[0] for node in graph.node if node.op_type == "Conv" and node.input[1] in lines}


class _Rewriting:
    """One pass over a graph, in its order. A tensor is known flat by its name, planar by another, or both."""

    def __init__(self, graph: Any) -> None:
        self._graph = graph
        self._chosen = _convolutions(graph)
        self._constants = {item.name: item for item in graph.initializer}
        self._planar: dict[str, str] = {}  # by the flat name
        self._missing: set[str] = set()  # flat names that nothing gives as yet
        self._same: dict[str, str] = {}  # what an Unsqueeze gave, which the planar tensor is already
        self._nodes: list[Any] = []

    def run(self) -> None:
        """Rewrite the graph in place."""
        outputs = [value.name for value in self._graph.output]
        for node in list(self._graph.node):
            node.input[:] = [self._same.get(name, name) for name in node.input]
            self._take(node, kept=node.output[0] in outputs)
        for name in outputs:
            self._flat(name)
        self._graph.initializer.append(numpy_helper.from_array(np.array([_HEIGHT], np.int64), _AXIS))
        del self._graph.node[:]
        self._graph.node.extend(self._nodes)

    def _take(self, node: Any, *, kept: bool) -> None:
        """Add ``node`` in the form that it gets; ``kept``: its result is an output of the model."""
        if node.output[0] in self._chosen:
            self._lift(node.input[0])
            self._weight(node.input[1])
            self._windowed(node)
        elif self._is_lifting(node) and not kept:
            self._same[node.output[0]] = self._planar[node.input[0]]
        elif self._is_mean(node):
            self._mean(node)
        elif (change := self._change(node)) is not None:
            change(node)
        else:
            for name in node.input:
                self._flat(name)
            self._nodes.append(node)

    def _change(self, node: Any) -> Callable[[Any], None] | None:
        """Return how a node behind planar tensors is rewritten; ``None``: it stays flat."""
        known = [name in self._planar for name in node.input]
        if not any(known) or len(node.output) != 1:
            return None
        constant = all(name in self._constants or not name for name in list(node.input)[1:])
        if node.op_type in _POOLS:
            return self._windowed
        if node.op_type in _ALIKE and known[0] and constant:
            return self._renamed
        if node.op_type == "Concat" and attributes(node)["axis"] == 1 and all(known):
            return self._renamed
        if node.op_type in _TOGETHER and all(name in self._planar or self._is_number(name) for name in node.input):
            return self._renamed
        return None

    def _is_lifting(self, node: Any) -> bool:
        """Tell whether ``node`` gives what the planar form of its input is already."""
        lifts = node.op_type == "Unsqueeze" and self._axes(node) in ([_HEIGHT], [-2])
        return lifts and node.input[0] in self._planar

    def _is_number(self, name: str) -> bool:
        """Tell whether ``name`` is a constant of one element that adds no axis."""
        dims = self._constants[name].dims if name in self._constants else (0,)
        return len(dims) <= _FLAT_RANK and int(np.prod(dims)) == 1

    def _axes(self, node: Any) -> list[int]:
        """Return the axes of Unsqueeze or ReduceMean: an attribute, or an input; empty where they are not known."""
        given = attributes(node).get("axes")
        if given is None and len(node.input) > 1 and node.input[1] in self._constants:
            given = numpy_helper.to_array(self._constants[node.input[1]]).reshape(-1)
        return sorted(int(axis) for axis in given) if given is not None else []

    def _is_mean(self, node: Any) -> bool:
        """Tell whether ``node`` is the mean over the length of a planar tensor, its height included or not."""
        if node.op_type != "ReduceMean" or not attributes(node).get("keepdims", 1):
            return False
        if node.input[0] in self._planar:
            return self._axes(node) in ([2], [-1])
        return node.input[0] in self._planar.values() and self._axes(node) in ([2, 3], [-2, -1])

    def _mean(self, node: Any) -> None:
        """Pool instead; what was taken over height and length has four axes and needs no other form."""
        flat = node.input[0] in self._planar
        pool = helper.make_node("GlobalAveragePool", list(node.input)[:1], list(node.output), name=node.name)
        if flat:
            self._renamed(pool)
        else:
            self._nodes.append(pool)

    def _windowed(self, node: Any) -> None:
        """Give the window of a convolution or pool a height of one."""
        changed = []
        for item in node.attribute:
            value = helper.get_attribute_value(item)
            if item.name in _WINDOW:
                changed.append(helper.make_attribute(item.name, [1, *value]))
            elif item.name == "pads":
                changed.append(helper.make_attribute(item.name, [0, value[0], 0, value[1]]))
            else:
                changed.append(item)
        copies = [onnx.AttributeProto.FromString(item.SerializeToString()) for item in changed]
        del node.attribute[:]
        node.attribute.extend(copies)
        self._renamed(node)

    def _renamed(self, node: Any) -> None:
        """Let ``node`` read and give planar tensors; constants stay as they are."""
        node.input[:] = [self._planar.get(name, name) for name in node.input]
        flat = node.output[0]
        node.output[0] = self._planar[flat] = f"{flat}/planar"
        self._missing.add(flat)
        self._nodes.append(node)

    def _weight(self, name: str) -> None:
        """Give a weight its fourth axis, once."""
        item = self._constants[name]
        if len(item.dims) == _FLAT_RANK:
            item.CopyFrom(numpy_helper.from_array(np.expand_dims(numpy_helper.to_array(item), _HEIGHT), name))

    def _lift(self, name: str) -> None:
        if name not in self._planar:
            self._planar[name] = f"{name}/planar"
            node = helper.make_node("Unsqueeze", [name, _AXIS], [self._planar[name]], name=f"{name}/to_planar")
            self._nodes.append(node)

    def _flat(self, name: str) -> None:
        """See to it that ``name`` is there as the rest of the graph knows it."""
        if name in self._missing:
            self._missing.remove(name)
            node = helper.make_node("Squeeze", [self._planar[name], _AXIS], [name], name=f"{name}/to_flat")
            self._nodes.append(node)
