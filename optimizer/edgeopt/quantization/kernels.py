"""How long each node takes in ONNX Runtime: the kernels that really run, told by the names of the float graph.

ONNX Runtime fuses, renames and inserts nodes. Here the times of its profiler come back to the nodes of the prepared
graph: a fused kernel (convolution, activation, requantization) counts for the node that does the work, and what was put
in between (QuantizeLinear, DequantizeLinear, changes of layout) for the neighbour for whose sake it is there. It
decides nothing: that is :mod:`edgeopt.quantization.islands`. The profiler itself costs about two microseconds a kernel,
so sums over a small model are too long; whether a variant is faster is for :mod:`edgeopt.timing` to say. Example::

    saved_ms(float_model, int8_model, samples)["node_Conv_260"]       # 0.012: int8 saves twelve microseconds there
"""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from edgeopt.nodes import name_nodes, parsed
from edgeopt.quantization.islands import Link, NodeTime
from edgeopt.runtimes.onnx_runtime import loaded, session_options
from edgeopt.samples import Sample, stack
from edgeopt_contract.errors import ModelError

__all__ = ["NodeTime", "dataflow", "measure_nodes", "saved_ms"]

_WARM_UP = 5
_EVENT = re.compile(r"_kernel_time$")
_RENAMED = re.compile(r"(_nchwc|_nhwc|_token_\d+)+$")  # what ONNX Runtime's optimizers append
_VARIANT_OF = re.compile(r"^(QLinear|Fused|DynamicQuantize|Q)(?=[A-Z])|Integer$")  # QLinearConv, FusedConv, QGemm, …
_FOR_CONSUMER = frozenset({"QuantizeLinear", "ReorderInput"})
_CONVERSIONS = frozenset({"QuantizeLinear", "DequantizeLinear", "ReorderInput", "ReorderOutput", "Transpose", "Cast"})
_BYTES = frozenset({"int8", "uint8"})


@dataclass(frozen=True, slots=True)
class _Kernel:
    """One node of the optimized graph as the profiler saw it."""

    name: str
    operator: str
    microseconds: float
    types: frozenset[str]
    elements: int


def saved_ms(
    float_model: bytes, quantized: bytes, samples: Sequence[Sample], *, runs: int = 64, threads: int = 1
) -> dict[str, float]:
    """Return for each node of ``float_model`` how many milliseconds one run of ``quantized`` saves there.

    Negative where int8 with its conversions takes longer. Both models run in turn ``runs`` times on ``samples``, batch
    one. Raises :class:`ModelError` when one cannot be run.
    """
    before, after = measure_nodes(float_model, (float_model, quantized), samples, runs=runs, threads=threads)
    return {
        name: ((before[name].total_us if name in before else 0.0) - (after[name].total_us if name in after else 0.0))
        / 1e3
        for name in dict.fromkeys([*before, *after])
    }


def measure_nodes(
    float_model: bytes, models: Sequence[bytes], samples: Sequence[Sample], *, runs: int = 64, threads: int = 1
) -> tuple[dict[str, NodeTime], ...]:
    """Return for each of ``models``, which are ``float_model`` or quantized forms of it, the time of each node.

    The models run in turn, so that all see the same load. A time is the mean of a kernel's fastest half: what other
    programs take from it is left out. Nodes that ONNX Runtime folded or fused into others are missing. Raises
    :class:`ModelError`.
    """
    original = name_nodes(parsed(float_model)).graph
    with tempfile.TemporaryDirectory(prefix="edgeopt-") as folder:
        places = [Path(folder) / str(number) for number, _ in enumerate(models)]
        sessions = [
            _profiled(name_nodes(parsed(model)), place, threads) for model, place in zip(models, places, strict=True)
        ]
        try:
            for number in range(_WARM_UP + runs):
                feeds = stack([samples[number % len(samples)]])
                for session in sessions:
                    session.run(None, feeds)
        except Exception as error:
            raise ModelError(f"the model failed on the data: {error}") from error
        reports = [json.loads(Path(session.end_profiling()).read_bytes()) for session in sessions]
        graphs = [onnx.load_model(str(place.with_suffix(".onnx")), load_external_data=False).graph for place in places]
    return tuple(_by_node(_kernels(report), graph, original) for report, graph in zip(reports, graphs, strict=True))


def dataflow(float_model: bytes, sample: Sample) -> tuple[Link, ...]:
    """Return the tensors that are computed anew in each run, in the order of the graph.

    Sizes that are not known without running count as zero; an unknown batch is one. Raises :class:`ModelError`.
    """
    graph = onnx.shape_inference.infer_shapes(name_nodes(parsed(float_model))).graph
    sizes = {name: array.size for name, array in sample.inputs.items()}
    for value in (*graph.value_info, *graph.output):
        dims = value.type.tensor_type.shape.dim
        known = [dim.dim_value for dim in dims[1:] if dim.HasField("dim_value")]
        sizes[value.name] = int(np.prod(known)) if len(known) == len(dims) - 1 else 0
    readers: dict[str, list[str | None]] = {}
    for node in graph.node:
        for tensor in node.input:
            readers.setdefault(tensor, []).append(node.name)
    for value in graph.output:
        readers.setdefault(value.name, []).append(None)
    made: list[tuple[str | None, str]] = [(None, name) for name in sample.inputs]
    made += [(node.name, tensor) for node in graph.node for tensor in node.output if tensor]
    return tuple(
        Link(producer=producer, consumers=tuple(dict.fromkeys(readers[tensor])), elements=sizes.get(tensor, 0))
        for producer, tensor in made
        if tensor in readers
    )


