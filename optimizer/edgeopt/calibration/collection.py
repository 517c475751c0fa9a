"""One pass over the calibration samples: the float model runs with its activations as extra outputs.

The samples go through one at a time, so data of any length and models with a fixed batch of one are fine, and a
sample's activations are the same in whatever company it comes. Memory does not grow with the number of samples: each
activation is counted into a histogram and forgotten; where one sample's activations are large, the graph runs several
times, each time with some of them. ONNX Runtime's histogram calibrators keep every activation of every sample
(onnxruntime#10503) and want all of one shape (onnxruntime#18792). It chooses no ranges. Example::

    statistics = collect(prepared.model, splits.calibration)
    ranges = statistics.ranges(Calibrator.PERCENTILE)
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from onnxruntime.quantization.registry import QDQRegistry, QLinearOpsRegistry

from edgeopt.calibration.histogram import Histogram
from edgeopt.calibration.statistics import Statistics
from edgeopt.nodes import name_nodes, parsed
from edgeopt.runtimes.onnx_runtime import loaded, session_options
from edgeopt.samples import Array, Sample, stack
from edgeopt_contract.errors import DataError, ModelError

__all__ = ["collect"]

_FLOATS = (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16)
_GROUP_BYTES = 256 * 2**20  # of one sample's activations, in one run
_BUFFER = 1 << 14  # values of a small activation that are gathered before they are counted


def collect(model: bytes, samples: Sequence[Sample], *, threads: int = 1) -> Statistics:
    """Return histograms of every float activation of ``model`` that a quantizer may need, over all ``samples``.

    ``samples`` are read once, or once for each group of activations, in order, and may be made as they are read.
    Raises :class:`DataError` without samples, and :class:`ModelError` when the model cannot run, or when an activation
    is NaN or infinite, naming its node.
    """
    if not len(samples):
        raise DataError("calibration needs at least one sample, and there is none")
    graph = _inferred(model, samples[0])
    names = _activations(graph)
    makers = {output: f"node '{node.name}' ({node.op_type})" for node in graph.graph.node for output in node.output}
    tallies = {name: _Tally(f"tensor '{name}' of {makers.get(name, 'the input')}") for name in names}
    fed = {value.name for value in graph.graph.input}
    groups = list(_groups(graph, [name for name in names if name not in fed])) or [[]]
    for index, group in enumerate(groups):
        session = _session(model, graph, group, threads)
        for number, sample in enumerate(samples):
            feeds = stack([sample])
            counted = {name: feeds[name] for name in names if name in feeds} if index == 0 else {}
            counted |= _outputs(session, group, feeds, number)
            for name, values in counted.items():
                tallies[name].add(values)
    return Statistics({name: tally.histogram() for name, tally in tallies.items()})


class _Tally:
    """Counts one activation; small ones are gathered first, for counting a few values costs as much as many."""

    def __init__(self, where: str) -> None:
        self._where = where
        self._histogram = Histogram.empty()
        self._buffer: Array | None = None
        self._filled = 0

    def add(self, values: Array) -> None:
        """Take in ``values`` of any shape."""
        if values.size >= _BUFFER:
            self._count(values)
            return
        if self._buffer is None:
            self._buffer = np.empty(_BUFFER, np.float32)
        if self._filled + values.size > _BUFFER:
            self._flush()
        self._buffer[self._filled : self._filled + values.size] = values.reshape(-1)
        self._filled += values.size

    def histogram(self) -> Histogram:
        """Return the histogram of all that was added."""
        self._flush()
        return self._histogram

    def _flush(self) -> None:
        if self._buffer is not None and self._filled:
            self._count(self._buffer[: self._filled])
            self._filled = 0

    def _count(self, values: Array) -> None:
        try:
            self._histogram = self._histogram.merge(Histogram.of(values))
        except ValueError as error:
            raise ModelError(
                f"{self._where} is NaN or infinite for the calibration data, so it has no range: look for values that "
                "the model was not trained for, or for a division by zero in that layer"
            ) from error


def _inferred(model: bytes, sample: Sample) -> Any:
    """Return the graph with the types of its tensors, and their shapes for ``sample`` as far as they follow."""
    graph = name_nodes(parsed(model))
    for value in graph.graph.input:
        if value.name in sample.inputs:
            shape = value.type.tensor_type.shape
            del shape.dim[:]
            for size in (1, *sample.inputs[value.name].shape):
                shape.dim.add().dim_value = size
    for value in (*graph.graph.value_info, *graph.graph.output):
        value.type.tensor_type.ClearField("shape")  # it may tell lengths that this sample does not have
    return onnx.shape_inference.infer_shapes(graph)


def _activations(graph: Any) -> list[str]:
    """Return the float tensors that nodes which can be quantized read or write, in the graph's order.

    The same as onnxruntime.quantization.calibrate.CalibraterBase.select_tensors_to_calibrate chooses.
    """
    types = {name: tensor.elem_type for name, tensor in _tensors(graph).items()}
    constants = {constant.name for constant in graph.graph.initializer}
    known = {**QDQRegistry, **QLinearOpsRegistry}
    touched = (name for node in graph.graph.node if node.op_type in known for name in (*node.input, *node.output))
    return [name for name in dict.fromkeys(touched) if types.get(name) in _FLOATS and name not in constants]


def _tensors(graph: Any) -> dict[str, Any]:
    values = (*graph.graph.value_info, *graph.graph.output, *graph.graph.input)
    return {value.name: value.type.tensor_type for value in values if value.type.HasField("tensor_type")}


def _groups(graph: Any, names: Sequence[str]) -> Iterator[list[str]]:
    """Yield ``names`` in runs whose values, for one sample, take ``_GROUP_BYTES`` at most."""
    tensors = _tensors(graph)
    sizes = {name: _bytes(tensors[name]) for name in names}
    unknown = max((size for size in sizes.values() if size is not None), default=0)
    group: list[str] = []
    taken = 0
    for name in names:
        size = sizes[name]
        size = unknown if size is None else size  # no smaller than the largest that is known
        if group and taken + size > _GROUP_BYTES:
            yield group
            group, taken = [], 0
        group.append(name)
        taken += size
    if group:
        yield group


def _bytes(tensor: Any) -> int | None:
    if not tensor.HasField("shape") or not all(size.HasField("dim_value") for size in tensor.shape.dim):
        return None
    sizes: list[int] = [size.dim_value for size in tensor.shape.dim]
    return 4 * math.prod(sizes)


def _session(model: bytes, graph: Any, group: Sequence[str], threads: int) -> Any:
    """Return the model loaded as it is, without fusions, with ``group`` as its only outputs."""
    augmented = parsed(model)
    if group:
        types = {name: tensor.elem_type for name, tensor in _tensors(graph).items()}
        del augmented.graph.output[:]
        augmented.graph.output.extend(onnx.helper.make_tensor_value_info(name, types[name], None) for name in group)
    options = session_options(threads, simulated=True)
    options.enable_cpu_mem_arena = False  # an arena keeps what the largest sample needed, and more
    return loaded(augmented.SerializeToString(), options)


def _outputs(session: Any, group: Sequence[str], feeds: Mapping[str, Array], number: int) -> dict[str, Array]:
    if not group:
        return {}
    try:
        return dict(zip(group, session.run(list(group), dict(feeds)), strict=True))
    except Exception as error:
        raise ModelError(f"the model failed on calibration sample {number}: {error}") from error
