"""Bundles of a tiny classifier, made in milliseconds, and the fields that agents under test see.

``field`` and friends are given to ``edgeopt-agent run --source tests.tiny:field``.
"""

from __future__ import annotations

import io
import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from onnx import TensorProto, checker, helper, numpy_helper

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

POISON = 100.0  # an input of this size makes a poisonable model compute for ever
_ENDLESS = 2**50
_MUCH = 2**33  # floats


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """What is special about a bundle."""

    version: str = "1"
    sharpness: float = 4.0  # scales the scores, and so the confidence
    golden_error: bool = False
    poisonable: bool = False  # poison makes it compute for ever
    poison_eats_memory: bool = False  # 32 GiB at once
    poison_gives_nan: bool = False
    runtime: str = "onnxruntime"
    preferred_runtime: str = ""  # of another variant, which stands before the other
    padding_bytes: int = 0
    padding_seed: int = 0
    model: bytes | None = None
    inputs: int = 4
    features: tuple[str, ...] = ()
    tolerance: float = 0.05
    weights_seed: int = 7
    edges: tuple[float, ...] = ()  # of the feature x[0]; quantiles of the data by default


def samples(seed: int, n: int, width: int = 4) -> np.ndarray:
    """Return ``n`` inputs, float32 of shape (n, width)."""
    return np.random.default_rng(seed).normal(size=(n, width)).astype(np.float32)


def field() -> Iterator[np.ndarray]:
    """Give inputs for ever."""
    return (row for seed in itertools.count() for row in samples(seed, 256))


def short_field() -> Iterator[tuple[np.ndarray, int]]:
    """Give five labelled inputs and end."""
    return ((row, 0) for row in samples(3, 5))


def poisoned_field() -> Iterator[np.ndarray]:
    """Give inputs of which every second one is poison."""
    for row in field():
        yield row
        yield np.full_like(row, POISON)


def broken_field() -> Iterator[np.ndarray]:
    """Give one input and break."""
    yield samples(1, 1)[0]
    raise RuntimeError("the camera was unplugged")


def tiny_bundle(directory: Path, recipe: Recipe = Recipe()) -> Bundle:  # frozen
    """Write a bundle."""
    weights = weights_of(recipe)
    inputs = samples(1, 16, recipe.inputs)
    outputs = softmax(inputs @ weights)
    golden = io.BytesIO()
    expected = np.roll(outputs, 1, axis=1) if recipe.golden_error else outputs
    np.savez(golden, **{"inputs/x": inputs, "outputs/fp32/p": expected, "outputs/preferred/p": expected})
    variants = (_variant("fp32", recipe.runtime, recipe),)
    model = recipe.model or onnx_model(weights, recipe)
    files = {"fp32.onnx": (Role.VARIANT, model)}
    if recipe.preferred_runtime:
        variants = (_variant("preferred", recipe.preferred_runtime, recipe), *variants)
        files["preferred.onnx"] = (Role.VARIANT, model + b"\x1a\x00")  # an empty graph merged into it: other bytes
    return write_bundle(
        directory,
        BundleContents(
            name="tiny", version=recipe.version, labels=("a", "b", "c"), variants=variants, lineage={},
            inputs=(TensorSpec(name="x", dtype="float32", shape=(recipe.inputs,)),),
            outputs=(TensorSpec(name="p", dtype="float32", shape=(3,)),),
            files={
                **files,
                "golden.npz": (Role.GOLDEN, golden.getvalue()),
                "profile.json": (Role.PROFILE, encode(_profile(weights, recipe))),
                "report.json": (Role.EVIDENCE, b"{}"),
            },
        ),
    )  # fmt: skip


def weights_of(recipe: Recipe) -> np.ndarray:
    """Return what the scores are made with, float32 of shape (inputs, 3)."""
    random = np.random.default_rng(recipe.weights_seed)
    return recipe.sharpness * random.normal(size=(recipe.inputs, 3)).astype(np.float32)


def _variant(name: str, runtime: str, recipe: Recipe) -> Variant:
    return Variant(
        name=name,
        file=f"{name}.onnx",
        runtime=runtime,
        minimum_runtime="1.20" if runtime == "onnxruntime" else "0",
        arch=(),
        features=recipe.features,
        certified_for=(),
        tolerance=recipe.tolerance,
    )


