"""Traps 1, 5 and 9, and calibration on ragged data: what the ranges are taken from, and what one scale costs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnxruntime.quantization import QuantType, quantize_static
from onnxruntime.quantization.calibrate import HistogramCollector, PercentileCalibrater

from edgeopt.calibration import ranges
from edgeopt.calibration.collection import collect
from edgeopt.data import fit_to, load_samples
from edgeopt.graph import prepare
from edgeopt.models import load_model
from edgeopt.quantization import static
from edgeopt.quantization.candidates import first_recipes
from edgeopt.quantization.facts import facts_of
from edgeopt.recipe import Calibrator, Precision, Recipe
from edgeopt.runtimes.onnx_runtime import OnnxRuntimeSession
from edgeopt.samples import Sample
from edgeopt.scoring import load_metric
from edgeopt.silence import silenced
from edgeopt.sources import DataSources, SplitData, read_splits
from edgeopt.targets import host_target
from edgeopt_contract.errors import DataError
from tests.optimizer import wild_graphs
from tests.optimizer.calibration_reader import Reader

pytestmark = pytest.mark.traps


def answers(model: bytes, samples: list[Sample]) -> np.ndarray:
    """Return the class that ``model`` says for each sample, without this CPU's saturation."""
    (scores,) = OnnxRuntimeSession(model, threads=1, simulated=True).predict(samples).values()
    return scores.argmax(1)


@pytest.fixture(scope="module")
def fashion() -> tuple[bytes, list[Sample]]:
    """Return the Fashion-MNIST example, a depthwise CNN, and 2,000 of its pictures."""
    try:
        samples = load_samples("examples.fashion_mnist:data")[:2000]
    except DataError as error:
        pytest.skip(str(error))  # names the Debian package
    model = prepare(load_model("examples.fashion_mnist:model").to_onnx(samples[0])).model
    return model, fit_to(samples, OnnxRuntimeSession(model, threads=1).inputs)


class TestOrderedByClass:
    """Trap 9: the first samples of data that is ordered by class are all of one."""

    @pytest.fixture(scope="class")
    @staticmethod
    def ordered(tmp_path_factory: pytest.TempPathFactory) -> dict[str, SplitData]:
        """Return the splits of the digits as they come, ordered by class, and reversed."""
        samples = load_samples("edgeopt_zoo:digits_data")
        x = np.stack([sample.inputs["input"] for sample in samples])
        y = np.array([sample.label for sample in samples])
        folder = tmp_path_factory.mktemp("ordered")
        orders = {"as they come": np.arange(len(y)), "by class": np.argsort(y, kind="stable")}
        orders["reversed"] = orders["by class"][::-1]
        for name, order in orders.items():
            np.savez(folder / f"{name}.npz", x=x[order], y=y[order])
        metric = load_metric("accuracy")
        return {name: read_splits(DataSources(single=str(folder / f"{name}.npz")), 0, metric) for name in orders}

    def test_what_is_drawn_is_mixed(self, ordered: dict[str, SplitData]) -> None:
        """Already the first hundred of the calibration samples hold every class."""
        for splits in ordered.values():
            assert set(range(10)) == {int(sample.label) for sample in splits.calibration[:100]}

    def test_the_ranges_are_the_same_in_any_order(
        self, ordered: dict[str, SplitData], trained_digits: tuple[bytes, list[Sample]]
    ) -> None:
        """To the last bit, with every calibrator."""
        model, _ = trained_digits
        inputs = OnnxRuntimeSession(model, threads=1).inputs
        found = {name: collect(model, fit_to(splits.calibration, inputs)) for name, splits in ordered.items()}
        for calibrator in Calibrator:
            expected = found["as they come"].ranges(calibrator)
            assert expected == found["by class"].ranges(calibrator)
            assert expected == found["reversed"].ranges(calibrator)

    def test_the_first_samples_would_have_given_other_ranges(
        self, ordered: dict[str, SplitData], trained_digits: tuple[bytes, list[Sample]]
    ) -> None:
        """All of them are zeros: a layer's scores for the other classes are cut off."""
        model, _ = trained_digits
        fitted = fit_to(ordered["by class"].calibration, OnnxRuntimeSession(model, threads=1).inputs)
        zeros = [sample for sample in fitted if sample.label == 0]
        (output,) = (value.name for value in onnx.load_model_from_string(model).graph.output)
        low, high = collect(model, fitted).ranges(Calibrator.MINMAX)[output]
        low_of_zeros, high_of_zeros = collect(model, zeros).ranges(Calibrator.MINMAX)[output]
        assert high_of_zeros - low_of_zeros < 0.9 * (high - low)


