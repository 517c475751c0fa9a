"""The whole way from a model to a bundle, and every way it may end."""

from __future__ import annotations

import dataclasses
import io
import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeopt import pipeline
from edgeopt.pipeline import Outcome, run
from edgeopt.runtimes.onnx_runtime import OnnxRuntimeSession
from edgeopt.samples import Sample
from edgeopt.sources import DataSources
from edgeopt.splits import Split
from edgeopt.stages import Request
from edgeopt.targets import host_target, read_target
from edgeopt.timing import Times
from edgeopt_contract.bundle import open_bundle
from edgeopt_contract.codec import decode
from edgeopt_contract.errors import DataError, StorageError, UsageError
from edgeopt_contract.manifest import Capabilities, Role
from edgeopt_contract.profile import ReferenceProfile

Ratio = Callable[[float], None]
DEVICES = Path(__file__).parents[2] / "devices"


def _request(output: Path, model: str = "digits", data: str = "digits_data", **options: Any) -> Request:
    defaults = {"max_drop": 0.02, "name": "net", "data": DataSources(single=f"edgeopt_zoo:{data}")}
    return Request(model=f"edgeopt_zoo:{model}", output=output, **(defaults | options))


def _silent(_step: str) -> None:
    """Hear no progress."""


def _this_device() -> Capabilities:
    host = host_target()
    return Capabilities(
        arch=host.arch, features=host.features, runtimes={"onnxruntime": "1.20.1"}, cores=1, memory_bytes=2**30
    )


@pytest.fixture(scope="module")
def passed(tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    """One run on the digits, shared by the tests that only look at it."""
    steps: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pipeline, "measure", lambda load, clock, plan: Times(((0.003,),) * 15, ((0.002,),) * 15))
        folder = tmp_path_factory.mktemp("digits") / "out"
        outcome = pipeline.run(_request(folder, labels=tuple("0123456789")), steps.append)
    assert ["loading the model", "reading the data"] == steps[:2]
    return outcome


