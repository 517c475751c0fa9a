"""Which quantized nodes cost more, with the conversions around them, than they save. Pure.

Each node runs in int8 or in float. Each has a measured time in both, and where data crosses from one to the other it
has to be converted, which takes time too. The cheapest assignment is a minimum cut (Greig, Porteous and Seheult, "Exact
maximum a posteriori estimation for binary images", 1989), so it is found exactly and at once. The times come from a
profiler and add up only roughly, for kernels fuse differently around a node that changed sides: what comes out has to
be timed again (:mod:`edgeopt.timing`), and kept only when it is faster. Example::

    before, after = measure_nodes(model, (model, int8), samples)
    float_nodes = [name for island in islands(before, after, dataflow(model, samples[0])) for name in island]
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import nnls
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import breadth_first_order, connected_components, maximum_flow

__all__ = ["Link", "NodeTime", "islands"]

_FLOAT, _INT8 = 0, 1  # the two ends of the cut; nodes follow
_LARGEST = 2**30  # capacities are 32-bit whole numbers
_FEW = 2  # conversions from which a cost can be fitted
_FIXED_US, _ELEMENT_US = 2.0, 0.0005  # otherwise


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeTime:
    """Microseconds of one run, batch one, that a node of the float graph accounts for.

    ``kernel_us``: the kernels that do its work. ``conversions``: what was inserted for its sake, each as (elements,
    microseconds). ``integer``: the kernel reads or writes 8-bit numbers.
    """

    node: str
    kernel_us: float
    conversions: tuple[tuple[int, float], ...]
    integer: bool

    @property
    def conversion_us(self) -> float:
        """All conversions together."""
        return sum(spent for _, spent in self.conversions)

    @property
    def total_us(self) -> float:
        """Kernels and conversions."""
        return self.kernel_us + self.conversion_us


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """A tensor of ``elements`` numbers on its way; ``None`` is the world outside the model, which speaks float."""

    producer: str | None
    consumers: tuple[str | None, ...]
    elements: int


def islands(
    before: Mapping[str, NodeTime], after: Mapping[str, NodeTime], links: Sequence[Link]
) -> tuple[tuple[str, ...], ...]:
    """Return the groups of neighbouring nodes that had better stay in float, in the order of ``links``.

    ``before`` are the times of the float model, ``after`` those of the quantized one; a node without a time is fused
    into what comes before it, or folded away. Where both cost the same the node stays quantized.
    """
    names = tuple(dict.fromkeys(name for link in links for name in (link.producer, *link.consumers) if name))
    cut = _Cut(names)
    anchors = _anchors(before, links)
    for name in names:
        _charge(cut, name, anchors.get(name, name), before, after)
    fixed, per_element = _conversion_cost(after.values())
    for link in links:
        cut.cross(link, fixed + per_element * link.elements)
    in_float = cut.float_side()
    quantized = {name for name in in_float if name not in after or after[name].integer}
    return tuple(
        tuple(name for name in group if name in quantized)
        for group in _neighbours([name for name in names if name in in_float], links)
        if any(name in after and after[name].integer for name in group)
    )


def _charge(cut: _Cut, name: str, anchor: str, before: Mapping[str, NodeTime], after: Mapping[str, NodeTime]) -> None:
    """Enter what ``name`` costs on each side. What float fuses into ``anchor`` costs extra once that is int8."""
    in_float = before[name].total_us if name in before else 0.0
    in_int8 = after[name].kernel_us if name in after else 0.0
    cut.cost(name, in_float=in_float, in_int8=0.0 if anchor != name else in_int8)
    if anchor != name:
        cut.cost(anchor, in_float=0.0, in_int8=in_int8)
    if name in after and not after[name].integer:
        cut.stay_float(name)
    if name not in before and name not in after and anchor != name:
        cut.together(name, anchor)


def _anchors(before: Mapping[str, NodeTime], links: Sequence[Link]) -> dict[str, str]:
    """Return for each node that the float model fuses away the nearest timed node before it."""
    first: dict[str, str] = {}
    for link in links:
        for name in link.consumers:
            if name is not None and link.producer is not None:
                first.setdefault(name, link.producer)
    anchors = {name: anchor for name, anchor in first.items() if name not in before}
    for name, anchor in anchors.items():
        nearest = anchor
        while nearest not in before and nearest in first:
            nearest = first[nearest]
        anchors[name] = nearest
    return anchors


def _conversion_cost(times: Iterable[NodeTime]) -> tuple[float, float]:
    """Return microseconds of a conversion: fixed, and for each element, fitted to those that were measured."""
    seen = [conversion for time in times if time.integer for conversion in time.conversions]
    if len(seen) < _FEW:
        return _FIXED_US, _ELEMENT_US
    sizes, spent = np.array(seen, np.float64).T
    (fixed, per_element), _ = nnls(np.stack([np.ones_like(sizes), sizes], axis=1), spent)
    return float(fixed), float(per_element)


def _neighbours(names: Sequence[str], links: Sequence[Link]) -> list[list[str]]:
    """Return ``names`` in groups that hang together by ``links``."""
    if not names:
        return []
    place = {name: number for number, name in enumerate(names)}
    pairs = [
        (place[link.producer], place[name])
        for link in links
        for name in link.consumers
        if link.producer in place and name in place
    ]
    rows, columns = np.array(pairs, int).reshape(-1, 2).T
    _, groups = connected_components(csr_matrix((np.ones(len(rows)), (rows, columns)), shape=(len(names),) * 2))
    return [[name for name in names if groups[place[name]] == group] for group in dict.fromkeys(groups)]


class _Cut:
    """A graph whose minimum cut parts the nodes that are cheaper in float from those that are cheaper in int8.

    An arc of capacity c from u to v costs c when u is on the float side and v on the int8 side.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self._place = {name: number for number, name in enumerate(names, start=2)}
        self._names = tuple(names)
        self._arcs: dict[tuple[int, int], float] = {}
        self._size = 2 + len(names)

    def cost(self, name: str, *, in_float: float, in_int8: float) -> None:
        """Enter the cost of ``name`` on each side."""
        self._arc(self._place[name], _INT8, in_float)
        self._arc(_FLOAT, self._place[name], in_int8)

    def stay_float(self, name: str) -> None:
        """Keep ``name`` on the float side."""
        self._arc(_FLOAT, self._place[name], np.inf)

    def together(self, name: str, other: str) -> None:
        """Keep both on the same side."""
        self._arc(self._place[name], self._place[other], np.inf)
        self._arc(self._place[other], self._place[name], np.inf)

    def cross(self, link: Link, cost: float) -> None:
        """Charge ``cost`` once when the producer and some consumer of ``link`` are on different sides."""
        producer = self._find(link.producer)
        consumers = [self._find(name) for name in link.consumers]
        quantize, dequantize = self._size, self._size + 1
        self._size += 2
        self._arc(producer, quantize, cost)
        self._arc(dequantize, producer, cost)
        for consumer in consumers:
            self._arc(quantize, consumer, np.inf)
            self._arc(consumer, dequantize, np.inf)

    def float_side(self) -> set[str]:
        """Return the nodes that are strictly cheaper in float, all conversions considered."""
        finite = sum(cost for cost in self._arcs.values() if np.isfinite(cost))
        scale = min(1e3, _LARGEST / (finite + 1))  # whole nanoseconds, unless that is too many
        forbidden = int(finite * scale) + len(self._arcs) + 1
        arcs = [(u, v, forbidden if np.isinf(cost) else round(cost * scale)) for (u, v), cost in self._arcs.items()]
        rows, columns, capacities = np.array(arcs, np.int64).T
        graph = csr_matrix((capacities.astype(np.int32), (rows, columns)), shape=(self._size,) * 2)
        residual = graph - maximum_flow(graph, _FLOAT, _INT8).flow
        residual.data[residual.data < 0] = 0
        residual.eliminate_zeros()
        reached = set(breadth_first_order(residual, _FLOAT, return_predecessors=False).tolist())
        return {name for name in self._names if self._place[name] in reached}

    def _find(self, name: str | None) -> int:
        return _FLOAT if name is None else self._place[name]

    def _arc(self, start: int, end: int, cost: float) -> None:
        if start != end and cost > 0:
            self._arcs[start, end] = self._arcs.get((start, end), 0.0) + cost