def _profiled(model: Any, place: Path, threads: int) -> Any:
    """Load ``model`` so that its kernels are timed, and leave the optimized graph at ``place``."""
    options = session_options(threads)
    options.enable_profiling = True
    options.profile_file_prefix = str(place)
    options.optimized_model_filepath = str(place.with_suffix(".onnx"))
    return loaded(model.SerializeToString(), options)


def _kernels(report: Sequence[Mapping[str, Any]]) -> list[_Kernel]:
    """Return the profiler's kernels in the order in which they ran."""
    spent: dict[str, list[float]] = {}
    events: dict[str, Mapping[str, Any]] = {}
    for event in report:
        if event.get("cat") == "Node" and _EVENT.search(event["name"]):
            name = _EVENT.sub("", event["name"])
            spent.setdefault(name, []).append(event["dur"])
            events[name] = event["args"]
    return [_kernel(name, args, spent[name][_WARM_UP:]) for name, args in events.items()]


def _kernel(name: str, args: Mapping[str, Any], spent: Sequence[float]) -> _Kernel:
    tensors = [*args["input_type_shape"], *args["output_type_shape"]]
    outputs = [shape for tensor in args["output_type_shape"] for shape in tensor.values()]
    fastest = np.sort(spent)[: (len(spent) + 1) // 2]
    return _Kernel(
        name=name,
        operator=args["op_name"],
        microseconds=float(fastest.mean()),
        types=frozenset(kind for tensor in tensors for kind in tensor),
        elements=sum(int(np.prod(shape)) for shape in outputs),
    )


def _by_node(kernels: Sequence[_Kernel], optimized: Any, original: Any) -> dict[str, NodeTime]:
    """Add up ``kernels`` by the nodes of ``original``. ``optimized`` is the graph that ran."""
    owners = _Owners(optimized, original)
    times: dict[str, NodeTime] = {}
    for kernel in kernels:
        if not owners.ran(kernel.name):
            continue  # inside an If or Loop, whose own time has it already
        node = owners.find(kernel.name, kernel.operator)
        if node is None:
            raise ModelError(f"kernel '{kernel.name}' ({kernel.operator}) belongs to no node of the float graph")
        inserted = kernel.operator in _CONVERSIONS and not owners.is_original(kernel.name)
        known = times.get(node, NodeTime(node=node, kernel_us=0.0, conversions=(), integer=False))
        times[node] = NodeTime(
            node=node,
            kernel_us=known.kernel_us + (0.0 if inserted else kernel.microseconds),
            conversions=(*known.conversions, *([(kernel.elements, kernel.microseconds)] if inserted else [])),
            integer=known.integer or (not inserted and bool(kernel.types & _BYTES)),
        )
    return times


class _Owners:
    """Which node of the original graph each node of the optimized graph came from, or is there for."""

    def __init__(self, optimized: Any, original: Any) -> None:
        self._operators = {node.name: node.op_type for node in original.node}
        self._made_by = {tensor: node for node in original.node for tensor in node.output}
        self._nodes = {node.name: node for node in optimized.node}
        self._producers = {tensor: node for node in optimized.node for tensor in node.output}
        self._consumers: dict[str, list[Any]] = {}
        for node in optimized.node:
            for tensor in node.input:
                self._consumers.setdefault(tensor, []).append(node)

    def ran(self, name: str) -> bool:
        """Tell whether the main graph that ran has a node of this name."""
        return name in self._nodes

    def is_original(self, name: str) -> bool:
        """Tell whether the original graph has a node of this name."""
        return _RENAMED.sub("", name) in self._operators

    def find(self, name: str, operator: str) -> str | None:
        """Return the name of the original node; ``None`` when nothing leads to one."""
        own = self._own(name, operator)
        if own is not None:
            return own
        towards_consumer = operator in _FOR_CONSUMER
        return self._neighbour(name, forward=towards_consumer) or self._neighbour(name, forward=not towards_consumer)

    def _own(self, name: str, operator: str) -> str | None:
        """Return the original node whose name, or whose output's name, the optimizer kept."""
        plain = _RENAMED.sub("", name)
        if plain in self._operators:
            return plain
        if operator in _CONVERSIONS:
            return None
        node = self._made_by.get(plain) or next(
            (self._made_by[tensor] for tensor in self._nodes[name].output if tensor in self._made_by), None
        )
        return None if node is None else self._worker(node, _VARIANT_OF.sub("", operator))

    def _worker(self, last: Any, operator: str) -> str:
        """Return the nearest node of type ``operator`` before ``last``: what a fused kernel is named after."""
        node = last
        while node is not None and node.op_type != operator:
            node = next((self._made_by[tensor] for tensor in node.input if tensor in self._made_by), None)
        return str((last if node is None else node).name)

    def _neighbour(self, name: str, *, forward: bool) -> str | None:
        """Return the first original node on the way along (``forward``) or against the data's direction."""
        waiting, seen = [self._nodes[name]], {name}
        while waiting:
            node = waiting.pop(0)
            for neighbour in self._next(node, forward=forward):
                if neighbour.name in seen:
                    continue
                own = self._own(neighbour.name, neighbour.op_type)
                if own is not None:
                    return own
                seen.add(neighbour.name)
                waiting.append(neighbour)
        return None

    def _next(self, node: Any, *, forward: bool) -> list[Any]:
        if forward:
            return [consumer for tensor in node.output for consumer in self._consumers.get(tensor, [])]
        return [self._producers[tensor] for tensor in node.input if tensor in self._producers]