class TestPass:
    """A variant that holds and is faster."""

    def test_int8_comes_first_and_fp32_last(self, passed: Outcome) -> None:
        """A device that cannot run the first variant still finds one."""
        manifest = open_bundle(passed.bundle.directory).manifest
        assert ["int8", "fp32"] == [variant.name for variant in manifest.variants]
        assert "int8" == manifest.variant_for(_this_device()).name
        other = dataclasses.replace(_this_device(), arch="riscv64", features=())
        assert "fp32" == manifest.variant_for(other).name
        assert tuple("0123456789") == manifest.labels
        assert ((1, 8, 8), (10,)) == (manifest.inputs[0].shape, manifest.outputs[0].shape)

    def test_the_report_has_what_later_work_relies_on(self, passed: Outcome) -> None:
        """The keys of report.json, and that they agree with each other."""
        report = json.loads((passed.bundle.directory / "report.json").read_bytes())
        assert (1, "PASS", "int8") == (report["schema"], report["verdict"], report["chosen"])
        assert {"metric", "size_bytes", "latency_ms"} == set(report["baseline"])
        int8 = report["variants"][0]
        wanted = "name file runtime target verdict metric agreement size_bytes latency_ms"
        assert set(wanted.split()) == set(int8)
        assert {"name", "value", "drop", "drop_upper", "confidence", "n"} <= set(int8["metric"])
        assert report["baseline"]["metric"] - int8["metric"]["value"] == pytest.approx(int8["metric"]["drop"])
        assert {"median": 2.0, "ratio": 1.5, "ratio_low": 1.5, "ratio_high": 1.5} == pytest.approx(int8["latency_ms"])
        assert int8["size_bytes"] == (passed.bundle.directory / "int8.onnx").stat().st_size
        sizes = {name: split["size"] for name, split in report["splits"].items()}
        assert {"calibration": 359, "selection": 359} == {name: sizes[name] for name in ("calibration", "selection")}
        assert 1797 == sum(sizes.values())
        assert sizes["certification"] == int8["metric"]["n"]
        assert report["reasons"]
        assert report["seconds"] > 0

    def test_the_page_stands_alone(self, passed: Outcome) -> None:
        """The verdict comes first; nothing is fetched from anywhere, nothing runs."""
        page = (passed.bundle.directory / "report.html").read_text()
        assert page.index("PASS") < page.index("Variants")
        assert 2 == page.count("<svg")
        for reference in ("http://", "https://", "<script", "src=", "@import", "url("):
            assert reference not in page

    def test_golden_outputs_are_the_variants_own(self, passed: Outcome) -> None:
        """Running the shipped file on the golden inputs gives the golden outputs."""
        directory = passed.bundle.directory
        with np.load(io.BytesIO((directory / "golden.npz").read_bytes())) as golden:
            (name,) = (key.removeprefix("inputs/") for key in golden.files if key.startswith("inputs/"))
            inputs = golden[f"inputs/{name}"]
            assert inputs.nbytes <= 32 * 1024
            for variant in ("int8", "fp32"):
                session = OnnxRuntimeSession((directory / f"{variant}.onnx").read_bytes(), threads=1)
                ((output, actual),) = session.predict_singly([Sample({name: x}, None) for x in inputs]).items()
                assert np.array_equal(golden[f"outputs/{variant}/{output}"], actual)

    def test_the_profile_covers_what_did_not_certify(self, passed: Outcome) -> None:
        """Calibration and selection data; features with names that an alert can use."""
        profile = decode(ReferenceProfile, (passed.bundle.directory / "profile.json").read_bytes())
        assert 359 * 2 == profile.rows
        expected = ["brightness", "contrast", "sharpness", "class", "confidence", "entropy"]
        assert expected == [feature.spec.name for feature in profile.features]

    def test_lineage_names_everything_that_decided(self, passed: Outcome) -> None:
        """Data, settings, versions and code, without paths or times."""
        lineage = passed.bundle.manifest.lineage
        assert {str(split) for split in Split} == set(lineage["data"])
        assert {"seed", "max_drop", "confidence", "metric", "model", "target"} <= set(lineage["settings"])
        assert {"python", "torch", "onnx", "onnxruntime", "numpy", "edgeopt"} <= set(lineage["versions"])
        commit = subprocess.run(
            ["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=False
        ).stdout.strip()
        assert commit == (lineage["git"] or {"commit": ""})["commit"]

    def test_a_second_run_gives_the_same_models(self, passed: Outcome, tmp_path: Path, stopwatch: Ratio) -> None:
        """Same inputs, same bytes: only the times in the report may differ."""
        stopwatch(1.5)
        again = run(_request(tmp_path / "again", labels=tuple("0123456789")), _silent).bundle
        assert again is not None
        files = {entry.path: entry.sha256 for entry in passed.bundle.manifest.files if entry.role is not Role.EVIDENCE}
        assert files == {entry.path: entry.sha256 for entry in again.manifest.files if entry.role is not Role.EVIDENCE}
        assert passed.bundle.manifest.lineage["data"] == again.manifest.lineage["data"]


def test_a_variant_that_is_not_faster_is_left_out(tmp_path: Path, stopwatch: Ratio) -> None:
    """The bundle carries fp32 alone, passes, and says why."""
    stopwatch(0.8)
    outcome = run(_request(tmp_path / "out", "tiny", "table"), _silent)
    assert ("PASS", "fp32") == (outcome.report.verdict, outcome.report.chosen)
    assert outcome.report.reasons[0].startswith("int8 is not faster")
    manifest = open_bundle(tmp_path / "out").manifest
    assert ["fp32"] == [variant.name for variant in manifest.variants]
    assert "int8.onnx" not in {entry.path for entry in manifest.files}


@pytest.mark.parametrize(
    ("model", "options", "verdict"),
    [("spread_out", {"metric": "agreement"}, "FAIL"), ("tiny", {"max_drop": 0.01}, "INCONCLUSIVE")],
)
def test_without_a_pass_there_is_a_report_and_no_bundle(
    model: str, options: dict[str, Any], verdict: str, tmp_path: Path, stopwatch: Ratio
) -> None:
    """FAIL and INCONCLUSIVE leave nothing that could be rolled out, and replace an older bundle."""
    stopwatch(2.0)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "manifest.json").write_text("{}")
    outcome = run(_request(tmp_path / "out", model, "table", **options), _silent)
    assert (verdict, None, None) == (outcome.report.verdict, outcome.report.chosen, outcome.bundle)
    assert {"report.json", "report.html"} == {path.name for path in (tmp_path / "out").iterdir()}


