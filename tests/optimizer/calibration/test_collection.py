"""One pass over the samples: every activation, in constant memory, for any graph and any length."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnxruntime.quantization.calibrate import MinMaxCalibrater, PercentileCalibrater
from onnxruntime.quantization.registry import QDQRegistry, QLinearOpsRegistry

from edgeopt.calibration import collection
from edgeopt.calibration.collection import collect
from edgeopt.calibration.statistics import Statistics
from edgeopt.recipe import Calibrator
from edgeopt.samples import Sample
from edgeopt_contract.errors import DataError, ModelError
from tests.optimizer import wild_graphs
from tests.optimizer.calibration_reader import Reader
from tests.optimizer.graphs import convolution_chain

SUPPORTED = [*QDQRegistry, *QLinearOpsRegistry]


@pytest.fixture(scope="module")
def digits(trained_digits: tuple[bytes, list[Sample]]) -> tuple[bytes, list[Sample]]:
    """Return the trained digits network and 301 digits."""
    model, samples = trained_digits
    return model, samples[:301]


@pytest.fixture(scope="module")
def statistics(digits: tuple[bytes, list[Sample]]) -> Statistics:
    """Return what one pass over the digits finds."""
    return collect(*digits)


def calibrated(calibrator: type, model: bytes, samples: list[Sample], folder: Path, **options: object) -> object:
    """Return ONNX Runtime's calibrator after its pass over ``samples``."""
    path = folder / "float.onnx"
    path.write_bytes(model)
    theirs = calibrator(path, SUPPORTED, augmented_model_path=str(folder / "augmented.onnx"), **options)
    theirs.augment_graph()
    theirs.create_inference_session()
    theirs.collect_data(Reader(samples))
    return theirs


def test_minmax_is_bit_for_bit_that_of_onnxruntime(
    digits: tuple[bytes, list[Sample]], statistics: Statistics, tmp_path: Path
) -> None:
    """Of the same tensors."""
    theirs = calibrated(MinMaxCalibrater, *digits, tmp_path).compute_data()
    expected = {name: (min(d.lowest.item(), 0.0), max(d.highest.item(), 0.0)) for name, d in theirs.items()}
    assert expected == statistics.ranges(Calibrator.MINMAX)


def test_percentile_is_within_one_bin_of_onnxruntime(
    digits: tuple[bytes, list[Sample]], statistics: Statistics, tmp_path: Path
) -> None:
    """On a trained network and real pictures; a bin is one of ONNX Runtime's 2,048."""
    theirs = calibrated(PercentileCalibrater, *digits, tmp_path, symmetric=False, percentile=99.99)
    computed, edges = theirs.compute_data(), theirs.collector.get_histogram_dict()
    ours = statistics.ranges(Calibrator.PERCENTILE)
    assert set(computed.keys()) == set(ours)
    for name, data in computed.items():
        width = float(edges[name][1][1] - edges[name][1][0]) * 1.001
        extremes = statistics.tensors[name]
        low, high = max(ours[name][0], min(extremes.low, 0)), min(ours[name][1], extremes.high)
        assert abs(min(float(data.lowest), 0) - low) <= width, name
        assert abs(max(float(data.highest), 0) - high) <= width, name


def same(first: Statistics, second: Statistics) -> bool:
    """Tell whether all ranges are the same, to the last bit."""
    return all(first.ranges(calibrator) == second.ranges(calibrator) for calibrator in Calibrator)


def test_parts_can_be_collected_apart(digits: tuple[bytes, list[Sample]], statistics: Statistics) -> None:
    """And in any order."""
    model, samples = digits
    assert same(statistics, collect(model, samples[200:]).merge(collect(model, samples[:200])))


