"""Walking through a float model and its int8 form side by side, layer by layer, each layer computed once.

At every convolution and Gemm the visitor sees what the quantized network feeds it, what the float network makes of its
own, and may change the layer's integers; later layers see the change. So a rung that treats all layers in order costs
one pass over the samples, not one for each layer. Quantized nodes are computed as what they stand for (dequantize,
float, quantize), the same on every CPU. It decides nothing. Example::

    better = walk(float_model, quantized, samples[:64], lambda view: Change(centred=True))
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx

from edgeopt.nodes import reads
from edgeopt.quantization.int8_layers import Int8Graph, Int8Layer
from edgeopt.runtimes.onnx_runtime import loaded, session_options
from edgeopt.samples import Array, Sample, stack
from edgeopt_contract.errors import ModelError

__all__ = ["Change", "View", "walk"]

_BATCH = 32
_MEMORY_BYTES = 2**30  # for the activations of all samples between two layers
_COPIES = 6  # of the greatest activation that are held at the same time, about


@dataclass(frozen=True, slots=True, eq=False)
class View:
    """A layer as the walk comes to it. The first axis of the activations is the samples; all are float32.

    ``inputs``: what the quantized network feeds it. ``expected``: the float network's output, ``actual`` the quantized
    one's. ``integers`` stand for ``(integers - zero) * scale``; ``weights`` are the float network's.
    """

    name: str
    operator: str
    attributes: Mapping[str, Any]
    integers: Array
    scale: Array
    zero: Array
    weights: Array
    inputs: Array
    expected: Array
    actual: Array


@dataclass(frozen=True, slots=True, eq=False)
class Change:
    """New weights in the dtype of the old ones, or ``None`` for those.

    ``centred``: the mean error that each output channel then has is taken off the layer's bias.
    """

    integers: Array | None = None
    centred: bool = False


def walk(float_model: bytes, quantized: bytes, samples: Sequence[Sample], visit: Callable[[View], Change]) -> bytes:
    """Return ``quantized`` with what ``visit`` changed, asked once for each layer in the graph's order.

    ``float_model`` must be the one that was quantized. Fewer samples are taken if their activations would need more
    than 1 GiB. Raises :class:`ModelError` when a model cannot be run.
    """
    graph = Int8Graph(quantized, float_model)
    if not graph.layers or not samples:
        return quantized
    original = onnx.load_model_from_string(float_model)
    expected = [layer.expected for layer in graph.layers]
    feeds = stack(samples[: _affordable(original, expected, samples)])
    floats = _Walker(original, feeds, [[name] for name in expected], expected)
    actual = [layer.node.output[0] for layer in graph.layers]
    integers = _Walker(graph.model, feeds, [[layer.node.input[0]] for layer in graph.layers], actual)
    for index, layer in enumerate(graph.layers):
        (want,), (inputs,) = floats.compute(index), integers.compute(index)
        have = _output(graph, layer, inputs)
        change = visit(_view(graph, layer, inputs, (want, have)))
        if change.integers is not None:
            graph.store(layer, change.integers)
            have = _output(graph, layer, inputs)
        if change.centred:
            shift = graph.shift_bias(layer, _mean_error(want, have))
            have = have + shift.reshape(1, -1, *(1,) * (have.ndim - 2)).astype(have.dtype)
        floats.keep(index, want)
        integers.keep(index, have)
    return graph.serialized()


def _view(graph: Int8Graph, layer: Int8Layer, inputs: Array, outputs: tuple[Array, Array]) -> View:
    scale, zero = graph.steps(layer)
    expected, actual = outputs
    return View(
        name=layer.node.name,
        operator=layer.node.op_type,
        attributes=layer.attributes,
        integers=graph.integers(layer),
        scale=scale,
        zero=zero,
        weights=graph.float_weights(layer),
        inputs=inputs,
        expected=expected,
        actual=actual,
    )


def _mean_error(expected: Array, actual: Array) -> Array:
    """Return how much is missing in each channel on average, float64 (channels,)."""
    axes = (0, *range(2, expected.ndim))
    return np.asarray((expected - actual).mean(axis=axes, dtype=np.float64))


def _output(graph: Int8Graph, layer: Int8Layer, inputs: Array) -> Array:
    """Compute the layer alone."""
    source, target = layer.node.input[0], layer.node.output[0]
    (result,) = _Piece(graph.model, [source], [target]).run({source: inputs})
    return result


def _affordable(model: Any, names: Sequence[str], samples: Sequence[Sample]) -> int:
    """Return how many samples may be walked with at once."""
    present = list(dict.fromkeys(names))
    inputs = [value.name for value in model.graph.input if value.name in samples[0].inputs]
    sizes = [array.nbytes for array in _Piece(model, inputs, present).run(stack(samples[:1]))]
    return max(1, min(len(samples), _MEMORY_BYTES // (_COPIES * max(sizes))))


class _Walker:
    """One model's side of the walk: it holds what later layers need, and no more."""

    def __init__(
        self, model: Any, feeds: Mapping[str, Array], wanted: Sequence[list[str]], kept: Sequence[str]
    ) -> None:
        """``wanted``: the tensors computed at each layer. ``kept``: the tensor that is known after it."""
        self._held = dict(feeds)
        self._kept = kept
        known = set(feeds)
        self._plans: list[tuple[list[str], list[str]]] = []
        reader = _Backwards(model.graph)
        for targets, after in zip(wanted, kept, strict=True):
            sources = [] if set(targets) <= known else sorted(reader.sources(targets, known))
            self._plans.append((sources, targets))
            known.add(after)
        self._last = {
            name: index for index, (sources, targets) in enumerate(self._plans) for name in (*sources, *targets)
        }
        self._model = model

    def compute(self, index: int) -> list[Array]:
        """Return what is wanted at layer ``index``."""
        sources, targets = self._plans[index]
        if all(name in self._held for name in targets):
            return [self._held[name] for name in targets]
        return _Piece(self._model, sources, targets).run({name: self._held[name] for name in sources})

    def keep(self, index: int, value: Array) -> None:
        """Hold the output of layer ``index`` if it is needed later, and let go what is not."""
        if self._last.get(self._kept[index], -1) > index:
            self._held[self._kept[index]] = value
        for name in [name for name in self._held if self._last.get(name, -1) <= index]:
            del self._held[name]


