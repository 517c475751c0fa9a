"""Which layers of an int8 model go wrong on x86 without VNNI, and the fewest weights to reduce so that they do not.

VPMADDUBSW multiplies unsigned bytes by signed ones and adds the products in pairs, in 16 bits that saturate (Intel SDM,
volume 2, PMADDUBSW). ONNX Runtime's AVX2 kernels pair along the reduction: channel by channel, pixel after pixel of the
kernel's window, each group of a convolution by itself; signed activations are shifted by 128 first. Depthwise layers
with one output for each input add in 32 bits. All of that is computed here in NumPy, integer for integer, on any
machine; nothing is timed and no weight is changed. Example::

    layers = saturating_layers(int8, prepared, calibration[:16])         # most saturating first
    reduction = selective_reduction(layers, build, lost_on_target, tolerance=0.02)
    Recipe(precision=Precision.INT8, reduced_weights=reduction.weights)
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import numpy_helper

from edgeopt.nodes import attributes, name_nodes, parsed
from edgeopt.runtimes.onnx_runtime import loaded, session_options
from edgeopt.samples import Array, Sample, stack
from edgeopt.windows import Window, window_rows
from edgeopt_contract.errors import ModelError

__all__ = [
    "LayerSaturation",
    "Reduction",
    "saturating_layers",
    "saturating_product",
    "selective_reduction",
]

Rows = npt.NDArray[np.uint8]
Weights = npt.NDArray[np.int8]

_LOWEST, _HIGHEST = -(2**15), 2**15 - 1
_BRIGHTEST = 255
_POSITIONS = 256  # of one sample's feature map: a share of its pixels tells as much as all


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerSaturation:
    """What saturation does to one layer.

    ``weight`` is an initializer of the prepared graph. ``share`` of the outputs are wrong; ``error`` is the root mean
    square of what is lost, in standard deviations of the layer's output.
    """

    node: str
    weight: str
    share: float
    error: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Reduction:
    """The weights to reduce to 7 bits, what remains lost with them, and how many models were built to find out."""

    weights: tuple[str, ...]
    lost: float
    builds: int


@dataclass(frozen=True, slots=True)
class _Layer:
    """An integer layer of a QDQ graph: ``weights`` are (groups, outputs of a group, reduction)."""

    node: str
    source: str  # the quantized activations
    output: str
    weights: Weights
    scale: npt.NDArray[np.float64]  # of the products, one for each output channel
    window: Window | None  # None: a matrix product


def saturating_product(rows: Rows, weights: Weights) -> npt.NDArray[np.int64]:
    """Return ``rows`` (m, k) times ``weights`` (n, k) transposed, as VPMADDUBSW and a 32-bit sum give it."""
    exact = rows.astype(np.int64) @ weights.T.astype(np.int64)
    return exact + _lost(rows, weights)


def saturating_layers(model: bytes, prepared: bytes, samples: Sequence[Sample]) -> tuple[LayerSaturation, ...]:
    """Return the layers of ``model`` (QDQ) that saturate on any of ``samples``, most saturating first.

    Each is fed what it gets in exact arithmetic. ``prepared`` is the float graph that ``model`` was made of; it says
    what the weights are called. A second for 16 pictures of 28 x 28, about ten for as many of 224 x 224. Raises
    :class:`ModelError`.
    """
    layers = [layer for layer in _integer_layers(model) if _can_saturate(layer.weights)]
    if not layers:
        return ()
    names = _weight_names(prepared)
    unknown = sorted(layer.node for layer in layers if layer.node not in names)
    if unknown:
        raise ModelError(f"the int8 model was not made of this float model, which has no layer {', '.join(unknown)}")
    rows: dict[str, list[Rows]] = {layer.node: [] for layer in layers}
    spread: dict[str, list[float]] = {layer.node: [] for layer in layers}
    for values in _inner_values(model, layers, samples):
        for layer in layers:
            rows[layer.node].append(_rows(values[layer.source], layer))
            spread[layer.node].append(float(values[layer.output].std()))
    found = [_measured(layer, np.concatenate(rows[layer.node], axis=1), spread[layer.node], names) for layer in layers]
    return tuple(sorted((one for one in found if one.share > 0), key=lambda one: -one.error))


def selective_reduction(
    layers: Sequence[LayerSaturation],
    build: Callable[[tuple[str, ...]], bytes],
    lost: Callable[[bytes], float],
    tolerance: float,
) -> Reduction:
    """Return the fewest of the most saturating ``layers`` whose reduction repairs nearly as much as reducing all does.

    ``build`` makes the int8 model with the given weights in 7 bits; ``lost`` runs it on the target's kind of CPU and
    says what saturation costs, in any unit in which less is better (:func:`edgeopt.metrics.output_error` against exact
    arithmetic sees it on a few dozen samples, long before answers change). ``tolerance`` is what may be lost beyond
    what remains with all of them reduced: kernels and exact arithmetic never round quite alike. The number of layers is
    doubled until it is enough and then bisected, so about twice its logarithm of models are built.
    """
    weights = tuple(layer.weight for layer in layers)
    seen = {len(weights): lost(build(weights))}
    enough = seen[len(weights)] + tolerance

    def kept(count: int) -> bool:
        if count not in seen:
            seen[count] = lost(build(weights[:count]))
        return seen[count] <= enough

    low, high = -1, 0
    while not kept(high):
        low, high = high, min(max(1, 2 * high), len(weights))
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if kept(middle) else (middle, high)
    return Reduction(weights=weights[:high], lost=seen[high], builds=len(seen))


def _lost(rows: Rows, weights: Weights) -> npt.NDArray[np.int64]:
    """Return what the sums lose to saturation, int64 (m, n): zero where nothing saturates."""
    if rows.shape[1] % 2:  # MLAS fills the last pair with zero
        rows, weights = np.pad(rows, ((0, 0), (0, 1))), np.pad(weights, ((0, 0), (0, 1)))
    first, second = rows[:, 0::2].astype(np.int32), rows[:, 1::2].astype(np.int32)
    candidates = _pairs_that_can(weights)
    lost = np.zeros((len(rows), len(weights)), np.int64)
    for channel in np.flatnonzero(candidates.any(axis=1)):
        pairs = np.flatnonzero(candidates[channel])
        one, other = weights[channel, 2 * pairs].astype(np.int32), weights[channel, 2 * pairs + 1].astype(np.int32)
        sums = first[:, pairs] * one + second[:, pairs] * other
        lost[:, channel] = (np.clip(sums, _LOWEST, _HIGHEST) - sums).sum(axis=1)
    return lost


def _pairs_that_can(weights: Weights) -> npt.NDArray[np.bool_]:
    """Tell which pairs of weights, (n, pairs), can leave 16 bits for any activations."""
    pairs = weights.astype(np.int32).reshape(len(weights), -1, 2) * _BRIGHTEST
    highest, lowest = np.maximum(pairs, 0).sum(axis=2), np.minimum(pairs, 0).sum(axis=2)
    can: npt.NDArray[np.bool_] = (highest > _HIGHEST) | (lowest < _LOWEST)
    return can


def _can_saturate(weights: Weights) -> bool:
    groups, outputs, reduction = weights.shape
    flat = weights.reshape(groups * outputs, reduction)
    return bool(_pairs_that_can(np.pad(flat, ((0, 0), (0, reduction % 2)))).any())


def _measured(layer: _Layer, rows: Rows, spread: list[float], names: dict[str, str]) -> LayerSaturation:
    """Return what saturation does to ``rows``, (groups, m, reduction)."""
    lost = np.concatenate([_lost(part, weights) for part, weights in zip(rows, layer.weights, strict=True)], axis=1)
    scale = float(np.sqrt(np.mean(np.square(spread)))) or 1.0
    return LayerSaturation(
        node=layer.node,
        weight=names[layer.node],
        share=float((lost != 0).mean()),
        error=float(np.sqrt(np.mean(np.square(lost * layer.scale)))) / scale,
    )


def _rows(values: Array, layer: _Layer) -> Rows:
    """Return what is multiplied, u8 (groups, rows, reduction), of at most some positions of a sample."""
    if values.dtype == np.int8:
        values = (values.astype(np.int16) + 128).astype(np.uint8)
    if layer.window is not None:
        return window_rows(values, layer.window, len(layer.weights), _POSITIONS)
    flat = values.reshape(-1, values.shape[-1])
    return flat[None, :: max(1, len(flat) // _POSITIONS)]


def _integer_layers(model: bytes) -> Iterator[_Layer]:
    """Yield the layers that run in integers: both inputs come from DequantizeLinear, the weight is constant s8."""
    graph = parsed(model).graph
    constants = {item.name: item for item in graph.initializer}
    dequantized = {node.output[0]: node for node in graph.node if node.op_type == "DequantizeLinear"}
    for node in graph.node:
        if node.op_type not in ("Conv", "Gemm", "MatMul") or any(name not in dequantized for name in node.input[:2]):
            continue
        data, weight = (dequantized[name] for name in node.input[:2])
        stored = constants.get(weight.input[0])
        if stored is None or stored.data_type != onnx.TensorProto.INT8 or data.input[0] in constants:
            continue
        scales = [numpy_helper.to_array(constants[part.input[1]]).astype(np.float64) for part in (data, weight)]
        weights, window = _arranged(node, numpy_helper.to_array(stored), constants, data)
        if weights is not None:
            yield _Layer(node.name, data.input[0], node.output[0], weights, scales[0] * scales[1], window)


def _arranged(node: Any, weights: Array, constants: dict[str, Any], data: Any) -> tuple[Weights | None, Window | None]:
    """Return the weights as (groups, outputs, reduction) in the order of MLAS; ``None``: no pairs are added."""
    settings = attributes(node)
    if node.op_type == "Conv":
        groups = settings.get("group", 1)
        if len(weights) == groups and weights.shape[1] == 1:
            return None, None
        last = np.moveaxis(weights, 1, -1)  # channels last
        window = Window.of(settings, weights.shape[2:], fill=_zero_point(data, constants))
        return last.reshape(groups, len(weights) // groups, -1), window
    if weights.ndim != 2 or settings.get("transA", 0):
        return None, None  # batched weights and transposed activations run in float
    return (weights if settings.get("transB", 0) else weights.T)[None], None


def _zero_point(data: Any, constants: dict[str, Any]) -> int:
    """Return the activations' zero point as the kernels see it, unsigned."""
    if len(data.input) < 3 or not data.input[2]:
        return 0
    value = numpy_helper.to_array(constants[data.input[2]])
    return int(value.item()) + (128 if value.dtype == np.int8 else 0)


def _weight_names(prepared: bytes) -> dict[str, str]:
    """Return which initializer of the float graph each node multiplies by."""
    nodes = name_nodes(parsed(prepared)).graph.node
    return {node.name: node.input[1] for node in nodes if len(node.input) > 1}


def _inner_values(model: bytes, layers: Iterable[_Layer], samples: Sequence[Sample]) -> Iterator[dict[str, Array]]:
    """Yield the tensors that go into and come out of ``layers``, computed exactly, for each of ``samples``."""
    watched = parsed(model)
    names = sorted({name for layer in layers for name in (layer.source, layer.output)})
    del watched.graph.output[:]
    watched.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    session = loaded(watched.SerializeToString(), session_options(1, simulated=True))
    try:
        for sample in samples:
            yield dict(zip(names, session.run(names, stack([sample])), strict=True))
    except Exception as error:  # whatever ONNX Runtime raises
        raise ModelError(f"ONNX Runtime cannot run the int8 model to look for saturation: {error}") from error