class TestOneScaleForAWeight:
    """Trap 1: one scale for a whole weight, ONNX Runtime's default, changes more answers than accuracy tells."""

    @pytest.fixture(scope="class")
    @staticmethod
    def default(fashion: tuple[bytes, list[Sample]], tmp_path_factory: pytest.TempPathFactory) -> bytes:
        """Return what quantize_static makes with one scale for a weight."""
        model, samples = fashion
        path = tmp_path_factory.mktemp("default") / "int8.onnx"
        with silenced():
            quantize_static(
                onnx.load_model_from_string(model),
                path,
                Reader(samples[:100]),
                activation_type=QuantType.QUInt8,
                per_channel=False,
            )
        return path.read_bytes()

    def test_agreement_falls_further_than_accuracy(self, fashion: tuple[bytes, list[Sample]], default: bytes) -> None:
        """Answers that were wrong change to other wrong ones, or to right ones: only agreement sees all of them."""
        model, samples = fashion
        judged = samples[100:]
        labels = np.array([sample.label for sample in judged])
        before, after = answers(model, judged), answers(default, judged)
        lost = (before == labels).mean() - (after == labels).mean()
        changed = (before != after).mean()
        assert changed > 0.05
        assert changed > 1.2 * lost

    def test_the_recipes_of_edgeopt_have_a_scale_for_each_channel(self, fashion: tuple[bytes, list[Sample]]) -> None:
        """And change few answers, each of them."""
        model, samples = fashion
        statistics = collect(model, samples[:100])
        before = answers(model, samples[100:])
        for recipe in first_recipes(facts_of(model), host_target()):
            int8 = static.quantize_static(model, recipe, statistics.ranges(recipe.calibrator))
            assert (before == answers(int8, samples[100:])).mean() > 0.98


class TestRagged:
    """Percentile and entropy on samples of different lengths (optimum#409, onnxruntime#18792)."""

    @pytest.fixture(scope="class")
    @staticmethod
    def ragged() -> list[Sample]:
        """Return samples of five sizes."""
        random = np.random.default_rng(0)
        sizes = (8, 9, 13, 20, 31)
        return [
            Sample({"x": random.standard_normal((3, sizes[i % 5], sizes[i % 5] + 1)).astype(np.float32)}, None)
            for i in range(25)
        ]

    def test_onnxruntime_cannot(self, ragged: list[Sample], tmp_path: Path) -> None:
        """It makes one array of all samples; should this fail, it has learned to do without."""
        path = tmp_path / "float.onnx"
        path.write_bytes(wild_graphs.dynamic_axes())
        theirs = PercentileCalibrater(path, ["Conv"], augmented_model_path=str(tmp_path / "more.onnx"))
        theirs.augment_graph()
        theirs.create_inference_session()
        with pytest.raises(ValueError, match="inhomogeneous"), silenced():
            theirs.collect_data(Reader(ragged))

    def test_ours_is_within_one_bin_of_theirs_on_all_values_at_once(self, ragged: list[Sample]) -> None:
        """Its arithmetic, given the values in one piece."""
        values = np.concatenate([sample.inputs["x"].ravel() for sample in ragged])
        collector = HistogramCollector("percentile", False, 2048, None, ranges.PERCENTILE, None)
        with silenced():
            collector.collect({"x": values})
            expected = collector.compute_collection_result()["x"]
        edges = collector.get_histogram_dict()["x"][1]
        found = collect(wild_graphs.dynamic_axes(), ragged).ranges(Calibrator.PERCENTILE)["x"]
        np.testing.assert_allclose([float(expected[0]), float(expected[1])], found, atol=float(edges[1] - edges[0]))

    @pytest.mark.parametrize("calibrator", Calibrator)
    def test_the_model_is_quantized(self, ragged: list[Sample], calibrator: Calibrator) -> None:
        """And computes what it should, for each size."""
        model = wild_graphs.dynamic_axes()
        found = collect(model, ragged).ranges(calibrator)
        int8 = static.quantize_static(model, Recipe(precision=Precision.INT8, calibrator=calibrator), found)
        one, other = (OnnxRuntimeSession(each, threads=1, simulated=True) for each in (model, int8))
        pairs = [(one.predict([s])["y"].ravel(), other.predict([s])["y"].ravel()) for s in ragged]
        expected, actual = (np.concatenate(values) for values in zip(*pairs, strict=True))
        assert np.corrcoef(expected, actual)[0, 1] > 0.98


_PASS = """
import re, sys
from pathlib import Path
import numpy as np
from edgeopt.calibration.collection import collect
from edgeopt.recipe import Calibrator
from edgeopt.samples import Sample

pictures = np.load(sys.argv[2], mmap_mode="r")[: int(sys.argv[3])]
with open(sys.argv[1], "rb") as file:
    found = collect(file.read(), [Sample({sys.argv[4]: picture}, None) for picture in pictures])
for calibrator in Calibrator:
    found.ranges(calibrator)
# not ru_maxrss: that begins with what the parent had when it started this process
print(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1])
"""


class TestMemory:
    """P5: calibration that fills the memory (onnxruntime#10503, #11020, #21979)."""

    @pytest.fixture(scope="class")
    @staticmethod
    def files(fashion: tuple[bytes, list[Sample]], tmp_path_factory: pytest.TempPathFactory) -> list[str]:
        """Write what the processes read."""
        model, samples = fashion
        folder = tmp_path_factory.mktemp("memory")
        (folder / "model.onnx").write_bytes(model)
        (name,) = samples[0].inputs
        np.save(folder / "pictures.npy", np.stack([sample.inputs[name] for sample in samples]))
        return [str(folder / "model.onnx"), str(folder / "pictures.npy"), name]

    def test_peak_memory_hardly_grows_with_the_samples(self, files: list[str]) -> None:
        """2,000 samples, all four calibrators: at most 1.15 times what 100 need, each in a process of its own."""
        model, pictures, name = files

        def peak(samples: int) -> int:
            command = [sys.executable, "-c", _PASS, model, pictures, str(samples), name]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            return int(done.stdout)

        few, many = peak(100), peak(2000)
        print(f"peak memory: {few / 1024:.0f} MiB with 100 samples, {many / 1024:.0f} MiB with 2,000")
        assert many <= 1.15 * few
