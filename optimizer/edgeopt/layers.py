"""What a quantizer must know of a graph's convolutions: their order, their weights, and which are depthwise.

It reads the graph and decides nothing. Example::

    [conv.weight for conv in convolutions(model) if conv.depthwise]
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import onnx

__all__ = ["Convolution", "convolutions", "name_nodes"]


@dataclass(frozen=True, slots=True)
class Convolution:
    """One convolution of the main graph. ``before`` names all nodes that come before it in the graph's order."""

    weight: str
    depthwise: bool
    before: tuple[str, ...]


def name_nodes(model: Any) -> Any:
    """Give every node of the main graph a name of its own, in place, and return ``model``."""
    taken = {node.name for node in model.graph.node}
    for index, node in enumerate(model.graph.node):
        if not node.name:
            node.name = next(name for name in (f"node_{index}", f"edgeopt_node_{index}") if name not in taken)
    return model


def convolutions(model: bytes) -> tuple[Convolution, ...]:
    """Return the convolutions with constant weights of the main graph, in its (topological) order."""
    graph = name_nodes(onnx.load_model_from_string(model)).graph
    shapes = {constant.name: tuple(constant.dims) for constant in graph.initializer}
    found = []
    for index, node in enumerate(graph.node):
        if node.op_type == "Conv" and node.input[1] in shapes:
            groups = next((attribute.i for attribute in node.attribute if attribute.name == "group"), 1)
            # weights are (output channels, input channels of one group, …): depthwise sees one channel at a time
            depthwise = groups > 1 and shapes[node.input[1]][1] == 1
            before = tuple(earlier.name for earlier in graph.node[:index])
            found.append(Convolution(node.input[1], depthwise, before))
    return tuple(found)