def onnx_model(weights: np.ndarray, recipe: Recipe) -> bytes:
    """Return softmax(x @ weights), with whatever the recipe adds."""
    nodes = [helper.make_node("MatMul", ["x", "w"], ["scores"])]
    constants = [numpy_helper.from_array(weights, "w")]
    scores = "scores"
    if recipe.padding_bytes:
        padding = np.random.default_rng(recipe.padding_seed).normal(size=recipe.padding_bytes // 4)
        constants.append(numpy_helper.from_array(padding.astype(np.float32), "padding"))
    if recipe.poisonable or recipe.poison_eats_memory or recipe.poison_gives_nan:
        nodes += [
            helper.make_node("ReduceMax", ["x"], ["largest"], keepdims=0),
            helper.make_node("Greater", ["largest", "limit"], ["poisoned"]),
        ]
        constants += [
            numpy_helper.from_array(np.float32(POISON / 2), "limit"),
            numpy_helper.from_array(np.float32(0), "zero"),
        ]
    if recipe.poisonable:
        nodes += _endless_nodes()
        constants += [
            numpy_helper.from_array(np.int64(_ENDLESS), "endless"),
            numpy_helper.from_array(np.int64(1), "once"),
        ]
        scores = "looped"
    if recipe.poison_eats_memory or recipe.poison_gives_nan:
        nodes += _added_nodes(recipe, scores)
        constants += [
            numpy_helper.from_array(np.array([_MUCH], np.int64), "much"),
            numpy_helper.from_array(np.array([1], np.int64), "little"),
            numpy_helper.from_array(np.float32("nan"), "nan"),
        ]
        scores = "added"
    nodes.append(helper.make_node("Softmax", [scores], ["p"], axis=-1))
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", recipe.inputs])],
        [helper.make_tensor_value_info("p", TensorProto.FLOAT, ["batch", 3])],
        constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    checker.check_model(model)
    return model.SerializeToString()


def _endless_nodes() -> list:
    """Loop once, or for ever when the input is poison."""
    body = helper.make_graph(
        [helper.make_node("Identity", ["go"], ["go_on"]), helper.make_node("Add", ["before", "zero"], ["after"])],
        "body",
        [
            helper.make_tensor_value_info("i", TensorProto.INT64, []),
            helper.make_tensor_value_info("go", TensorProto.BOOL, []),
            helper.make_tensor_value_info("before", TensorProto.FLOAT, ["batch", 3]),
        ],
        [
            helper.make_tensor_value_info("go_on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("after", TensorProto.FLOAT, ["batch", 3]),
        ],
    )
    return [
        helper.make_node("Where", ["poisoned", "endless", "once"], ["trips"]),
        helper.make_node("Loop", ["trips", "", "scores"], ["looped"], body=body),
    ]


def _added_nodes(recipe: Recipe, scores: str) -> list:
    """Add to the scores what is zero, unless the input is poison: then it is NaN, or takes 32 GiB to compute."""
    if recipe.poison_gives_nan:
        nodes = [helper.make_node("Where", ["poisoned", "nan", "zero"], ["extra"])]
    else:
        nodes = [
            helper.make_node("Where", ["poisoned", "much", "little"], ["shape"]),
            helper.make_node("Expand", ["zero", "shape"], ["large"]),
            helper.make_node("ReduceMax", ["large"], ["extra"], keepdims=0),
        ]
    return [*nodes, helper.make_node("Add", [scores, "extra"], ["added"])]


def _profile(weights: np.ndarray, recipe: Recipe) -> ReferenceProfile:
    inputs = samples(2, 500, recipe.inputs)
    outputs = softmax(inputs @ weights)
    specs = [
        FeatureSpec(
            name="x[0]", source=Source.INPUT, tensor="x", summary=Summary.COLUMN, column=0,
            edges=recipe.edges or tuple(float(e) for e in np.quantile(inputs[:, 0], np.linspace(0, 1, 17))),
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


def softmax(scores: np.ndarray) -> np.ndarray:
    """Return probabilities, float32."""
    exponents = np.exp(scores - scores.max(axis=1, keepdims=True))
    return (exponents / exponents.sum(axis=1, keepdims=True)).astype(np.float32)
