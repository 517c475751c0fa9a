"""The real command on real models: what it claims must hold, and must follow from the figures beside it.

No time is asserted. A latency ratio in a report is the product's own claim; here it only has to be consistent with
what was chosen. That EfficientNet-Lite0 is 1.6 times as fast with VNNI is claimed by the benchmark.
"""

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest

from benchmarks.optimizer.public_models import CASES, RATIO_ON_VNNI, Case, Row, claims, quantize, row_of_report, table
from edgeopt.targets import host_target
from examples import efficientnet_lite0, fashion_mnist

_EFFICIENTNET_AGREEMENT = 0.90
_EFFICIENTNET_BYTES = 5_400_000
_BY_NAME = {case.name: case for case in CASES}


@dataclass(frozen=True)
class Run:
    """One run of the command and what it left behind."""

    case: Case
    code: int
    report: Mapping[str, Any]
    folder: Path

    @property
    def int8(self) -> Mapping[str, Any]:
        """The report's figures of int8."""
        (variant,) = (variant for variant in self.report["variants"] if variant["name"] == "int8")
        return variant

    @property
    def margin(self) -> float:
        """The greatest drop allowed, as a share."""
        return float(self.case.max_drop.rstrip("%")) / 100


_RUNS: dict[str, Run] = {}


def run_of(name: str, factory: pytest.TempPathFactory) -> Run:
    """Run the command on the example ``name``, once in a session."""
    if name == "fashion_mnist" and not fashion_mnist.FOLDER.exists():
        pytest.skip("needs its data: apt-get install dataset-fashion-mnist")
    if name not in _RUNS:
        folder = factory.mktemp(name) / "bundle"
        code, report, said = quantize(_BY_NAME[name], folder)
        assert report, f"edgeopt quantize ended with {code} and without a report:\n{said}"
        assert "Traceback" not in said
        _RUNS[name] = Run(_BY_NAME[name], code, report, folder)
    return _RUNS[name]


@pytest.fixture(params=[case.name for case in CASES])
def run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Each public model in turn."""
    return run_of(request.param, tmp_path_factory)


@pytest.mark.models
@pytest.mark.timeout(900)
def test_report_says_what_follows_from_its_figures(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    """Verdict, choice and exit code agree with drop, bounds and ratio; the table line is printed."""
    with capsys.disabled():
        print("\n" + table([row_of_report(run.case, run.report)]))  # what a reader of the test's output wants to know
    report, int8 = run.report, run.int8
    metric, latency = int8["metric"], int8["latency_ms"]
    assert {"PASS": 0, "FAIL": 3, "INCONCLUSIVE": 4}[report["verdict"]] == run.code
    assert (metric["drop_upper"] <= run.margin) == (int8["verdict"] == "PASS")
    assert pytest.approx(report["baseline"]["metric"] - metric["value"]) == metric["drop"]
    assert metric["drop_lower"] <= metric["drop"] <= metric["drop_upper"]
    assert latency["ratio_low"] <= latency["ratio"] <= latency["ratio_high"]
    faster = latency["ratio_low"] > 1
    expected = "int8" if faster and int8["verdict"] == "PASS" else None if faster else "fp32"
    assert expected == report["chosen"]
    assert (report["chosen"] is None) == (report["verdict"] != "PASS")
    assert report["reasons"]


@pytest.mark.models
@pytest.mark.timeout(900)
def test_splits_are_reported_and_differ(run: Run) -> None:
    """The certification split is the one the metric counts, and no two splits have the same content."""
    splits = run.report["splits"]
    assert {"calibration", "selection", "certification"} == set(splits)
    assert splits["certification"]["size"] == run.int8["metric"]["n"]
    assert 3 == len({split["hash"] for split in splits.values()})


@pytest.mark.models
@pytest.mark.timeout(900)
def test_bundle_carries_what_was_chosen(run: Run) -> None:
    """On PASS the chosen model lies in the bundle with the reported size; without it there is no bundle."""
    manifest = run.folder / "manifest.json"
    assert manifest.exists() == (run.report["verdict"] == "PASS")
    assert (run.folder / "report.html").exists()
    if run.report["chosen"] == "int8":
        assert (run.folder / run.int8["file"]).stat().st_size == run.int8["size_bytes"]
        assert run.int8["size_bytes"] < run.report["baseline"]["size_bytes"]
    if manifest.exists():
        shipped = {variant["name"] for variant in json.loads(manifest.read_bytes())["variants"]}
        assert run.report["chosen"] in shipped


@pytest.mark.models
@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", ["digits", "fashion_mnist", "letter"])
def test_small_models_keep_their_accuracy(name: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Int8 stays within what was allowed on the certification split, whether or not it is worth shipping."""
    run = run_of(name, tmp_path_factory)
    assert ("PASS", "PASS") == (run.report["verdict"], run.int8["verdict"])
    assert run.int8["agreement"] >= 0.98


