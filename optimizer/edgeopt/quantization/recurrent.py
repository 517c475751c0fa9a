"""Learned rounding of LSTMs in dynamic int8, and one scale for all weights of the recurrence.

At each step ONNX Runtime's DynamicQuantizeLSTM multiplies the last state by the recurrent weights. With a scale for
each output channel it also makes 4 x hidden multipliers at each step (``ComputeGemm`` in its
``core/providers/cpu/rnn/rnn_helpers.cc``), so one scale for the matrix is faster and rounds more coarsely. What that
costs is more than made good by the choice of the integers: those at which the gates, not the weights, are nearest to
the float network's, on the steps and states that calibration samples run through, by
:mod:`edgeopt.quantization.quadratic`.
Weights of the inputs, which are multiplied once for all steps, keep their scales. Example::

    better = learn_recurrent(prepared.model, quantize_dynamic(prepared.model, recipe), samples, pair_safe=True)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

from edgeopt.nodes import attributes, parsed
from edgeopt.quantization.pairs import pair_safe as safe_in_pairs
from edgeopt.quantization.pairs import unsafe_pairs
from edgeopt.quantization.quadratic import Grid, Quadratic, learned
from edgeopt.runtimes.onnx_runtime import loaded, session_options
from edgeopt.samples import Array, Sample, stack
from edgeopt_contract.errors import ModelError

__all__ = ["learn_recurrent"]

_INTEGERS = "DynamicQuantizeLSTM"
_MOST = 127
_DAMPING = 0.03  # of the mean of X'X's diagonal: how hard it is to leave the float weights
_HELD_OUT = 4  # one sample in so many judges
_POSITIONS = 12_000  # of all samples together, at most
# Places among the inputs of LSTM (ONNX operator reference) and of DynamicQuantizeLSTM (ContribOperators.md).
_LENGTHS, _INITIAL = 4, 5
_SCALES = {1: 8, 2: 10}  # of the weights of the inputs, and of the recurrence; zero points follow each


@dataclass(frozen=True, slots=True, eq=False)
class _Steps:
    """What one direction multiplies in all steps of some samples: inputs or states, (positions, size)."""

    fit: Array
    judge: Array


def learn_recurrent(float_model: bytes, quantized: bytes, samples: Sequence[Sample], *, pair_safe: bool) -> bytes:
    """Return ``quantized`` (dynamic int8 of ``float_model``) with learned integers in the weights of its LSTMs.

    ``pair_safe``: no pair of products may overflow 16 bits (:mod:`edgeopt.quantization.pairs`). An LSTM with sequences
    of several lengths in one batch stays as it is. From less than four samples the nearest integers are taken, from
    none all stays. The same arguments give the same bytes. Raises :class:`ModelError` when there is no LSTM in int8,
    or the float model fails.
    """
    model, original = parsed(quantized), parsed(float_model)
    layers = {node.output[0]: node for node in model.graph.node if node.op_type == _INTEGERS and node.output[0]}
    pairs = [(node, layers[node.output[0]]) for node in original.graph.node if node.output[0] in layers]
    if not pairs:
        raise ModelError("no LSTM in dynamic int8 that gives its states: there is no rounding to learn")
    if not samples:
        return quantized
    floats = {item.name: numpy_helper.to_array(item) for item in original.graph.initializer}
    constants = {item.name: item for item in model.graph.initializer}
    watched = [node for node, _ in pairs if not _has_lengths(node)]
    steps = _steps(original, watched, samples)
    for node, layer in pairs:
        if _has_lengths(node):
            continue
        for place, scale in _SCALES.items():
            rows = floats[node.input[place]].astype(np.float64)
            made = [
                _learned(rows[direction], of[place - 1], pair_safe=pair_safe, whole=place == 2)
                for direction, of in enumerate(steps[node.output[0]])
            ]
            integers = np.stack([one.T for one, _ in made])
            scales = np.stack([one for _, one in made])
            names = (layer.input[place], layer.input[scale], layer.input[scale + 1])
            _store(constants, names, integers, scales[:, 0] if place == 2 else scales)
    data: bytes = model.SerializeToString(deterministic=True)
    return data


def _has_lengths(node: Any) -> bool:
    """Tell whether a batch has sequences of several lengths, behind whose ends there are no states."""
    return len(node.input) > _LENGTHS and bool(node.input[_LENGTHS])


def _steps(original: Any, nodes: Sequence[Any], samples: Sequence[Sample]) -> dict[str, list[tuple[_Steps, _Steps]]]:
    """Return by output of ``nodes``, for each direction, the inputs of steps of ``samples``, and the states before."""
    constants = {item.name: numpy_helper.to_array(item) for item in original.graph.initializer}
    read = {name for node in nodes for name in (node.input[0], node.output[0], _initial(node)) if name}
    names = sorted(read - set(constants))
    watched = onnx.ModelProto.FromString(original.SerializeToString())
    del watched.graph.output[:]
    watched.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    session = loaded(watched.SerializeToString(), session_options(1))
    most = max(_POSITIONS // max(len(samples), 1), 1)
    found: dict[str, list[list[tuple[Array, Array]]]] = {node.output[0]: [] for node in nodes}
    try:
        for sample in samples:
            values = constants | dict(zip(names, session.run(names, stack([sample])), strict=True))
            for node in nodes:
                found[node.output[0]].append(_of_sample(node, values, most))
    except Exception as error:  # whatever ONNX Runtime raises
        raise ModelError(f"the model failed on the data: {error}") from error
    return {name: [_both(one) for one in zip(*parts, strict=True)] for name, parts in found.items()}


def _initial(node: Any) -> str:
    return str(node.input[_INITIAL]) if len(node.input) > _INITIAL else ""


def _of_sample(node: Any, values: dict[str, Array], most: int) -> list[tuple[Array, Array]]:
    """Return for each direction at most ``most`` steps' inputs and the states before them, taken evenly."""
    x, y, first = values[node.input[0]][:, 0], values[node.output[0]][:, :, 0], values.get(_initial(node))
    chosen = np.unique(np.linspace(0, len(x) - 1, min(len(x), most)).astype(int))
    steps = []
    for direction in range(y.shape[1]):
        begin = np.zeros_like(y[:1, direction]) if first is None else first[direction, :1]
        backwards = direction == 1 or attributes(node).get("direction") == b"reverse"
        before = [y[1:, direction], begin] if backwards else [begin, y[:-1, direction]]
        steps.append((x[chosen], np.concatenate(before)[chosen]))
    return steps


