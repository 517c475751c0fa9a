"""The real command on real models: what it claims must hold, and must follow from the figures beside it.

No time is asserted. A latency ratio in a report is the product's own claim; here it only has to be consistent with
what was chosen. What edgeopt reaches beside other tools is measured by ``make bench-optimizer``.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

import numpy as np
import onnxruntime as ort
import pytest

from benchmarks.optimizer.cases import CASES, Case
from benchmarks.optimizer.ours import Run, run_command
from edgeopt.gate import Verdict
from edgeopt.recipe import Precision, RuntimeName
from edgeopt.results import VariantResult
from edgeopt.search.choice import NEVER_SLOWER, SMALLER, faster, worth_its_size
from examples import efficientnet_lite0

_NAMES = ("digits", "fashion_mnist", "letter", "efficientnet_lite0")
_EFFICIENTNET_AGREEMENT = 0.95
_CODES = {Verdict.PASS: 0, Verdict.FAIL: 3, Verdict.INCONCLUSIVE: 4}


@dataclass(frozen=True)
class Quantized:
    """One run of ``edgeopt quantize``."""

    case: Case
    run: Run

    @property
    def certified(self) -> VariantResult:
        """The variant that was judged: the first; fp32 when nothing else was worth it."""
        return self.run.target.variants[0]

    @property
    def fp32_bytes(self) -> int:
        """The float model's size."""
        assert self.run.report is not None
        return self.run.report.baseline.size_bytes


_RUNS: dict[str, Quantized] = {}


def run_of(name: str, factory: pytest.TempPathFactory) -> Quantized:
    """Run the command on the example ``name``, once in a session."""
    if name not in _RUNS:
        case = CASES[name]
        if reason := case.missing():
            pytest.skip(reason)
        folder = factory.mktemp(name) / "bundle"
        run = run_command(["quantize", *case.arguments(folder)], folder)
        assert run.report is not None, f"edgeopt quantize ended with {run.code} and without a report:\n{run.said}"
        assert "Traceback" not in run.said
        _RUNS[name] = Quantized(case, run)
    return _RUNS[name]


