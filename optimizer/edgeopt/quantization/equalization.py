"""Cross-layer equalization: the channels between two layers get alike ranges, and the float model computes the same.

Between a convolution (or Gemm) and the next one, channel i is divided by s_i in the first and multiplied by s_i in the
second; whatever stands between must let a positive factor through (ReLU, LeakyReLU, PReLU, pooling). With
s_i = sqrt(r1_i / r2_i), where r is the greatest weight of the channel in each layer, both weights use their bits alike
(Nagel et al. 2019, "Data-Free Quantization", section 4.1, equation 11). Depthwise layers stand between two others, so
pairs overlap, and sweeps are repeated until nothing moves.

ReLU6 and other clips let no factor through: such pairs are left alone and listed in ``skipped``. (A ReLU and a minimum
of its own for each channel would be exact, but is slower than what int8 saves.) It needs no data, and quantizes
nothing. Example::

    equalized = equalize(prepared.model)
    equalized.model, len(equalized.pairs)
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

from edgeopt.nodes import attributes, name_nodes, parsed, reads
from edgeopt.samples import Array

__all__ = ["Equalized", "Pair", "equalize"]

_TRANSPARENT = frozenset(
    {"Relu", "LeakyRelu", "PRelu", "MaxPool", "AveragePool", "GlobalAveragePool", "GlobalMaxPool", "Identity"}
)
_SWEEPS = 40
_SETTLED = 1e-4  # greatest change of a factor in a sweep after which no further sweep is made
_GREATEST_FACTOR = 1e4  # of one channel in one sweep: an almost dead channel must not reach the limits of float32


@dataclass(frozen=True, slots=True)
class Pair:
    """Two layers by their node names, and the greatest factor by which a channel between them was changed."""

    first: str
    second: str
    greatest: float


@dataclass(frozen=True, slots=True)
class Equalized:
    """The model with alike channels, the pairs that were treated, and those that only a clip kept from it."""

    model: bytes
    pairs: tuple[Pair, ...]
    skipped: tuple[tuple[str, str], ...]


def equalize(model: bytes) -> Equalized:
    """Return ``model`` with alike channels between its layers; a model without such pairs comes back as it is.

    Deterministic, and bounded by 40 sweeps over the weights.
    """
    changed = name_nodes(parsed(model))
    graph = _Graph(changed.graph)
    links = graph.links()
    treated = [link for link in links if not link.clipped]
    skipped = tuple((link.first.name, link.second.name) for link in links if link not in treated)
    if not treated:
        return Equalized(model, (), skipped)
    totals = [np.ones(graph.outputs_of(link.first), np.float64) for link in treated]
    for _ in range(_SWEEPS):
        factors = [graph.balance(link) for link in treated]
        totals = [total * factor for total, factor in zip(totals, factors, strict=True)]
        if max(float(np.abs(np.log(factor)).max()) for factor in factors) < _SETTLED:
            break
    graph.store()
    pairs = tuple(
        Pair(link.first.name, link.second.name, float(np.exp(np.abs(np.log(total)).max())))
        for link, total in zip(treated, totals, strict=True)
    )
    return Equalized(changed.SerializeToString(deterministic=True), pairs, skipped)


@dataclass(frozen=True, slots=True, eq=False)
class _Link:
    """A pair in the graph; ``clipped``: there is a limit between them, which lets no factor through."""

    first: Any
    second: Any
    clipped: bool


class _Graph:
    """The graph's weights as arrays that are changed in place, and who reads what."""

    def __init__(self, graph: Any) -> None:
        self._graph = graph
        self._constants = {item.name: item for item in graph.initializer}
        readers = [name for node in graph.node for name in reads(node)]
        self._reads = Counter([*readers, *(value.name for value in graph.output)])
        self._consumer = {name: node for node in graph.node for name in node.input}
        self._weights: dict[str, Array] = {}

    def links(self) -> list[_Link]:
        """Return all pairs whose channels can be scaled, in the graph's order."""
        found = (self._follow(node) for node in self._graph.node if self._is_layer(node))
        return [link for link in found if link is not None]

    def outputs_of(self, node: Any) -> int:
        """Return how many output channels ``node`` has."""
        return int(self._rows(node).shape[0])

    def balance(self, link: _Link) -> Array:
        """Scale the weights of ``link`` so that each channel is alike in both, and return s, float64 (channels,)."""
        first, second = self._rows(link.first), self._columns(link.second)
        ranges = np.abs(first).max(axis=1), np.abs(second).max(axis=(1, 3)).reshape(-1)
        alive = (ranges[0] > 0) & (ranges[1] > 0)
        ratio = np.divide(ranges[0], ranges[1], out=np.ones_like(ranges[0]), where=alive)
        factors: Array = np.clip(np.sqrt(ratio), 1 / _GREATEST_FACTOR, _GREATEST_FACTOR)
        first /= factors[:, None]
        second *= factors.reshape(second.shape[0], 1, second.shape[2], 1)
        bias = self._bias(link.first)
        if bias is not None:
            bias /= factors
        return factors

    def store(self) -> None:
        """Write the changed weights back as float32."""
        for name, array in self._weights.items():
            self._constants[name].CopyFrom(numpy_helper.from_array(array.astype(np.float32), name))

    def _follow(self, first: Any) -> _Link | None:
        """Return the link that begins at ``first``, if there is one."""
        name, clipped = first.output[0], False
        while self._reads[name] == 1 and name in self._consumer:
            node = self._consumer[name]
            if node.input[0] != name:
                return None
            if self._is_layer(node):
                channels = self._columns(node)
                fits = channels.shape[0] * channels.shape[2] == self.outputs_of(first)
                return _Link(first, node, clipped) if fits else None
            if self._is_limit(node):
                clipped = True
            elif not self._is_transparent(node):
                return None
            name = node.output[0]
        return None

    def _is_transparent(self, node: Any) -> bool:
        """Tell whether a positive factor of a channel passes through ``node``."""
        relu = node.op_type == "Clip" and self._clip_range(node) == (0, np.inf)
        return relu or (node.op_type in _TRANSPARENT and len(node.output) == 1)

    def _is_limit(self, node: Any) -> bool:
        """Tell whether ``node`` is a ReLU with a known limit."""
        if node.op_type != "Clip":
            return False
        low, high = self._clip_range(node)
        return low == 0 and 0 < high < np.inf

    def _is_layer(self, node: Any) -> bool:
        """Tell whether ``node`` is linear with weights, and a bias, of its own."""
        if node.op_type not in ("Conv", "Gemm") or node.domain not in ("", "ai.onnx"):
            return False
        settings = attributes(node)
        plain = not settings.get("transA", 0)
        own = all(self._is_own(name) for name in node.input[1:] if name)
        bias = self._constants.get(node.input[2]) if len(node.input) > 2 and node.input[2] else None
        return plain and own and (bias is None or len(bias.dims) == 1)

    def _is_own(self, name: str) -> bool:
        found = self._constants.get(name)
        return found is not None and self._reads[name] == 1 and found.data_type == onnx.TensorProto.FLOAT

    def _rows(self, node: Any) -> Array:
        """Return a view of the weights, (output channels, everything else)."""
        array = self._array(node.input[1])
        if node.op_type == "Gemm" and not attributes(node).get("transB", 0):
            return array.T
        return array.reshape(array.shape[0], -1)

    def _columns(self, node: Any) -> Array:
        """Return a view of the weights, (groups, outputs of a group, inputs of a group, kernel)."""
        array = self._array(node.input[1])
        if node.op_type == "Gemm":
            matrix = array if attributes(node).get("transB", 0) else array.T
            return matrix[None, :, :, None]
        groups = attributes(node).get("group", 1)
        return array.reshape(groups, array.shape[0] // groups, array.shape[1], -1)

    def _bias(self, node: Any) -> Array | None:
        return self._array(node.input[2]) if len(node.input) > 2 and node.input[2] else None

    def _array(self, name: str) -> Array:
        if name not in self._weights:
            self._weights[name] = numpy_helper.to_array(self._constants[name]).astype(np.float64)
        return self._weights[name]

    def _clip_range(self, node: Any) -> tuple[float, float]:
        """Return the limits of a clip, infinite where there is none, NaN where one is computed."""
        limits = []
        for name, missing in zip((*node.input[1:3], "", "")[:2], (-np.inf, np.inf), strict=True):
            constant = self._constants.get(name)
            known = np.nan if constant is None else float(numpy_helper.to_array(constant))
            limits.append(known if name else missing)
        return limits[0], limits[1]
