"""Which nodes to leave in float: nested sets, from the ranking by sensitivity and the time that int8 saves.

A node is worth leaving in float the more, the more error it makes and the less time int8 saves there. What stands
between two float layers and is no layer itself stays in float too: an island of int8 costs two conversions and saves
nothing. Pure. Example::

    float_node_sets(ranking, dataflow(float_model, sample))     # (("conv_3",), ("conv_3", "conv_1"), …)
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from edgeopt.quantization.islands import Link
from edgeopt.results import LayerSensitivity

__all__ = ["between", "float_node_sets"]

_LAYERS = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul", "LSTM", "GRU"})
_FREE = 0.01  # of the mean time saved: a node that saves less is as good as free
_LARGEST = 0.5  # of the ranked nodes: with more in float the model is no int8 model


def float_node_sets(ranking: Sequence[LayerSensitivity], links: Sequence[Link]) -> tuple[tuple[str, ...], ...]:
    """Return sets of 1, 2, 4, 8, … most worthwhile nodes, at most half of all, with what stands between them.

    Each contains the one before it; names are sorted. ``ranking`` is that of :func:`edgeopt.quantization.sensitivity.
    rank`; without times the error alone decides. ``links`` are the model's tensors, of
    :func:`edgeopt.quantization.kernels.dataflow`.
    """
    order = [layer.node for layer in _by_worth(ranking)]
    layers = {layer.node for layer in ranking if layer.operator in _LAYERS}
    sets: list[tuple[str, ...]] = []
    size = 1
    while size <= max(1, int(_LARGEST * len(order))) and order:
        chosen = set(order[:size])
        nodes = tuple(sorted(chosen | between(chosen, layers, links)))
        if nodes not in sets:
            sets.append(nodes)
        size *= 2
    return tuple(sets)


def between(chosen: Collection[str], layers: Collection[str], links: Sequence[Link]) -> set[str]:
    """Return the nodes, none of them in ``layers``, whose neighbours on all sides lead to ``chosen``.

    A model's inputs and outputs are float, so they count as chosen.
    """
    names = {name for link in links for name in (link.producer, *link.consumers) if name is not None}
    light = names - set(chosen) - set(layers)
    neighbours: dict[str, set[str | None]] = {name: set() for name in light}
    for link in links:
        for consumer in link.consumers:
            if link.producer in light:
                neighbours[link.producer].add(consumer)
            if consumer in light:
                neighbours[consumer].add(link.producer)
    inside: set[str] = set()
    while light:
        group = _connected(min(light), light, neighbours)
        light -= group
        outside = {name for member in group for name in neighbours[member] if name not in group}
        if outside & set(chosen) and all(name is None or name in chosen for name in outside):
            inside |= group
    return inside


def _by_worth(ranking: Sequence[LayerSensitivity]) -> list[LayerSensitivity]:
    """Return ``ranking`` by error for each millisecond that is lost, the greatest first."""
    saved = [max(layer.saved_ms, 0.0) for layer in ranking if layer.saved_ms is not None]
    mean = sum(saved) / len(saved) if saved else 0.0
    if not mean:
        return sorted(ranking, key=lambda layer: (-layer.error, layer.node))
    lost = {layer.node: max(mean if layer.saved_ms is None else layer.saved_ms, _FREE * mean) for layer in ranking}
    return sorted(ranking, key=lambda layer: (-layer.error / lost[layer.node], layer.node))


def _connected(start: str, light: Collection[str], neighbours: dict[str, set[str | None]]) -> set[str]:
    """Return the nodes of ``light`` that hang together with ``start``."""
    group, waiting = {start}, [start]
    while waiting:
        for name in neighbours[waiting.pop()]:
            if name is not None and name in light and name not in group:
                group.add(name)
                waiting.append(name)
    return group
