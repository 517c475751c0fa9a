"""The papers handed over with a bundle: what repeats is in them, what was measured stands beside them."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from edgeopt.handover import EVIDENCE, FEATURES, INFERENCE_API, MODEL_CARD, evidence_files, performance_report
from edgeopt.packing import check_output, with_evidence, write_run
from edgeopt.results import RunResult
from edgeopt_contract.bundle import BundleContents, open_bundle
from edgeopt_contract.manifest import Role
from edgeopt_contract.values import digest_of
from tests.optimizer.runs import a_run, speed, target, tiny_contents


@pytest.fixture
def contents(tmp_path: Path) -> BundleContents:
    """A bundle with int8 and fp32."""
    return tiny_contents(tmp_path / "tiny")


def _measured_again(run: RunResult) -> RunResult:
    """Return what another run of the same thing finds: everything timed differs, and so does how the search went."""
    (one,) = run.targets
    again = replace(
        one,
        reasons=("1.75 times as fast, at least 1.62",),
        variants=tuple(replace(variant, speed=speed(1.75)) for variant in one.variants),
        trials=one.trials[:2],
        sensitivity=one.sensitivity[:1],
    )
    return replace(
        run,
        targets=(again,),
        baseline=replace(run.baseline, latency_ms=5.0),
        machine="another, 64 cores",
        created="2027-01-01T00:00:00+00:00",
        seconds=99.0,
    )


def test_two_runs_with_other_times_have_one_digest(tmp_path: Path, contents: BundleContents) -> None:
    """The bundle's digest is the same; what stands beside it is not."""
    bundles, performances = [], []
    for name, run in (("one", a_run()), ("two", _measured_again(a_run()))):
        performances.append(performance_report(run))
        bundle = write_run(
            tmp_path / name,
            with_evidence(contents, evidence_files(run, contents)),
            {"performance.md": performances[-1], "report.json": name.encode()},
        )
        bundles.append(bundle)
    first, second = bundles
    assert first is not None
    assert second is not None
    assert first.digest == second.digest
    assert performances[0] != performances[1]
    assert performances[1] == (tmp_path / "two" / "performance.md").read_bytes()
    assert {EVIDENCE, FEATURES, INFERENCE_API, MODEL_CARD} == {
        entry.path for entry in first.manifest.files if entry.role is Role.EVIDENCE
    }
    assert first == open_bundle(tmp_path / "one")


def test_another_finding_is_another_bundle(contents: BundleContents) -> None:
    """Evidence that did not change with what was found would be worthless."""
    one = target()
    other = replace(one, stages=(replace(one.stages[0], score=0.91), *one.stages[1:]))
    before, after = (evidence_files(a_run(targets=(found,)), contents) for found in (one, other))
    assert {EVIDENCE, MODEL_CARD} == {name for name in before if before[name] != after[name]}


def test_evidence_names_the_files_it_speaks_of(contents: BundleContents) -> None:
    """Verdicts, criteria, recipes and splits are there; each variant's digest is that of its bytes."""
    evidence = json.loads(evidence_files(a_run(), contents)[EVIDENCE])
    assert {name: digest_of(contents.files[name][1]) for name in ("int8.onnx", "fp32.onnx")} == evidence["variants"]
    (one,) = evidence["targets"]
    assert ("raspberry-pi-4", "PASS", "int8") == (one["target"], one["verdict"], one["chosen"])
    assert ["drop", "class_drop", "agreement"] == [criterion["name"] for criterion in one["criteria"]]
    assert ["Conv_3"] == one["variants"][0]["recipe"]["float_nodes"]
    assert {"calibration", "selection", "certification"} == set(evidence["splits"])
    measured = r'_ms"|"ratio|"seconds|"rounds|"created|"machine|"trials|"sensitivity|times as fast'
    assert not re.search(measured, json.dumps(evidence))


