"""Folding pre- and post-processing into an ONNX graph, so that devices run what was validated.

:func:`bind` belongs before :func:`edgeopt.graph.prepare`, for what it fixes decides branches; :func:`fold` after it,
so that the folded nodes keep their names and stay in float: these begin with ``preprocess/`` or ``postprocess/``
(:func:`folded_nodes`). Inputs and outputs keep their names. The steps mean what :mod:`edgeopt.preprocess_steps` says;
which there are is read by :mod:`edgeopt.preprocess_config`. Example::

    ready = prepare(bind(exported, steps))
    folded = fold(ready.model, steps)             # takes uint8 pictures, gives probabilities
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import singledispatchmethod
from typing import Any, TypeVar

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from edgeopt.files.reading import Shape
from edgeopt.graph import stripped
from edgeopt.nodes import all_nodes
from edgeopt.preprocess_steps import (
    LUMA,
    Argmax,
    ChannelsFirst,
    Crop,
    Grayscale,
    InputStep,
    Normalize,
    OutputStep,
    Preprocessing,
    Resize,
    ReverseChannels,
    Scale,
    Sigmoid,
    Softmax,
    ToFloat,
    chosen,
)
from edgeopt_contract.errors import ModelError, UsageError

__all__ = ["bind", "fold", "folded_nodes"]

_BEFORE, _AFTER = "preprocess/", "postprocess/"
_LAST = np.iinfo(np.int64).max
S = TypeVar("S", bound=OutputStep)


def folded_nodes(model: bytes) -> tuple[str, ...]:
    """Return the names of the nodes that :func:`fold` wrote, in the graph's order; quantization leaves them alone."""
    nodes = onnx.load_model_from_string(model).graph.node
    return tuple(node.name for node in nodes if node.name.startswith((_BEFORE, _AFTER)))


def bind(model: bytes, steps: Preprocessing) -> bytes:
    """Return ``model`` with its constant inputs filled in, and the batch as the first axis of all others.

    Raises :class:`UsageError` when there is no such tensor, or a value does not fit it.
    """
    if not steps.constants and not steps.batch_axes:
        return model
    proto = onnx.load_model_from_string(model)
    graph = proto.graph
    inputs = {value.name: value for value in _free_inputs(graph)}
    for name, number in steps.constants.items():
        value = inputs[chosen(name, inputs, "input")]
        graph.input.remove(value)
        graph.initializer.append(numpy_helper.from_array(_constant(value, number), name))
        del inputs[name]
    outputs = {value.name: value for value in graph.output}
    for name, axis in steps.batch_axes.items():
        value = {**inputs, **outputs}[chosen(name, [*inputs, *outputs], "input or output")]
        _move_batch(graph, value, axis, is_input=name in inputs)
    return _finished(proto)


def fold(model: bytes, steps: Preprocessing) -> bytes:
    """Return ``model`` that takes the data as they are, and gives the answers that are wanted.

    Raises :class:`UsageError` when the steps do not fit the model, :class:`ModelError` when it has some already.
    """
    if not steps.inputs and not steps.outputs:
        return model
    if folded_nodes(model):
        raise ModelError("the model has folded steps already: give the original")
    proto = onnx.load_model_from_string(model)
    graph = proto.graph
    inputs = {value.name: value for value in _free_inputs(graph)}
    outputs = {value.name: value for value in graph.output}
    for name, mine in _by_tensor(steps.inputs, list(inputs), "input").items():
        _fold_input(graph, inputs[name], mine)
    for name, after in _by_tensor(steps.outputs, list(outputs), "output").items():
        _fold_output(graph, outputs[name], after)
    return _finished(proto)


def _by_tensor(steps: Sequence[S], names: Sequence[str], kind: str) -> dict[str, list[S]]:
    found: dict[str, list[S]] = {}
    for step in steps:
        found.setdefault(chosen(step.name, names, kind), []).append(step)
    return found


