"""Taking apart what exporters leave in a graph: weights in Constant nodes, and If nodes whose condition is known.

Quantizers look for weights among the initializers of the main graph, and pass over what stands in a branch. Both steps
keep what the model computes. They change the ``ModelProto`` that they are given, and know no tool: folding whole
expressions is the work of onnxsim and ONNX Runtime (:mod:`edgeopt.graph`). Example::

    lift_constants(model)
    inline_decided(model)                    # 2: that many If nodes were replaced by the branch that is taken
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from itertools import count
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

from edgeopt.nodes import attributes, subgraphs

__all__ = ["inline_decided", "lift_constants"]


def lift_constants(model: Any) -> None:
    """Replace the main graph's Constant nodes that hold a dense tensor by initializers, in place."""
    graph = model.graph
    kept = []
    for node in graph.node:
        tensor = _constant(node)
        if tensor is None:
            kept.append(node)
        else:
            tensor.name = node.output[0]
            graph.initializer.append(tensor)
    _replace(graph.node, kept)
    _keep_outputs_computed(graph)


def inline_decided(model: Any) -> int:
    """Replace each If of the main graph whose condition is an initializer by its branch, in place; return how many."""
    graph = model.graph
    inputs = {value.name for value in graph.input}  # an initializer that is an input as well is only a default
    known = {tensor.name: tensor for tensor in graph.initializer if tensor.name not in inputs}
    taken = Counter(_defined(graph))
    nodes: list[Any] = []
    inlined = 0
    for node in graph.node:
        if node.op_type == "If" and node.domain in ("", "ai.onnx") and node.input[0] in known:
            chosen = (
                "then_branch" if bool(numpy_helper.to_array(known[node.input[0]]).reshape(-1)[0]) else "else_branch"
            )
            branch = attributes(node)[chosen]
            nodes.extend(_opened(branch, node, graph, taken))
            inlined += 1
        else:
            nodes.append(node)
    _replace(graph.node, nodes)
    return inlined


def _opened(branch: Any, node: Any, graph: Any, taken: Counter[str]) -> Iterable[Any]:
    """Return the nodes that compute what the ``branch`` of ``node`` does; its initializers go to ``graph``."""
    names: dict[str, str] = {}
    for name in _defined(branch, nested=False):
        if taken[name] > 1:  # the other branch, or another If, uses it as well
            fresh = (f"{node.output[0]}/{name}/{number}" for number in count())
            names[name] = next(candidate for candidate in fresh if candidate not in taken)
            taken[names[name]] += 1
    for tensor in branch.initializer:
        lifted = graph.initializer.add()
        lifted.CopyFrom(tensor)
        lifted.name = names.get(tensor.name, tensor.name)
    for inner in branch.node:
        copied = onnx.NodeProto()
        copied.CopyFrom(inner)
        _rename(copied, names)
        yield copied
    for outer, value in zip(node.output, branch.output, strict=True):
        if outer:
            yield onnx.helper.make_node("Identity", [names.get(value.name, value.name)], [outer])


def _rename(node: Any, names: Mapping[str, str]) -> None:
    """Rename what ``node`` and the graphs inside it read and write; inner definitions hide outer ones."""
    _replace(node.input, [names.get(name, name) for name in node.input])
    _replace(node.output, [names.get(name, name) for name in node.output])
    for subgraph in subgraphs(node):
        hidden = set(_defined(subgraph, nested=False)) | {value.name for value in subgraph.input}
        visible = {old: new for old, new in names.items() if old not in hidden}
        for inner in subgraph.node:
            _rename(inner, visible)


def _defined(graph: Any, *, nested: bool = True) -> Iterator[str]:
    """Yield the names that ``graph`` (with ``nested``: and its subgraphs) defines, as often as it does."""
    yield from (value.name for value in graph.input)
    inputs = {value.name for value in graph.input}
    yield from (tensor.name for tensor in graph.initializer if tensor.name not in inputs)
    for node in graph.node:
        yield from (name for name in node.output if name)
        if nested:
            for subgraph in subgraphs(node):
                yield from _defined(subgraph)


def _constant(node: Any) -> Any:
    """Return the tensor of a Constant node; ``None`` for other nodes, and for sparse tensors and texts."""
    if node.op_type != "Constant" or node.domain not in ("", "ai.onnx"):
        return None
    attribute = node.attribute[0]
    if attribute.name == "value":
        tensor = onnx.TensorProto()
        tensor.CopyFrom(attribute.t)
        return tensor
    dtypes = {"value_float": np.float32, "value_floats": np.float32, "value_int": np.int64, "value_ints": np.int64}
    if attribute.name not in dtypes:
        return None
    return numpy_helper.from_array(np.asarray(onnx.helper.get_attribute_value(attribute), dtypes[attribute.name]))


def _keep_outputs_computed(graph: Any) -> None:
    """Let an Identity give an output that is now an initializer: not every tool reads one directly."""
    constants = {tensor.name: tensor for tensor in graph.initializer}
    for value in graph.output:
        if value.name in constants:
            constants[value.name].name = f"{value.name}/constant"
            graph.node.append(onnx.helper.make_node("Identity", [f"{value.name}/constant"], [value.name]))


def _replace(field: Any, values: Iterable[Any]) -> None:
    kept = list(values)
    del field[:]
    field.extend(kept)