@pytest.mark.models
def test_letter_keeps_fp32_and_says_why(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Int8 is slower for a network this small: the bundle carries the float model only, at exit code 0."""
    run = run_of("letter", tmp_path_factory)
    assert ("fp32", 0) == (run.report["chosen"], run.code)
    assert any("not faster" in reason for reason in run.report["reasons"])
    assert not (run.folder / "int8.onnx").exists()


@pytest.mark.models
@pytest.mark.timeout(900)
def test_efficientnet_agrees_with_itself_and_is_small(
    tmp_path_factory: pytest.TempPathFactory, capsys: pytest.CaptureFixture[str]
) -> None:
    """Agreement of at least 90 % in at most 5.4 MB, on every CPU: only the speed depends on VNNI."""
    run = run_of("efficientnet_lite0", tmp_path_factory)
    with capsys.disabled():
        print("\n" + _thresholds(vnni=host_target().has_vnni))
    assert "PASS" == run.report["verdict"]
    assert run.int8["agreement"] >= _EFFICIENTNET_AGREEMENT
    assert run.int8["size_bytes"] <= _EFFICIENTNET_BYTES


def _thresholds(*, vnni: bool) -> str:
    speed = (
        f"with VNNI the benchmark claims a ratio of {RATIO_ON_VNNI}"
        if vnni
        else f"a ratio of {RATIO_ON_VNNI} is not claimed: this CPU lacks VNNI; int8 ships if it is faster at all"
    )
    return f"thresholds: agreement {_EFFICIENTNET_AGREEMENT:.0%}, {_EFFICIENTNET_BYTES / 1e6} MB; {speed}"


@pytest.mark.models
@pytest.mark.timeout(900)
def test_efficientnet_agreement_can_be_counted_again(tmp_path_factory: pytest.TempPathFactory) -> None:
    """ONNX Runtime alone, on the bundle's two files and the example's pictures, finds the agreement reported."""
    run = run_of("efficientnet_lite0", tmp_path_factory)
    if run.report["chosen"] != "int8":
        pytest.skip("int8 was not faster on this machine, so the bundle does not carry it")
    options = ort.SessionOptions()
    options.log_severity_level = 3
    sessions = [ort.InferenceSession(run.folder / file, options) for file in ("fp32.onnx", run.int8["file"])]
    same = [
        len(
            {int(np.argmax(session.run(None, {session.get_inputs()[0].name: inputs[None]})[0])) for session in sessions}
        )
        for inputs, _ in efficientnet_lite0.certification()
    ]
    # Float sums depend on the batch size in their last bits, which may tip a picture whose best two classes are level.
    assert pytest.approx(run.int8["agreement"], abs=2.5 / len(same)) == same.count(1) / len(same)


# --- the benchmark's own arithmetic -----------------------------------------------------------------------------------

_ROW = Row(
    case="efficientnet_lite0",
    tool="edgeopt",
    verdict="PASS",
    chosen="int8",
    agreement=0.9733,
    score=0.9733,
    fp32_bytes=18_548_000,
    size_bytes=5_070_000,
    ratio=1.41,
    ratio_low=1.39,
    ratio_high=1.44,
    seconds=50.0,
)


def test_table_has_one_line_for_each_row() -> None:
    """Verdict, choice, agreement, sizes and the ratio with its interval stand in the line."""
    (head, line) = table([_ROW]).splitlines()
    assert ["model", "tool", "verdict"] == head.split()[:3]
    assert ["efficientnet_lite0", "edgeopt", "PASS", "int8", "97.3%", "18.55>5.07", "1.41", "(1.39", "to", "1.44)"] == (
        line.split()
    )


def test_table_says_when_nothing_was_measured() -> None:
    """A target that this machine cannot time leaves no number that looks like one."""
    line = table([dataclasses.replace(_ROW, ratio=None, ratio_low=None, ratio_high=None)]).splitlines()[1]
    assert line.endswith("not measured")


@pytest.mark.parametrize(
    ("vnni", "ratio", "expected"),
    [
        (True, 1.6, "MET"),
        (True, 1.59, "MISSED"),
        (True, None, "MISSED"),
        (False, 1.9, "NOT MADE"),
        (False, 1.1, "NOT MADE"),
    ],
)
def test_ratio_is_claimed_with_vnni_only(*, vnni: bool, ratio: float | None, expected: str) -> None:
    """The promise holds for the kind of CPU it was measured on; elsewhere the benchmark says that it makes none."""
    (claim,) = claims([dataclasses.replace(_ROW, ratio=ratio)], vnni=vnni)
    assert claim.startswith(expected)


def test_no_claim_without_its_model() -> None:
    """A run on other models claims nothing."""
    assert [] == claims([dataclasses.replace(_ROW, case="letter")], vnni=True)


def test_cases_name_factories_that_exist() -> None:
    """What the command is given can be called."""
    import importlib

    for case in CASES:
        arguments = case.arguments(Path("out"))
        named = [argument.partition("=")[2] or argument for argument in arguments if "examples." in argument]
        assert (4 if case.three else 2) == len(named)
        for reference in named:
            module, _, attribute = reference.partition(":")
            assert callable(getattr(importlib.import_module(module), attribute))
