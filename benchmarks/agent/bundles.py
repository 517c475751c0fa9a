"""Bundles to measure with: a model of 600 KB pictures that computes next to nothing, as large as wanted.

So little is computed that what is measured is the way to the model. Example::

    bundle = picture_bundle(Path("bundle"), size_bytes=5_000_000)
"""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import numpy.typing as npt
from onnx import TensorProto, helper, numpy_helper

from edgeopt_contract.bundle import Bundle, BundleContents, write_bundle
from edgeopt_contract.codec import encode
from edgeopt_contract.features import CONFIDENCE_EDGES, FeatureSpec, ReferenceFeature, ReferenceProfile, Source, Summary
from edgeopt_contract.manifest import Role, TensorSpec, Variant

__all__ = ["PICTURE", "picture", "picture_bundle", "profile"]

PICTURE = (3, 224, 224)  # float32: 602,112 bytes
_CLASSES = 10
_EDGES = tuple(np.linspace(0, 1, 17).tolist())


def picture(seed: int) -> npt.NDArray[np.float32]:
    """Return one input."""
    return np.random.default_rng(seed).random(PICTURE, dtype=np.float32)


def picture_bundle(directory: Path, size_bytes: int, version: str = "1") -> Bundle:
    """Write a bundle of about ``size_bytes`` that a device fetches, its weights incompressible."""
    random = np.random.default_rng(int(version))
    weights = random.normal(size=(PICTURE[0], _CLASSES)).astype(np.float32)
    sample = picture(1)[np.newaxis]
    outputs = _softmax(sample.mean(axis=(2, 3)) @ weights)
    golden = io.BytesIO()
    np.savez(golden, **{"inputs/x": sample, "outputs/fp32/p": outputs})  # type: ignore[arg-type]  # the stub
    padding = random.normal(size=max(1, (size_bytes - golden.tell()) // 4)).astype(np.float32)
    variant = Variant(
        name="fp32", file="fp32.onnx", runtime="onnxruntime", minimum_runtime="1.20", arch=(), features=(),
        certified_for=(), tolerance=0.05,
    )  # fmt: skip
    contents = BundleContents(
        name="pictures", version=version, labels=(), variants=(variant,), lineage={},
        inputs=(TensorSpec(name="x", dtype="float32", shape=PICTURE),),
        outputs=(TensorSpec(name="p", dtype="float32", shape=(_CLASSES,)),),
        files={
            "fp32.onnx": (Role.VARIANT, _model(weights, padding)),
            "golden.npz": (Role.GOLDEN, golden.getvalue()),
            "profile.json": (Role.PROFILE, encode(profile(columns=2))),
        },
    )  # fmt: skip
    return write_bundle(directory, contents)


def profile(columns: int) -> ReferenceProfile:
    """Return a profile of ``columns`` values of the input ``x``, its mean and deviation, and the confidence."""
    specs = [
        FeatureSpec(
            name=f"x[{index}]", source=Source.INPUT, tensor="x", summary=Summary.COLUMN, column=index, edges=_EDGES
        )
        for index in range(columns)
    ]
    specs += [
        FeatureSpec(name=summary, source=Source.INPUT, tensor="x", summary=summary, edges=_EDGES)
        for summary in (Summary.MEAN, Summary.STD)
    ]
    specs.append(
        FeatureSpec(
            name="confidence", source=Source.OUTPUT, tensor="p", summary=Summary.CONFIDENCE, edges=CONFIDENCE_EDGES
        )
    )
    features = [ReferenceFeature(spec=spec, counts=(1,) * spec.cells, mean=0.5, std=0.3) for spec in specs]
    return ReferenceProfile(rows=max(spec.cells for spec in specs), features=tuple(features))


def _model(weights: npt.NDArray[np.float32], padding: npt.NDArray[np.float32]) -> bytes:
    nodes = [
        helper.make_node("GlobalAveragePool", ["x"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["flat"]),
        helper.make_node("MatMul", ["flat", "w"], ["scores"]),
        helper.make_node("Softmax", ["scores"], ["p"], axis=-1),
    ]
    graph = helper.make_graph(
        nodes,
        "pictures",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", *PICTURE])],
        [helper.make_tensor_value_info("p", TensorProto.FLOAT, ["batch", _CLASSES])],
        [numpy_helper.from_array(weights, "w"), numpy_helper.from_array(padding, "padding")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    data: bytes = model.SerializeToString()
    return data


def _softmax(scores: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    exponents = np.exp(scores - scores.max(axis=1, keepdims=True))
    return np.asarray(exponents / exponents.sum(axis=1, keepdims=True), np.float32)