def _fold_input(graph: Any, value: Any, steps: Sequence[InputStep]) -> None:
    """Put ``steps`` between the input ``value`` and those who read it."""
    name, tensor = value.name, value.type.tensor_type
    shape: Shape = tuple(size.dim_value if size.HasField("dim_value") else None for size in tensor.shape.dim[1:])
    dtype = helper.tensor_dtype_to_np_dtype(tensor.elem_type).name
    shapes = [shape]
    for step in reversed(steps):
        shape, dtype = step.before(shape, dtype)
        shapes.append(shape)
    writer = _Writer(f"{_BEFORE}{name}")
    result = (
        f"{name}/ready"  # no tensor that may be quantized begins like the folded nodes: Q and DQ are named after it
    )
    _rename_reads(graph, name, result)
    last = name
    for step, given in zip(steps, reversed(shapes[1:]), strict=True):
        last = writer.write(step, last, rank=len(given))
    writer.nodes[-1].output[0] = result
    batch = tensor.shape.dim[0]
    first = batch.dim_value if batch.HasField("dim_value") else batch.dim_param or "batch"
    free = [size if size is not None else f"{name}_{axis}" for axis, size in enumerate(shape)]
    raw = helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(np.dtype(dtype)), [first, *free])
    value.CopyFrom(raw)
    writer.insert(graph, at_start=True)


def _fold_output(graph: Any, value: Any, steps: Sequence[OutputStep]) -> None:
    """Put ``steps`` between the node that gives the output ``value`` and the output."""
    name = value.name
    inner = f"{name}/raw"
    for node in graph.node:
        node.output[:] = [inner if output == name else output for output in node.output]
    _rename_reads(graph, name, inner)
    writer = _Writer(f"{_AFTER}{name}")
    last = inner
    for step in steps:
        last = writer.write(step, last, rank=len(value.type.tensor_type.shape.dim) - 1)
        if isinstance(step, Argmax):
            value.type.tensor_type.elem_type = TensorProto.INT64
            del value.type.tensor_type.shape.dim[-1]
    writer.nodes[-1].output[0] = name
    writer.insert(graph, at_start=False)


class _Writer:
    """Writes steps as nodes. ``rank`` is that of one sample; the batch comes before it."""

    def __init__(self, prefix: str) -> None:
        self.nodes: list[Any] = []
        self._constants: list[Any] = []
        self._prefix = prefix
        self._step = ""

    def write(self, step: OutputStep, source: str, *, rank: int) -> str:
        """Append the nodes of ``step`` on the tensor ``source``; return the name of what they give."""
        self._step = f"{len(self.nodes)}-{type(step).__name__}"
        return self._write(step, source, rank)

    def insert(self, graph: Any, *, at_start: bool) -> None:
        """Put the nodes before or behind those of ``graph``."""
        graph.initializer.extend(self._constants)
        others = list(graph.node)
        del graph.node[:]
        graph.node.extend([*self.nodes, *others] if at_start else [*others, *self.nodes])

    def _node(self, operator: str, *sources: str, **attributes: Any) -> str:
        name = f"{self._prefix}/{self._step}/{operator}-{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, sources, [f"{name}/out"], name, **attributes))
        return f"{name}/out"

    def _constant(self, array: Any) -> str:
        name = f"{self._prefix}/{self._step}/constant-{len(self._constants)}"
        self._constants.append(numpy_helper.from_array(np.asarray(array), name))
        return name

    def _integers(self, *numbers: int) -> str:
        return self._constant(np.array(numbers, np.int64))

    @singledispatchmethod
    def _write(self, step: Any, source: str, rank: int) -> str:
        raise NotImplementedError(f"no nodes are known for {type(step).__name__} on {source} of rank {rank}")

    @_write.register
    def _(self, _step: ToFloat, source: str, _rank: int) -> str:
        return self._node("Cast", source, to=TensorProto.FLOAT)

    @_write.register
    def _(self, _step: ChannelsFirst, source: str, _rank: int) -> str:
        return self._node("Transpose", source, perm=[0, 3, 1, 2])

    @_write.register
    def _(self, _step: ReverseChannels, source: str, _rank: int) -> str:
        start, end, axis, step = (self._integers(number) for number in (-1, -_LAST, 1, -1))
        return self._node("Slice", source, start, end, axis, step)

    @_write.register
    def _(self, _step: Grayscale, source: str, _rank: int) -> str:
        weighted = self._node("Mul", source, self._constant(np.array(LUMA, np.float32).reshape(3, 1, 1)))
        return self._node("ReduceSum", weighted, self._integers(1), keepdims=1)

    @_write.register
    def _(self, step: Scale, source: str, _rank: int) -> str:
        return self._node("Mul", source, self._constant(np.float32(step.factor)))

    @_write.register
    def _(self, step: Normalize, source: str, rank: int) -> str:
        mean, std = step.constants(rank)
        return self._node("Div", self._node("Sub", source, self._constant(mean)), self._constant(std))

    @_write.register
    def _(self, step: Resize, source: str, _rank: int) -> str:
        zero, two = self._integers(0), self._integers(2)
        kept = self._node("Slice", self._node("Shape", source), zero, two)
        sizes = self._node("Concat", kept, self._integers(step.height, step.width), axis=0)
        return self._node("Resize", source, "", "", sizes, mode="linear", coordinate_transformation_mode="half_pixel")

    @_write.register
    def _(self, step: Crop, source: str, _rank: int) -> str:
        two, four = self._integers(2), self._integers(4)
        size = self._integers(step.height, step.width)
        have = self._node("Slice", self._node("Shape", source), two, four)
        start = self._node("Div", self._node("Sub", have, size), two)
        return self._node("Slice", source, start, self._node("Add", start, size), self._integers(2, 3))

    @_write.register
    def _(self, _step: Softmax, source: str, _rank: int) -> str:
        return self._node("Softmax", source, axis=-1)

    @_write.register
    def _(self, _step: Sigmoid, source: str, _rank: int) -> str:
        return self._node("Sigmoid", source)

    @_write.register
    def _(self, _step: Argmax, source: str, _rank: int) -> str:
        return self._node("ArgMax", source, axis=-1, keepdims=0)