@pytest.fixture(params=_NAMES)
def quantized(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Quantized:
    """Each public model in turn."""
    return run_of(request.param, tmp_path_factory)


@pytest.mark.models
@pytest.mark.timeout(900)
def test_report_says_what_follows_from_its_figures(quantized: Quantized, capsys: pytest.CaptureFixture[str]) -> None:
    """Verdict, choice and exit code agree with drop, bounds and ratio."""
    run, certified = quantized.run, quantized.certified
    report, target = run.report, run.target
    assert report is not None
    with capsys.disabled():
        print(f"\n{quantized.case.name}: {target.chosen}: {'; '.join(target.reasons)}")
    assert 2 == report.schema
    assert _CODES[report.verdict] == run.code
    assert report.verdict is target.verdict
    assert (target.chosen is None) == (target.verdict is not Verdict.PASS)
    metric = certified.metric
    assert (metric.drop_upper <= quantized.case.margin) == (certified.verdict is Verdict.PASS)
    assert pytest.approx(report.baseline.metric - metric.value) == metric.drop
    assert metric.drop_lower <= metric.drop <= metric.drop_upper
    assert target.reasons
    for variant in target.variants:
        if variant.speed is not None:
            assert variant.speed.ratio_low <= variant.speed.ratio <= variant.speed.ratio_high


@pytest.mark.models
@pytest.mark.timeout(900)
def test_what_ships_is_faster_or_much_smaller(quantized: Quantized) -> None:
    """Nothing slower than fp32 is chosen: it is surely faster, or a quarter smaller at the same speed, or fp32."""
    chosen = quantized.run.chosen
    assert chosen is not None
    if chosen.recipe.precision is not Precision.FP32:
        assert faster(chosen.speed) or worth_its_size(chosen.size_bytes, chosen.speed, quantized.fp32_bytes)
        assert chosen.speed is None or chosen.speed.ratio >= NEVER_SLOWER


@pytest.mark.models
@pytest.mark.timeout(900)
def test_splits_are_reported_and_differ(quantized: Quantized) -> None:
    """The certification split is the one the metric counts, and no two splits have the same content."""
    assert quantized.run.report is not None
    splits = quantized.run.report.splits
    assert {"calibration", "selection", "certification"} == set(splits)
    assert splits["certification"].size == quantized.certified.metric.n
    assert 3 == len({split.hash for split in splits.values()})


@pytest.mark.models
@pytest.mark.timeout(900)
def test_bundle_carries_what_was_chosen(quantized: Quantized) -> None:
    """On PASS the chosen model lies in the bundle with the reported size; without it there is no bundle."""
    run, chosen = quantized.run, quantized.run.chosen
    manifest = run.folder / "manifest.json"
    assert manifest.exists() == (run.target.verdict is Verdict.PASS)
    assert (run.folder / "report.html").exists()
    if chosen is not None:
        assert (run.folder / chosen.file).stat().st_size == chosen.size_bytes
        assert chosen.name in {variant["name"] for variant in json.loads(manifest.read_bytes())["variants"]}


@pytest.mark.models
@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", ["digits", "fashion_mnist", "letter"])
def test_small_models_keep_their_accuracy(name: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    """What was certified passed and answers as the float model does."""
    quantized = run_of(name, tmp_path_factory)
    assert Verdict.PASS is quantized.run.target.verdict
    assert quantized.certified.agreement >= 0.98


@pytest.mark.models
@pytest.mark.timeout(900)
def test_letter_is_only_made_smaller(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Int8 arithmetic is slower for a network this small: int8 weights ship at the speed of fp32, or fp32 itself."""
    quantized = run_of("letter", tmp_path_factory)
    chosen = quantized.run.chosen
    assert chosen is not None
    assert 0 == quantized.run.code
    assert chosen.recipe.precision in (Precision.INT8_WEIGHTS, Precision.FP32)
    if chosen.recipe.precision is Precision.INT8_WEIGHTS:
        assert chosen.size_bytes <= SMALLER * quantized.fp32_bytes


@pytest.mark.models
@pytest.mark.timeout(900)
def test_efficientnet_agrees_with_itself(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Agreement of at least 95 % on the certification split, on every CPU, and a smaller file."""
    quantized = run_of("efficientnet_lite0", tmp_path_factory)
    assert Verdict.PASS is quantized.run.target.verdict
    assert quantized.certified.agreement >= _EFFICIENTNET_AGREEMENT
    assert quantized.certified.size_bytes <= quantized.fp32_bytes


@pytest.mark.models
@pytest.mark.timeout(900)
def test_efficientnet_agreement_can_be_counted_again(tmp_path_factory: pytest.TempPathFactory) -> None:
    """ONNX Runtime alone, on the bundle's two files and the example's pictures, finds the agreement reported."""
    quantized = run_of("efficientnet_lite0", tmp_path_factory)
    chosen = quantized.run.chosen
    assert chosen is not None
    if chosen.recipe.precision is Precision.FP32 or chosen.recipe.runtime is not RuntimeName.ONNXRUNTIME:
        pytest.skip("fp32 was chosen on this machine, so there are no two files to compare")
    options = ort.SessionOptions()
    options.log_severity_level = 3
    sessions = [ort.InferenceSession(quantized.run.folder / file, options) for file in ("fp32.onnx", chosen.file)]
    same = [
        len(
            {int(np.argmax(session.run(None, {session.get_inputs()[0].name: inputs[None]})[0])) for session in sessions}
        )
        for inputs, _ in efficientnet_lite0.certification()
    ]
    # Float sums depend on the batch size in their last bits, which may tip a picture whose best two classes are level.
    assert pytest.approx(chosen.agreement, abs=2.5 / len(same)) == same.count(1) / len(same)
