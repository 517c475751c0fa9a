"""Small graphs for the rungs of the ladder, and how far a quantized model is from its float form."""

from __future__ import annotations

import functools
import importlib
from collections.abc import Mapping, Sequence

import numpy as np
import onnx
from onnx import numpy_helper

from edgeopt.graph import prepare
from edgeopt.models import load_model
from edgeopt.runtimes.onnx_runtime import OnnxRuntimeSession
from edgeopt.samples import Sample

Weights = Mapping[str, np.ndarray]


def network(nodes: str, weights: Weights, inputs: str = "float[n,3,8,8] x", outputs: str = "float y") -> bytes:
    """Return a graph from the text form of its nodes (onnx.parser) and its constants, checked, with named nodes."""
    text = f'<ir_version: 9, opset_import: ["" : 17]> test ({inputs}) => ({outputs}) {{ {nodes} }}'
    model = onnx.parser.parse_model(text)
    model.graph.initializer.extend(
        numpy_helper.from_array(np.asarray(array, array.dtype if array.dtype.kind == "i" else np.float32), name)
        for name, array in weights.items()
    )
    for value in model.graph.output:
        value.type.tensor_type.ClearField("shape")  # to be inferred
    for node in model.graph.node:
        node.name = f"make_{node.output[0]}"
    model = onnx.shape_inference.infer_shapes(model)
    onnx.checker.check_model(model)
    return model.SerializeToString()


def he(*shape: int, seed: int = 0) -> np.ndarray:
    """Return weights that keep the size of what passes through."""
    random = np.random.default_rng([seed, *shape])
    return (random.standard_normal(shape) * np.sqrt(2 / np.prod(shape[1:]))).astype(np.float32)


def pictures(count: int = 32, seed: int = 5) -> list[Sample]:
    """Return random pictures of three channels, their mean above zero."""
    random = np.random.default_rng(seed)
    return [Sample({"x": (random.standard_normal((3, 8, 8)) + 0.5).astype(np.float32)}, None) for _ in range(count)]


def smooth_pictures(count: int = 48, seed: int = 5) -> list[Sample]:
    """Return pictures whose neighbouring pixels are alike, as those of cameras are: blurred noise."""
    random = np.random.default_rng(seed)
    noise = random.standard_normal((count, 3, 8, 8))
    for axis in (1, 2, 3, 2, 3, 2, 3):
        noise = noise + np.roll(noise, 1, axis=axis)
    return [Sample({"x": (one / noise.std() + 0.5).astype(np.float32)}, None) for one in noise]


def outputs(model: bytes, samples: Sequence[Sample]) -> np.ndarray:
    """Return the first output of all samples; integers count as what they stand for, on every CPU."""
    return next(iter(OnnxRuntimeSession(model, threads=1, simulated=True).predict(samples).values()))


def error(expected: np.ndarray, actual: np.ndarray) -> float:
    """Return the mean absolute difference in standard deviations of what was expected."""
    return float(np.abs(expected - actual).mean() / expected.std())


def constants(model: bytes) -> dict[str, np.ndarray]:
    """Return the constants of a graph by name."""
    graph = onnx.load_model_from_string(model).graph
    return {item.name: numpy_helper.to_array(item) for item in graph.initializer}


def example(name: str, count: int) -> tuple[bytes, list[Sample]]:
    """Return an example's prepared model, and some of its data spread over the whole of it."""
    model, samples = _whole_example(name)
    return model, list(samples[:: max(len(samples) // count, 1)][:count])


@functools.cache
def _whole_example(name: str) -> tuple[bytes, Sequence[Sample]]:
    module = importlib.import_module(f"examples.{name}")
    source = module.calibration() if hasattr(module, "calibration") else module.data()
    samples = [Sample({"input": inputs}, label) for inputs, label in source]
    return prepare(load_model(f"examples.{name}:model").to_onnx(samples[0])).model, samples
