"""Traps of running: int8 that is slower, precision chosen in silence, and one runtime's answers taken for another's."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from edgeopt.graph import prepare
from edgeopt.quantization.float_layers import keep_float
from edgeopt.recipe import RuntimeName
from edgeopt.results import from_json
from edgeopt.runtimes.openvino import OpenVinoSession
from edgeopt.runtimes.port import open_session
from edgeopt.samples import Array, Sample
from edgeopt_contract.bundle import open_bundle
from tests.optimizer.graphs import convolution_chain
from tests.optimizer.plain_int8 import plain_int8

pytestmark = pytest.mark.traps

ZOO = Path(__file__).parents[1]
VALUE = onnx.helper.make_tensor_value_info


def test_trap_5_int8_that_is_slower_or_larger_is_said_and_fp32_is_kept(tmp_path: Path) -> None:
    """A classifier of 64 weights, timed for real: conversions cost more than its one product saves."""
    output = tmp_path / "out"
    command = [sys.executable, "-m", "edgeopt.cli", "quantize", "edgeopt_zoo:tiny", "--data", "edgeopt_zoo:table"]
    done = subprocess.run(
        [*command, "--max-drop", "2%", "-o", str(output)],
        cwd=ZOO,
        env=os.environ | {"PYTHONPATH": str(ZOO), "COLUMNS": "200"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert 0 == done.returncode, done.stderr
    assert "nothing that kept its accuracy on the selection split is faster, or smaller and not slower" in done.stdout
    found = from_json((output / "report.json").read_bytes())
    sizes = [trial.size_bytes for trial in found.targets[0].trials if trial.size_bytes]
    assert sizes
    assert min(sizes) > found.baseline.size_bytes
    places = [path.parent for path in output.rglob("manifest.json")]
    assert ["fp32"] == [variant.name for variant in open_bundle(places[0]).manifest.variants]


def _deep_sum(length: int = 2048) -> tuple[bytes, Array]:
    """Return products that are summed over ``length`` numbers, and the weights."""
    weights = np.random.default_rng(0).standard_normal((length, 32)).astype(np.float32)
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("MatMul", ["x", "w"], ["y"])],
        "sum",
        [VALUE("x", 1, ["n", length])],
        [VALUE("y", 1, ["n", 32])],
        [numpy_helper.from_array(weights, "w")],
    )
    model = onnx.helper.make_model(graph, ir_version=9, opset_imports=[onnx.helper.make_opsetid("", 17)])
    return bytes(model.SerializeToString()), weights


def test_trap_11_openvino_computes_in_float32() -> None:
    """Against double precision: float32 is right to six digits, bfloat16 to two. It must be the former everywhere."""
    model, weights = _deep_sum()
    random = np.random.default_rng(1)
    samples = [Sample({"x": random.standard_normal(2048).astype(np.float32)}, None) for _ in range(8)]
    exact = np.stack([sample.inputs["x"] for sample in samples]).astype(np.float64) @ weights.astype(np.float64)
    outputs = OpenVinoSession(model, threads=1).predict(samples)["y"]
    assert 1e-5 > float(np.abs(outputs - exact).mean() / exact.std())


def _with_a_dead_channel() -> bytes:
    """Return five convolutions; the third has huge weights for a channel that is always zero."""
    model = onnx.load_model_from_string(convolution_chain(5))
    weights = {item.name: item for item in model.graph.initializer}
    silent, huge = (numpy_helper.to_array(weights[name]).copy() for name in ("w1", "w2"))
    silent[0] = 0  # depthwise: what channel 0 gives
    huge[:, 0] *= 1000
    weights["w1"].CopyFrom(numpy_helper.from_array(silent, "w1"))
    weights["w2"].CopyFrom(numpy_helper.from_array(huge, "w2"))
    return prepare(bytes(model.SerializeToString())).model


def test_an_artifact_that_passes_with_one_runtime_breaks_with_another(images: list[Sample]) -> None:
    """Each runtime is judged by its own outputs.

    The layer with the huge weights is left in float. OpenVINO computes it so; ONNX Runtime gives it an int8 weight with
    one scale, under which all other weights vanish, unless the model protects it.
    """
    model = _with_a_dead_channel()
    layers = [node.name for node in onnx.load_model_from_string(model).graph.node if node.op_type == "Conv"]
    mixed = plain_int8(model, images, [layers[2]])
    expected = open_session(model, RuntimeName.ONNXRUNTIME, threads=1).predict(images)["y"]

    def error(artifact: bytes, runtime: RuntimeName) -> float:
        outputs = open_session(artifact, runtime, threads=1).predict(images)["y"]
        return float(np.abs(outputs - expected).mean() / expected.std())

    assert 0.05 > error(mixed, RuntimeName.OPENVINO)
    assert 0.3 < error(mixed, RuntimeName.ONNXRUNTIME)
    assert 0.05 > error(keep_float(mixed), RuntimeName.ONNXRUNTIME)
