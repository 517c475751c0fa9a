"""Reading ONNX graphs: parsing, the nodes with their names and attributes, and the graphs inside them.

It computes nothing; the only thing it changes is the names of nodes. Example::

    model = parsed(data)
    name_nodes(model)
    [attributes(node).get("group", 1) for node in all_nodes(model.graph) if node.op_type == "Conv"]
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count
from typing import Any

import onnx

from edgeopt_contract.errors import ModelError

__all__ = ["all_nodes", "attributes", "first_line", "name_nodes", "parsed", "reads", "subgraphs"]


def parsed(model: bytes) -> Any:
    """Return the ``ModelProto`` in ``model``, unchecked. Raises :class:`ModelError` when it is none."""
    try:
        return onnx.load_model_from_string(model)
    except Exception as error:  # protobuf raises errors of its own
        raise ModelError(f"not a valid ONNX model: {first_line(error)}") from error


def name_nodes(model: Any) -> Any:
    """Give every node, those in subgraphs included, a name of its own, in place, and return ``model``.

    A name that the exporter gave is kept by the first node that has it. The others are called after their operator and
    their first output, which no other node of a valid graph has, so that the name survives changes elsewhere.
    """
    nodes = list(all_nodes(model.graph))
    taken = {node.name for node in nodes}
    seen: set[str] = {""}
    for node in nodes:
        if node.name in seen:
            base = f"{node.op_type}/{next((name for name in node.output if name), '')}"
            candidates = (base if number == 0 else f"{base}/{number}" for number in count())
            node.name = next(name for name in candidates if name not in taken)
            taken.add(node.name)
        seen.add(node.name)
    return model


def all_nodes(graph: Any) -> Iterator[Any]:
    """Yield the nodes of ``graph`` and of its subgraphs, outer before inner."""
    for node in graph.node:
        yield node
        for subgraph in subgraphs(node):
            yield from all_nodes(subgraph)


def subgraphs(node: Any) -> Iterator[Any]:
    """Yield the graphs in the attributes of ``node``: the branches of an If, the body of a Loop."""
    for attribute in node.attribute:
        if attribute.HasField("g"):
            yield attribute.g
        yield from attribute.graphs


def reads(node: Any) -> list[str]:
    """Return what ``node`` and its subgraphs read."""
    return [*node.input, *(name for graph in subgraphs(node) for inner in all_nodes(graph) for name in inner.input)]


def attributes(node: Any) -> dict[str, Any]:
    """Return the attributes of ``node`` by name; texts are bytes, as in the file."""
    return {item.name: onnx.helper.get_attribute_value(item) for item in node.attribute}


def first_line(error: Exception) -> str:
    """Return what ``error`` says first; the rest is a trace of C++."""
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
