"""The whole way from a model to a bundle, and every way it may end."""

from __future__ import annotations

import dataclasses
import io
import json
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeopt import lineage, pipeline
from edgeopt.pipeline import Outcome, Watcher, run
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
from edgeopt_contract.manifest import Capabilities
from edgeopt_contract.profile import ReferenceProfile

Ratio = Callable[[float], None]
DEVICES = Path(__file__).parents[2] / "devices"


def _request(output: Path, model: str = "digits", data: str = "digits_data", **options: Any) -> Request:
    defaults = {"max_drop": 0.02, "name": "net", "data": DataSources(single=f"edgeopt_zoo:{data}")}
    return Request(model=f"edgeopt_zoo:{model}", output=output, **(defaults | options))


class _Listener(Watcher):
    """Remembers the steps."""

    def __init__(self) -> None:
        self.steps: list[str] = []

    def step(self, words: str) -> None:
        self.steps.append(words)


def _this_device() -> Capabilities:
    host = host_target()
    return Capabilities(
        arch=host.arch, features=host.features, runtimes={"onnxruntime": "1.20.1"}, cores=1, memory_bytes=2**30
    )


@pytest.fixture(scope="module", autouse=True)
def checkout() -> Iterator[dict[str, Any] | None]:
    """One state of the code for all runs: somebody may edit or commit while they are under way."""
    state = lineage.record(splits={}, settings={})["git"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lineage, "_git", lambda: state)
        yield state


@pytest.fixture(scope="module")
def passed(tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    """One run on the digits, shared by the tests that only look at it."""
    listener = _Listener()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pipeline, "compare", lambda pair, feeds, plan: Times(((0.003,),) * 15, ((0.002,),) * 15))
        folder = tmp_path_factory.mktemp("digits") / "out"
        outcome = pipeline.run(_request(folder, labels=tuple("0123456789")), listener)
    assert ["loading the model", "reading the data"] == listener.steps[:2]
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
        (target,) = report["targets"]
        assert (2, "PASS", "int8") == (report["schema"], report["verdict"], target["chosen"])
        assert {"metric", "size_bytes", "latency_ms"} == set(report["baseline"])
        int8 = target["variants"][0]
        wanted = "name file recipe verdict metric agreement size_bytes speed"
        assert set(wanted.split()) == set(int8)
        assert {"name", "value", "drop", "drop_upper", "confidence", "n"} <= set(int8["metric"])
        assert report["baseline"]["metric"] - int8["metric"]["value"] == pytest.approx(int8["metric"]["drop"])
        assert (3.0, 2.0) == pytest.approx((int8["speed"]["baseline_ms"], int8["speed"]["variant_ms"]))
        assert (1.5, 1.5, 1.5) == pytest.approx([int8["speed"][key] for key in ("ratio", "ratio_low", "ratio_high")])
        assert int8["size_bytes"] == (passed.bundle.directory / "int8.onnx").stat().st_size
        sizes = {name: split["size"] for name, split in report["splits"].items()}
        assert {"calibration": 359, "selection": 359} == {name: sizes[name] for name in ("calibration", "selection")}
        assert 1797 == sum(sizes.values())
        assert sizes["certification"] == int8["metric"]["n"]
        assert target["reasons"]
        assert ["torch", "onnx", "prepared"] == [stage["stage"] for stage in target["stages"][:3]]
        assert 1 == sum(trial["chosen"] for trial in target["trials"])
        assert report["seconds"] > 0

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

    def test_lineage_names_everything_that_decided(self, passed: Outcome, checkout: dict[str, Any] | None) -> None:
        """Data, settings, versions and code, without paths or times."""
        lineage = passed.bundle.manifest.lineage
        assert {str(split) for split in Split} == set(lineage["data"])
        assert {"seed", "max_drop", "confidence", "metric", "model", "targets"} <= set(lineage["settings"])
        assert {"python", "torch", "onnx", "onnxruntime", "numpy", "edgeopt"} <= set(lineage["versions"])
        assert checkout == lineage["git"]

    def test_a_second_run_gives_the_same_bundle(self, passed: Outcome, tmp_path: Path, stopwatch: Ratio) -> None:
        """Same inputs, same digest: what was measured stands beside the bundle."""
        stopwatch(1.4)
        again = run(_request(tmp_path / "again", labels=tuple("0123456789")), Watcher())
        assert again.bundle is not None
        assert passed.bundle.digest == again.bundle.digest
        assert passed.result.targets[0].variants[0].speed != again.result.targets[0].variants[0].speed