def _constant(value: Any, number: Any) -> Any:
    """Return ``number`` in the dtype and shape of the input ``value``."""
    tensor = value.type.tensor_type
    dtype = helper.tensor_dtype_to_np_dtype(tensor.elem_type)
    shape = tuple(size.dim_value or 1 for size in tensor.shape.dim)
    try:
        array = np.asarray(number)
        cast = array.astype(dtype)
        if not np.array_equal(array, cast):
            raise ValueError(f"{dtype.name} cannot hold it")
        return np.array(np.broadcast_to(cast, shape))
    except (TypeError, ValueError) as error:
        raise UsageError(
            f"the constant for the input '{value.name}' ({dtype.name} {list(shape)}) does not fit: {error}"
        ) from error


def _move_batch(graph: Any, value: Any, axis: int, *, is_input: bool) -> None:
    """Make ``axis`` of the input or output ``value`` its first one."""
    sizes = [
        onnx.TensorShapeProto.Dimension.FromString(size.SerializeToString())
        for size in value.type.tensor_type.shape.dim
    ]
    if not 0 < axis < len(sizes):
        raise UsageError(f"batch_axes: '{value.name}' has {len(sizes)} axes: expected one from 1 to {len(sizes) - 1}")
    outward = [axis, *[other for other in range(len(sizes)) if other != axis]]
    inner, node_name = f"{value.name}/batch-elsewhere", f"{value.name}/batch-axis"
    _rename_reads(graph, value.name, inner)
    if is_input:
        inward = [int(place) for place in np.argsort(outward)]
        node = helper.make_node("Transpose", [value.name], [inner], node_name, perm=inward)
        others = list(graph.node)
        del graph.node[:]
        graph.node.extend([node, *others])
    else:
        for other in graph.node:
            other.output[:] = [inner if output == value.name else output for output in other.output]
        graph.node.append(helper.make_node("Transpose", [inner], [value.name], node_name, perm=outward))
    del value.type.tensor_type.shape.dim[:]
    value.type.tensor_type.shape.dim.extend(sizes[place] for place in outward)


def _free_inputs(graph: Any) -> Iterable[Any]:
    """Return the inputs without those that are only defaults of initializers."""
    weights = {tensor.name for tensor in graph.initializer}
    return [value for value in graph.input if value.name not in weights]


def _rename_reads(graph: Any, old: str, new: str) -> None:
    """Let every node, those in branches included, read ``new`` instead of ``old``."""
    for node in all_nodes(graph):
        node.input[:] = [new if name == old else name for name in node.input]


def _finished(proto: Any) -> bytes:
    """Return the bytes of a graph whose types and shapes fit, with those of the new tensors."""
    try:
        inferred = onnx.shape_inference.infer_shapes(proto)
        onnx.checker.check_model(inferred)
    except Exception as error:  # onnx raises whatever its C++ parts raise
        reason = str(error).strip().splitlines()[0]
        raise UsageError(f"the steps do not fit the model: {reason}") from error
    return stripped(inferred)