def test_groups_change_nothing(
    digits: tuple[bytes, list[Sample]], statistics: Statistics, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A graph whose activations do not fit into memory runs once for each group of them."""
    monkeypatch.setattr(collection, "_GROUP_BYTES", 10_000)
    model, samples = digits
    runs: list[int] = []
    plain = collection._session
    monkeypatch.setattr(collection, "_session", lambda *call: runs.append(len(call[2])) or plain(*call))
    assert same(statistics, collect(model, samples))
    assert len(runs) > 1
    assert all(runs)


class Stream:
    """Samples that are made as they are read, and counted."""

    def __init__(self, count: int) -> None:
        self.count, self.read = count, 0

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Sample:
        if index >= self.count:
            raise IndexError(index)
        self.read += 1
        return Sample({"x": np.random.default_rng(index).standard_normal((3, 8, 8)).astype(np.float32)}, None)

    def __iter__(self) -> Iterator[Sample]:
        return (self[index] for index in range(self.count))


def test_samples_are_read_once_and_may_be_made_on_the_way() -> None:
    """No list of them is ever made; the first is looked at beforehand."""
    stream = Stream(5)
    collect(convolution_chain(3), stream)  # type: ignore[arg-type]  # a sequence in all but name
    assert 6 == stream.read


@pytest.mark.parametrize("lengths", [(8, 8, 8), (8, 12, 20), (20, 9, 8)])
def test_variable_lengths(lengths: tuple[int, ...]) -> None:
    """Each sample may have its own; the ranges are those of all."""
    model = wild_graphs.dynamic_axes()
    random = np.random.default_rng(0)
    samples = [Sample({"x": random.standard_normal((3, n, n + 1)).astype(np.float32)}, None) for n in lengths]
    found = collect(model, samples)
    assert {"x", "c", "r", "s", "pooled"} <= set(found.tensors)
    assert sum(s.inputs["x"].size for s in samples) == found.tensors["x"].total
    greatest = max(float(s.inputs["x"].max()) for s in samples)
    assert greatest == found.ranges(Calibrator.MINMAX)["x"][1]


def test_a_fixed_batch_of_one() -> None:
    """As many exporters write it."""
    model = onnx.load_model_from_string(convolution_chain(3))
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1
    found = collect(model.SerializeToString(), wild_graphs.pictures(4))
    assert 4 * 3 * 64 == found.tensors["x"].total


def test_several_inputs_of_other_types() -> None:
    """Integers and masks are fed and not counted."""
    found = collect(wild_graphs.integer_inputs(), wild_graphs.integer_data())
    assert {"tokens", "masked", "hidden", "active"} <= set(found.tensors)
    assert not {"ids", "offset", "mask", "shifted"} & set(found.tensors)


@pytest.mark.parametrize("make", [wild_graphs.real_if, wild_graphs.prelu, wild_graphs.several_outputs])
def test_graphs_in_the_wild(make: object) -> None:
    """Branches, several outputs, slopes: what is in the main graph is counted."""
    found = collect(make(), wild_graphs.pictures(5))
    assert "c" in found.tensors
    assert all(low < high for low, high in found.ranges(Calibrator.MSE).values())


def test_an_input_that_is_also_an_output() -> None:
    """ONNX Runtime gives back the very same memory (onnxruntime#21922)."""
    model = onnx.load_model_from_string(convolution_chain(2))
    model.graph.output.append(model.graph.input[0])
    assert 4 * 3 * 64 == collect(model.SerializeToString(), wild_graphs.pictures(4)).tensors["x"].total


def _divided() -> bytes:
    nodes = [
        onnx.helper.make_node("Conv", ["x", "w"], ["c"], "stem", kernel_shape=[3, 3]),
        onnx.helper.make_node("Sqrt", ["c"], ["root"], "root of it"),
        onnx.helper.make_node("Mul", ["root", "root"], ["y"], "square"),
    ]
    inputs = [("x", wild_graphs.FLOAT, ["n", 3, 8, 8])]
    outputs = [("y", wild_graphs.FLOAT, ["n", 6, 6, 6])]
    return wild_graphs.model(nodes, inputs, outputs, [wild_graphs.tensor("w", 6, 3, 3, 3)])


def test_what_is_not_a_number_names_its_node() -> None:
    """The root of a negative number, first met behind the node that made it."""
    with pytest.raises(ModelError, match=r"'root' of node 'root of it' \(Sqrt\) is NaN or infinite"):
        collect(_divided(), wild_graphs.pictures(3))


def test_no_samples_and_wrong_samples_are_refused() -> None:
    """The user's data, the user's sentence."""
    with pytest.raises(DataError, match="at least one sample"):
        collect(convolution_chain(2), [])
    with pytest.raises(ModelError, match="failed on calibration sample 0"):
        collect(convolution_chain(2), wild_graphs.pictures(side=4))