def _both(parts: Sequence[tuple[Array, Array]]) -> tuple[_Steps, _Steps]:
    inputs, states = zip(*parts, strict=True)
    return _shared(inputs), _shared(states)


def _shared(parts: Sequence[Array]) -> _Steps:
    """Share the samples' steps between what is learned from and what judges it."""
    fit = [part for number, part in enumerate(parts) if number % _HELD_OUT != _HELD_OUT - 1]
    judge = parts[_HELD_OUT - 1 :: _HELD_OUT]
    return _Steps(*(np.concatenate([parts[0][:0], *some]).astype(np.float64) for some in (fit, judge)))


def _learned(rows: Array, steps: _Steps, *, pair_safe: bool, whole: bool) -> tuple[Array, Array]:
    """Return integers for ``rows`` (outputs, inputs) and the scale of each; ``whole``: the same for all."""
    scales = safe_in_pairs(rows)[1] if pair_safe else (np.abs(rows).max(axis=1) / _MOST).astype(np.float32)
    scales = np.full_like(scales, scales.max()) if whole else scales
    scales = np.where(scales > 0, scales, np.float32(1))
    weights = rows[None]
    steps_of = np.broadcast_to(scales.astype(np.float64)[None, :, None], weights.shape)
    grid = Grid(steps_of, np.zeros_like(weights), -_MOST, _MOST)
    nearest = grid.nearest(weights, slice(None))
    if not len(steps.judge):
        return nearest[0].astype(np.int8), scales
    fit, judge = (_quadratic(weights, positions) for positions in (steps.fit, steps.judge))
    found = learned(fit.damped(weights, _DAMPING), grid)
    if pair_safe:
        found = np.where(unsafe_pairs(found), nearest, found)
    better = judge.errors(grid.values(found)) < judge.errors(grid.values(nearest))
    return np.where(better[:, :, None], found, nearest)[0].astype(np.int8), scales


def _quadratic(weights: Array, positions: Array) -> Quadratic:
    """Return the mean squared error of the gates as a function of the weights; the biases stay as they are."""
    hessian = (positions.T @ positions / len(positions))[None]
    cross = weights @ hessian
    return Quadratic(hessian, cross, (weights * cross).sum(axis=2))


def _store(constants: dict[str, Any], names: tuple[str, str, str], integers: Array, scales: Array) -> None:
    """Write weights, scales and zero points, all of them zero."""
    parts = (integers.astype(np.int8), scales.astype(np.float32), np.zeros(scales.shape, np.int8))
    for name, part in zip(names, parts, strict=True):
        constants[name].CopyFrom(numpy_helper.from_array(np.ascontiguousarray(part), name))