@pytest.mark.parametrize(
    ("model", "data", "options"),
    [
        ("two_inputs", "two_inputs_data", {}),
        ("recurrent", "sequences", {"metric": "agreement"}),
        ("attention", "sequences", {"metric": "agreement"}),
        ("regressor", "regression_data", {"metric": "edgeopt_zoo:closeness"}),
    ],
)
def test_other_kinds_of_models(
    model: str, data: str, options: dict[str, Any], tmp_path: Path, stopwatch: Ratio
) -> None:
    """Several inputs and outputs, GRU, transformer and regression all go the whole way."""
    stopwatch(0.5)
    outcome = run(_request(tmp_path / "out", model, data, **options), _silent)
    assert "PASS" == outcome.report.verdict
    assert outcome.bundle == open_bundle(tmp_path / "out")


def test_a_target_unlike_this_machine_is_judged_by_accuracy_alone(tmp_path: Path) -> None:
    """A Raspberry Pi gets signed activations, no latency is claimed, and the report says so."""
    target = read_target(DEVICES / ("raspberry-pi-4.toml" if host_target().arch == "x86_64" else "x86-vnni.toml"))
    outcome = run(_request(tmp_path / "out", target=target), _silent)
    assert ("PASS", "int8") == (outcome.report.verdict, outcome.report.chosen)
    assert outcome.report.variants[0].latency_ms.ratio is None
    assert any("its latency cannot be measured here" in reason for reason in outcome.report.reasons)
    (first, _) = open_bundle(tmp_path / "out").manifest.variants
    assert ((target.arch,), (target.name,)) == (first.arch, first.certified_for)


class TestData:
    """What is refused before any work is done."""

    def test_three_sources_may_not_overlap(self, tmp_path: Path) -> None:
        """The message counts what each pair shares; nothing is written."""
        same = DataSources(
            calibration="edgeopt_zoo:table", selection="edgeopt_zoo:table", certification="edgeopt_zoo:table"
        )
        with pytest.raises(DataError, match="calibration and certification share 900"):
            run(dataclasses.replace(_request(tmp_path / "out", "tiny"), data=same), _silent)
        assert not (tmp_path / "out").exists()

    @pytest.mark.parametrize(
        ("model", "data", "message"),
        [
            ("tiny", "unlabelled", "needs labels, and .* --metric agreement"),
            ("tiny", "wrong_labels", "expected a class index from 0 to 3 as label, got 9"),
            ("misfit", "table", "cannot be multiplied"),
        ],
    )
    def test_data_that_does_not_fit(self, model: str, data: str, message: str, tmp_path: Path) -> None:
        """Labels that are missing or impossible, and a shape that does not fit, stop the run."""
        with pytest.raises((DataError, UsageError), match=message):
            run(_request(tmp_path / "out", model, data), _silent)
        assert not (tmp_path / "out").exists()

    @pytest.mark.parametrize(
        "sources", [{}, {"single": "a:b", "selection": "c:d"}, {"calibration": "a:b", "selection": "c:d"}]
    )
    def test_sources_are_one_or_three(self, sources: dict[str, str]) -> None:
        """Two of three, or four, is a question to the user."""
        with pytest.raises(UsageError, match="give"):
            DataSources(**sources)


class TestOutput:
    """The directory that is written, or left alone."""

    def test_a_directory_with_other_files_is_not_replaced(self, tmp_path: Path) -> None:
        """-o with a home directory by mistake costs nothing."""
        (tmp_path / "thesis.txt").write_text("years of work")
        with pytest.raises(UsageError, match="holds other files"):
            run(_request(tmp_path), _silent)
        with pytest.raises(UsageError, match="is a file"):
            run(_request(tmp_path / "thesis.txt"), _silent)
        assert "years of work" == (tmp_path / "thesis.txt").read_text()

    def test_a_full_disk_leaves_what_was_there(self, tmp_path: Path, stopwatch: Ratio) -> None:
        """One clear message, and the older result untouched; a real file system of 16 KiB."""
        disk = tmp_path / "disk"
        disk.mkdir()
        mounted = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=16k", "tmpfs", str(disk)], capture_output=True, check=False
        )
        if mounted.returncode != 0:
            pytest.skip("mounting a small file system needs root")
        try:
            (disk / "out").mkdir()
            (disk / "out" / "report.json").write_text("old")
            stopwatch(0.5)
            with pytest.raises(StorageError, match="the disk is full: free some space"):
                run(_request(disk / "out"), _silent)
            assert ["out"] == [path.name for path in disk.iterdir()]
            assert "old" == (disk / "out" / "report.json").read_text()
        finally:
            subprocess.run(["umount", str(disk)], check=True)