class _Backwards:
    """Which nodes make a tensor."""

    def __init__(self, graph: Any) -> None:
        self._producer = {name: node for node in graph.node for name in node.output if name}
        self._constants = {item.name for item in graph.initializer}
        self._inputs = {item.name for item in graph.input}

    def nodes(self, targets: Iterable[str], known: Iterable[str]) -> tuple[set[str], set[str]]:
        """Return the outputs of the nodes between ``known`` and ``targets``, and the tensors they read from outside."""
        stop, nodes, sources, open_names = set(known), set[str](), set[str](), list(targets)
        seen: set[str] = set()
        while open_names:
            name = open_names.pop()
            if not name or name in seen:
                continue
            seen.add(name)
            if name in stop or (name not in self._producer and name not in self._constants):
                sources.add(name)
            elif name in self._producer:
                node = self._producer[name]
                nodes.update(node.output)
                open_names.extend(reads(node))
        return nodes, sources

    def sources(self, targets: Iterable[str], known: Iterable[str]) -> set[str]:
        """Return the tensors from which ``targets`` follow, the nearest of those ``known``."""
        return self.nodes(targets, known)[1]


class _Piece:
    """Part of a model, loaded: the nodes from some tensors to others."""

    def __init__(self, model: Any, sources: Sequence[str], targets: Sequence[str]) -> None:
        graph = model.graph
        wanted, _ = _Backwards(graph).nodes(targets, sources)
        wanted.discard("")
        nodes = [node for node in graph.node if wanted.intersection(node.output)]
        read = {name for node in nodes for name in reads(node)} | set(targets)
        types = {value.name: value.type.tensor_type.elem_type for value in graph.input}
        piece = onnx.helper.make_graph(
            nodes,
            "piece",
            [
                onnx.helper.make_tensor_value_info(name, types.get(name, onnx.TensorProto.FLOAT), None)
                for name in sources
            ],
            [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in targets],
            [item for item in graph.initializer if item.name in read],
        )
        made = onnx.helper.make_model(piece, ir_version=model.ir_version, opset_imports=model.opset_import)
        self._targets = list(targets)
        self._session = loaded(made.SerializeToString(), session_options(1, simulated=True))
        self._batch = 1 if any(_first_axis(value) for value in graph.input) else _BATCH

    def run(self, feeds: Mapping[str, Array]) -> list[Array]:
        """Return the targets for all samples."""
        count = len(next(iter(feeds.values())))
        try:
            parts = [
                self._session.run(
                    self._targets, {name: array[start : start + self._batch] for name, array in feeds.items()}
                )
                for start in range(0, count, self._batch)
            ]
        except Exception as error:
            raise ModelError(f"the model failed on the data at {', '.join(self._targets)}: {error}") from error
        return [np.concatenate(arrays) for arrays in zip(*parts, strict=True)]


def _first_axis(value: Any) -> int:
    """Return the fixed size of the first axis, 0 if it is free."""
    dims = value.type.tensor_type.shape.dim
    return dims[0].dim_value if dims else 0
