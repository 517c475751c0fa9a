"""Preparing graphs for quantization."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from torch import nn

from edgeopt.data import load_samples
from edgeopt.graph import prepare
from edgeopt.models import TorchModel, load_model
from edgeopt.quantization.static import reducible_weights
from edgeopt.runtimes.onnx_runtime import OnnxRuntimeSession
from edgeopt.samples import Sample
from edgeopt_contract.errors import ModelError
from tests.optimizer.graphs import old_convolution
from tests.optimizer.minmax_int8 import minmax_int8
from tests.optimizer.wild_graphs import custom_operator, local_function, nested_ifs

DEVICES = Path(__file__).parents[2] / "devices"


class FirstOutput(nn.Module):
    """A recurrent network without its states."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the outputs of the last layer at every step."""
        return self.network(x)[0]


def test_an_old_graph_is_upgraded_and_quantized_per_channel(images: list[Sample]) -> None:
    """Per-channel scales are invalid before opset 13; after the upgrade the int8 model runs and is right."""
    prepared = prepare(old_convolution())
    assert onnx.load_model_from_string(prepared.model).opset_import[0].version >= 13
    expected = OnnxRuntimeSession(old_convolution(), threads=1).predict(images)["y"]
    assert np.allclose(expected, OnnxRuntimeSession(prepared.model, threads=1).predict(images)["y"], atol=1e-4)
    model = minmax_int8(prepared.model, images, reduced_weights=reducible_weights(prepared.model))
    onnx.checker.check_model(onnx.load_model_from_string(model))
    scales = [
        i for i in onnx.load_model_from_string(model).graph.initializer if i.name.startswith("w") and "scale" in i.name
    ]
    assert [6] == [numpy_helper.to_array(scale).size for scale in scales]
    actual = OnnxRuntimeSession(model, threads=1).predict(images)["y"]
    assert np.corrcoef(expected.ravel(), actual.ravel())[0, 1] > 0.999


def test_nothing_of_this_machine_stays_in_the_file() -> None:
    """Exporters leave stack traces with paths; equal graphs must give equal bytes on any machine."""
    exported = load_model("edgeopt_zoo:attention").to_onnx(load_samples("edgeopt_zoo:sequences")[0])
    assert b"edgeopt_zoo.py" in exported
    prepared = prepare(exported).model
    assert b"edgeopt_zoo" not in prepared
    model = onnx.load_model_from_string(prepared)
    assert model.ir_version <= 10
    assert {""} == {opset.domain for opset in model.opset_import}
    assert prepared == prepare(exported).model


def test_what_is_no_model_or_too_new_is_refused() -> None:
    """One sentence each."""
    with pytest.raises(ModelError, match="not a valid ONNX model"):
        prepare(b"rubbish")
    with pytest.raises(
        ModelError, match=r"operator BertTokenizer of the domain 'ai.onnx.contrib', .* standard operators"
    ):
        prepare(custom_operator())
    with pytest.raises(ModelError, match="uses opset 22, and devices read up to 21"):
        prepare(old_convolution(22))


def test_functions_of_the_file_itself_are_inlined() -> None:
    """Their operators are standard ones, and no quantizer looks into a function."""
    prepared = onnx.load_model_from_string(prepare(local_function()).model)
    assert ["Mul", "Neg"] == [node.op_type for node in prepared.graph.node]
    assert {""} == {opset.domain for opset in prepared.opset_import}
    assert not prepared.functions


def test_branches_in_branches_are_opened() -> None:
    """As deep as their conditions are known; every node that is left has a name of its own."""
    prepared = prepare(nested_ifs())
    nodes = onnx.load_model_from_string(prepared.model).graph.node
    assert ((), 0) == (prepared.notes, sum(node.op_type == "If" for node in nodes))
    assert len(nodes) == len({node.name for node in nodes} - {""})


def test_weights_in_another_file_are_asked_for(tmp_path: Path) -> None:
    """Bytes alone do not hold them."""
    weights = numpy_helper.from_array(np.ones((64, 64), np.float32), "w")
    node = onnx.helper.make_node("MatMul", ["x", "w"], ["y"])
    ends = [onnx.helper.make_tensor_value_info(name, 1, ["n", 64]) for name in ("x", "y")]
    model = onnx.helper.make_model(onnx.helper.make_graph([node], "g", ends[:1], ends[1:], [weights]))
    path = tmp_path / "model.onnx"
    onnx.save_model(model, path, save_as_external_data=True, location="weights.bin")
    with pytest.raises(ModelError, match=r"the weight 'w' is in the file weights.bin: give the path"):
        prepare(path.read_bytes())


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        (nn.LSTM, {}),
        (nn.LSTM, {"num_layers": 2, "bidirectional": True}),
        (nn.GRU, {"bidirectional": True}),
        (nn.GRU, {"num_layers": 2}),
    ],
)
def test_recurrent_weights_are_initializers(kind: type[nn.Module], options: dict[str, Any]) -> None:
    """Exporters reorder the gates with Slice and Concat at run time: quantizers would see no weights at all."""
    torch.manual_seed(0)
    network = kind(8, 16, batch_first=True, **options).eval()
    samples = [Sample({"input": array}, None) for array in torch.randn(5, 12, 8).numpy()]
    model = TorchModel(FirstOutput(network))
    prepared = prepare(model.to_onnx(samples[0])).model
    graph = onnx.load_model_from_string(prepared).graph
    constants = {tensor.name for tensor in graph.initializer}
    recurrent = [node for node in graph.node if node.op_type == kind.__name__]
    assert options.get("num_layers", 1) == len(recurrent)
    assert all(set(node.input[1:4]) <= constants and all(node.input[1:4]) for node in recurrent)
    assert not {"Slice", "Concat"} & {node.op_type for node in graph.node}
    (expected,), (actual,) = model.predict(samples), OnnxRuntimeSession(prepared, threads=1).predict(samples).values()
    np.testing.assert_allclose(actual, expected, atol=1e-5)