def test_the_model_card_says_what_was_judged_and_what_is_not_known(contents: BundleContents) -> None:
    """Verdict, tensors, classes, criteria with limits, splits; no time; what users name is text."""
    run = a_run(name="<tiny>|x")
    card = evidence_files(run, contents)[MODEL_CARD].decode()
    assert card.startswith("# &lt;tiny>\\|x 1\n")
    for shown in (
        "Verdict: **PASS**",
        "accuracy may drop by 1 point at 95 % confidence",
        "| input | x | float32 | 4 |",
        "Classes in order: a, b, c.",
        "| worst class (7) | 1.00 points | 1.30 points | at most 5.00 points | 1079 | PASS |",
        "| answers as fp32 | 98.50 % | 98.80 % | at least 95.00 % | 1079 | PASS |",
        "a" * 64,
        "What is not known",
    ):
        assert shown in card
    assert not re.search(r"\d ms|times as fast", card)


def test_features_are_inputs_and_what_is_watched(contents: BundleContents) -> None:
    """Names, dtypes and shapes; steps of preprocessing; each watched number with its range or categories."""
    features = json.loads(evidence_files(a_run(), contents)[FEATURES])
    assert [{"name": "x", "dtype": "float32", "shape": [4]}] == features["inputs"]
    assert ["scale"] == features["preprocessing"]
    assert 500 == features["profile_rows"]
    watched = {one["name"]: one for one in features["watched"]}
    assert ("input", "column", 0) == tuple(watched["x[0]"][key] for key in ("of", "summary", "column"))
    assert watched["x[0]"]["lowest"] < watched["x[0]"]["mean"] < watched["x[0]"]["highest"]
    assert 3 == watched["class"]["categories"]


@pytest.mark.parametrize("ratio", [1.5, None])
def test_the_performance_report_has_times_and_their_machine(ratio: float | None) -> None:
    """Ratio with interval, what was tried, the machine; a variant that was not timed says so."""
    report = performance_report(a_run(targets=(target(ratio=ratio),))).decode()
    expected = "| int8 | 4.000 ms | 2.667 ms | 1.50 (1.38 to 1.62) | 60 | 1.0 kB |"
    untimed = "| int8 | not measured | not measured | not measured |  | 1.0 kB |"
    for shown in (expected if ratio else untimed, "x86_64 with avx2, 2 cores", "it took too long", "2026-01-02"):
        assert shown in report


def test_without_a_pass_only_what_stands_beside_is_written(tmp_path: Path) -> None:
    """No manifest; and a later run may replace the directory."""
    assert write_run(tmp_path / "out", None, {"report.json": b"{}"}) is None
    assert ["report.json"] == [path.name for path in (tmp_path / "out").iterdir()]
    check_output(tmp_path / "out")


@pytest.mark.parametrize("name", ["int8.onnx", "manifest.json", "../report.json"])
def test_nothing_beside_the_bundle_takes_the_place_of_a_part(
    name: str, tmp_path: Path, contents: BundleContents
) -> None:
    """A programming error is found before anything is written."""
    with pytest.raises(ValueError, match=r"cannot stand beside it|plain file name"):
        write_run(tmp_path / "out", contents, {name: b""})
    assert not (tmp_path / "out").exists()


class TestInferenceApi:
    """The OpenAPI document; that the agent answers like it is tested in test_inference_api.py."""

    @pytest.fixture
    def document(self, contents: BundleContents) -> dict[str, Any]:
        """The description of the tiny model."""
        return json.loads(evidence_files(a_run(), contents)[INFERENCE_API])  # type: ignore[no-any-return]

    def test_paths_are_those_of_this_model(self, document: dict[str, Any]) -> None:
        """OpenAPI 3.1, each operation once, its own name in the paths."""
        assert "3.1.0" == document["openapi"]
        assert "/v2/models/tiny/infer" in document["paths"]
        operations = [call["operationId"] for path in document["paths"].values() for call in path.values()]
        assert len(set(operations)) == len(operations)

    def test_every_reference_leads_somewhere(self, document: dict[str, Any]) -> None:
        """Each schema that is named exists, and each that exists is named."""
        named = set(re.findall(r"#/components/schemas/(\w+)", json.dumps(document)))
        assert named == set(document["components"]["schemas"])

    def test_a_large_model_has_no_example(self, contents: BundleContents) -> None:
        """A picture's worth of zeros would hide the rest."""
        (spec,) = contents.inputs
        large = replace(contents, inputs=(replace(spec, shape=(3, 224, 224)),))
        document = json.loads(evidence_files(a_run(), large)[INFERENCE_API])
        content = document["paths"]["/v2/models/tiny/infer"]["post"]["requestBody"]["content"]["application/json"]
        assert ["schema"] == list(content)
