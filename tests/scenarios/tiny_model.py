"""Bundles of a tiny classifier, made in milliseconds: four numbers in, three probabilities out.

``field`` is what the agents of the scenarios see.
"""

from __future__ import annotations

import io
import itertools
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from edgeopt_contract.bundle import Bundle, BundleContents, write_bundle
from edgeopt_contract.codec import encode
from edgeopt_contract.manifest import Role, TensorSpec, Variant
from edgeopt_contract.profile import (
    CONFIDENCE_EDGES,
    FeatureSpec,
    ReferenceFeature,
    ReferenceProfile,
    Source,
    Summary,
    count_values,
    summarize,
)


def samples(seed: int, n: int) -> np.ndarray:
    """Return ``n`` inputs, float32 of shape (n, 4)."""
    return np.random.default_rng(seed).normal(size=(n, 4)).astype(np.float32)


def field() -> Iterator[np.ndarray]:
    """Give inputs for ever."""
    return (row for seed in itertools.count() for row in samples(seed, 256))


def tiny_bundle(directory: Path, version: str, *, sharpness: float = 4.0, golden_error: float = 0.0) -> Bundle:
    """Write a bundle; ``sharpness`` scales the logits, ``golden_error`` makes the expected outputs wrong."""
    weights = sharpness * np.random.default_rng(7).normal(size=(4, 3)).astype(np.float32)
    inputs = samples(1, 16)
    outputs = _softmax(inputs @ weights)
    golden = io.BytesIO()
    np.savez(golden, **{"inputs/x": inputs, "outputs/fp32/p": np.roll(outputs, 1, axis=1) if golden_error else outputs})
    variant = Variant(
        name="fp32", file="fp32.onnx", runtime="onnxruntime", minimum_runtime="1.20",
        arch=(), features=(), certified_for=(), tolerance=0.05,
    )  # fmt: skip
    return write_bundle(
        directory,
        BundleContents(
            name="tiny", version=version, labels=("a", "b", "c"), variants=(variant,), lineage={"made_by": "a test"},
            inputs=(TensorSpec(name="x", dtype="float32", shape=(4,)),),
            outputs=(TensorSpec(name="p", dtype="float32", shape=(3,)),),
            files={
                "fp32.onnx": (Role.VARIANT, _onnx_model(weights)),
                "golden.npz": (Role.GOLDEN, golden.getvalue()),
                "profile.json": (Role.PROFILE, encode(_profile(weights))),
            },
        ),
    )  # fmt: skip


def _onnx_model(weights: np.ndarray) -> bytes:
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["scores"]), helper.make_node("Softmax", ["scores"], ["p"], axis=-1)],
        "tiny",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 4])],
        [helper.make_tensor_value_info("p", TensorProto.FLOAT, ["batch", 3])],
        [numpy_helper.from_array(weights, "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(model)
    return model.SerializeToString()


def _profile(weights: np.ndarray) -> ReferenceProfile:
    inputs = samples(2, 500)
    outputs = _softmax(inputs @ weights)
    specs = [
        FeatureSpec(
            name="x[0]", source=Source.INPUT, tensor="x", summary=Summary.COLUMN, column=0,
            edges=tuple(float(e) for e in np.quantile(inputs[:, 0], np.linspace(0, 1, 17))),
        ),
        FeatureSpec(
            name="confidence", source=Source.OUTPUT, tensor="p", summary=Summary.CONFIDENCE, edges=CONFIDENCE_EDGES
        ),
        FeatureSpec(name="class", source=Source.OUTPUT, tensor="p", summary=Summary.TOP1, categories=3),
    ]  # fmt: skip
    features = []
    for spec in specs:
        values = summarize(spec, inputs if spec.source is Source.INPUT else outputs)
        counts = tuple(int(n) for n in count_values(spec, values))
        features.append(ReferenceFeature(spec=spec, counts=counts, mean=float(values.mean()), std=float(values.std())))
    return ReferenceProfile(rows=len(inputs), features=tuple(features))


def _softmax(scores: np.ndarray) -> np.ndarray:
    exponents = np.exp(scores - scores.max(axis=1, keepdims=True))
    return (exponents / exponents.sum(axis=1, keepdims=True)).astype(np.float32)
