"""What a quantizer must know of a graph's convolutions: their order, their weights, and which are depthwise.

It reads the graph and decides nothing. Example::

    [conv.weight for conv in convolutions(model) if conv.depthwise]
"""

from __future__ import annotations

from dataclasses import dataclass

from edgeopt.nodes import attributes, name_nodes, parsed

__all__ = ["Convolution", "convolutions"]


@dataclass(frozen=True, slots=True)
class Convolution:
    """One convolution of the main graph. ``before`` names all nodes that come before it in the graph's order."""

    weight: str
    depthwise: bool
    before: tuple[str, ...]


def convolutions(model: bytes) -> tuple[Convolution, ...]:
    """Return the convolutions with constant weights of the main graph, in its (topological) order."""
    graph = name_nodes(parsed(model)).graph
    shapes = {constant.name: tuple(constant.dims) for constant in graph.initializer}
    found = []
    for index, node in enumerate(graph.node):
        if node.op_type == "Conv" and node.input[1] in shapes:
            groups = attributes(node).get("group", 1)
            # weights are (output channels, input channels of one group, …): depthwise sees one channel at a time
            depthwise = groups > 1 and shapes[node.input[1]][1] == 1
            before = tuple(earlier.name for earlier in graph.node[:index])
            found.append(Convolution(node.input[1], depthwise, before))
    return tuple(found)