def test_a_variant_that_is_not_faster_is_left_out(tmp_path: Path, stopwatch: Ratio) -> None:
    """The bundle carries fp32 alone, passes, and says why."""
    stopwatch(0.8)
    outcome = run(_request(tmp_path / "out", "tiny", "table"), Watcher())
    (target,) = outcome.result.targets
    assert ("PASS", "fp32") == (outcome.result.verdict, target.chosen)
    assert any("accuracy" in reason for reason in target.reasons)
    manifest = open_bundle(tmp_path / "out").manifest
    assert ["fp32"] == [variant.name for variant in manifest.variants]
    assert "int8.onnx" not in {entry.path for entry in manifest.files}


@pytest.mark.parametrize(
    ("data", "options", "verdict"),
    [("exact_table", {"metric": "edgeopt_zoo:exactness"}, "FAIL"), ("table", {"max_drop": 0.0005}, "INCONCLUSIVE")],
)
def test_without_a_pass_there_is_a_report_and_no_bundle(
    data: str, options: dict[str, Any], verdict: str, tmp_path: Path, stopwatch: Ratio
) -> None:
    """FAIL and INCONCLUSIVE leave nothing that could be rolled out, and replace an older bundle."""
    stopwatch(2.0)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "manifest.json").write_text("{}")
    outcome = run(_request(tmp_path / "out", "tiny", data, **options), Watcher())
    assert (verdict, None, None) == (outcome.result.verdict, outcome.result.targets[0].chosen, outcome.bundle)
    assert {"report.json", "report.html", "performance.md"} == {path.name for path in (tmp_path / "out").iterdir()}


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
    outcome = run(_request(tmp_path / "out", model, data, **options), Watcher())
    assert "PASS" == outcome.result.verdict
    assert outcome.bundle == open_bundle(tmp_path / "out")


def test_targets_unlike_this_machine_are_judged_by_accuracy_alone(tmp_path: Path, stopwatch: Ratio) -> None:
    """A Raspberry Pi gets signed activations, no latency is claimed; two boards of the same kind share a file."""
    stopwatch(1.5)
    boards = tuple(read_target(DEVICES / f"raspberry-pi-{number}.toml") for number in (3, 4))
    boards = tuple(dataclasses.replace(board, emulator=None, no_emulator="it is not asked for") for board in boards)
    here = dataclasses.replace(host_target(), runtimes={"onnxruntime": "1.20"})
    outcome = run(_request(tmp_path / "out", targets=(*boards, here)), Watcher())
    assert ["PASS"] * 3 == [target.verdict for target in outcome.result.targets]
    pi, same, host = outcome.result.targets
    assert (None, True) == (pi.variants[0].speed, pi.variants[0].recipe.signed_activations)
    assert "simulated integers: it is not asked for" == pi.execution
    assert pi.chosen == same.chosen
    assert host.variants[0].speed is not None
    manifest = open_bundle(tmp_path / "out").manifest
    shared = next(variant for variant in manifest.variants if variant.name == pi.chosen)
    assert (("aarch64",), ("raspberry-pi-3", "raspberry-pi-4")) == (shared.arch, shared.certified_for)
    assert host.chosen == manifest.variant_for(_this_device()).name


class TestData:
    """What is refused before any work is done."""

    def test_three_sources_may_not_overlap(self, tmp_path: Path) -> None:
        """The message counts what each pair shares; nothing is written."""
        same = DataSources(
            calibration="edgeopt_zoo:table", selection="edgeopt_zoo:table", certification="edgeopt_zoo:table"
        )
        with pytest.raises(DataError, match="calibration and certification share 900"):
            run(dataclasses.replace(_request(tmp_path / "out", "tiny"), data=same), Watcher())
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
            run(_request(tmp_path / "out", model, data), Watcher())
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
            run(_request(tmp_path), Watcher())
        for output in (tmp_path / "thesis.txt", tmp_path / "thesis.txt" / "deep" / "out"):
            with pytest.raises(UsageError, match=r"thesis.txt is a file: give a directory"):
                run(_request(output), Watcher())
        assert "years of work" == (tmp_path / "thesis.txt").read_text()

    @pytest.mark.parametrize("given", ["out", "deep/out"])
    def test_where_nothing_can_be_written_is_said_before_the_work(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: str
    ) -> None:
        """Not after an hour of it; root may write everywhere, so the system's answer is taken from it here."""
        monkeypatch.setattr("edgeopt.packing.os.access", lambda path, _mode: path != tmp_path)
        with pytest.raises(UsageError, match="nothing can be written in"):
            run(_request(tmp_path / given), Watcher())

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
                run(_request(disk / "out"), Watcher())
            assert ["out"] == [path.name for path in disk.iterdir()]
            assert "old" == (disk / "out" / "report.json").read_text()
        finally:
            subprocess.run(["umount", str(disk)], check=True)
