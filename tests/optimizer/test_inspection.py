"""A bundle that is whole agrees with itself; every flipped bit and every contradiction is found."""

from __future__ import annotations

import json
import random
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from edgeopt.cli import group
from edgeopt.gate import Verdict
from edgeopt.handover import EVIDENCE, evidence_files
from edgeopt.inspection import inspect_bundle
from edgeopt.packing import with_evidence, write_run
from edgeopt_contract.bundle import Bundle, BundleContents
from edgeopt_contract.commands import run_command
from edgeopt_contract.errors import BundleError, ExitCode
from edgeopt_contract.manifest import Role
from tests.optimizer.runs import a_run, tiny_contents
from tests.tiny import tiny_bundle

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def contents(tmp_path: Path) -> BundleContents:
    """A bundle's contents with evidence."""
    bare = tiny_contents(tmp_path / "tiny")
    return with_evidence(bare, evidence_files(a_run(), bare))


@pytest.fixture
def bundle(tmp_path: Path, contents: BundleContents) -> Bundle:
    """The bundle on disk, with a report beside it."""
    written = write_run(tmp_path / "out", contents, {"report.json": b"{}"})
    assert written is not None
    return written


def _verify(*arguments: str | Path) -> int:
    line = ["verify", *map(str, arguments)]
    return run_command(lambda: group(line, prog_name="edgeopt", standalone_mode=False))


def test_what_is_in_it_is_shown(bundle: Bundle, capsys: Capture) -> None:
    """Each file with role and size, what each target gets, and what is not part of it."""
    assert ExitCode.GOOD == _verify(bundle.directory)
    shown = capsys.readouterr().out
    assert shown.startswith(f"tiny 1 is intact: 8 files, variants int8, fp32\ndigest {bundle.digest}\n")
    for words in ("evidence.json", "golden.npz", "raspberry-pi-4 gets int8", "not part of it: report.json"):
        assert words in shown


def test_json_has_the_same(bundle: Bundle, capsys: Capture) -> None:
    """For programs."""
    assert ExitCode.GOOD == _verify(bundle.directory, "--json")
    found = json.loads(capsys.readouterr().out)
    assert bundle.digest == found["digest"]
    assert {entry.path: entry.sha256 for entry in bundle.manifest.files} == {
        one["path"]: one["sha256"] for one in found["files"]
    }
    assert {"raspberry-pi-4": "int8"} == found["evidence"]
    assert ["report.json"] == found["beside"]


def test_any_flipped_bit_fails(bundle: Bundle, capsys: Capture) -> None:
    """A bit anywhere in any listed file, drawn at random; what stands beside may change."""
    draw = random.Random(3)
    for entry in bundle.manifest.files:
        path = bundle.path_of(entry)
        good = path.read_bytes()
        place, bit = draw.randrange(len(good)), draw.randrange(8)
        path.write_bytes(good[:place] + bytes([good[place] ^ 1 << bit]) + good[place + 1 :])
        assert ExitCode.BAD_INPUT == _verify(bundle.directory), entry.path
        assert f"{entry.path}: expected SHA-256" in capsys.readouterr().err
        path.write_bytes(good)
    (bundle.directory / "report.json").write_text("changed")
    assert ExitCode.GOOD == _verify(bundle.directory)


def test_any_flipped_bit_in_the_manifest_fails(bundle: Bundle) -> None:
    """It pins all files, and nothing in it pins itself: its digest stands beside it."""
    draw = random.Random(5)
    path = bundle.directory / "manifest.json"
    good = path.read_bytes()
    for _ in range(60):
        place, bit = draw.randrange(len(good)), draw.randrange(8)
        path.write_bytes(good[:place] + bytes([good[place] ^ 1 << bit]) + good[place + 1 :])
        with pytest.raises(BundleError):
            inspect_bundle(bundle.directory)


def test_the_checksum_is_what_sha256sum_reads(bundle: Bundle) -> None:
    """Whoever has no edgeopt can check the manifest; a directory without the file, as on a device, is intact."""
    subprocess.run(["sha256sum", "-c", "--status", "manifest.sha256"], cwd=bundle.directory, check=True)
    (bundle.directory / "manifest.sha256").unlink()
    assert bundle.digest == inspect_bundle(bundle.directory).bundle.digest


def test_a_bundle_of_before_is_intact_without_evidence(tmp_path: Path, capsys: Capture) -> None:
    """Its report was part of it; there is nothing more to check."""
    assert ExitCode.GOOD == _verify(tiny_bundle(tmp_path / "old").directory)
    assert "no evidence to check" in capsys.readouterr().out


def _rewritten(change: Callable[[dict[str, Any]], object]) -> Callable[[BundleContents], BundleContents]:
    """Return what changes the evidence and leaves the manifest true to it."""

    def apply(contents: BundleContents) -> BundleContents:
        evidence = json.loads(contents.files[EVIDENCE][1])
        change(evidence)
        return replace(contents, files={**contents.files, EVIDENCE: (Role.EVIDENCE, json.dumps(evidence).encode())})

    return apply


def _other_model(contents: BundleContents) -> BundleContents:
    return replace(contents, files={**contents.files, "int8.onnx": (Role.VARIANT, b"another")})


def _other_data(contents: BundleContents) -> BundleContents:
    return replace(contents, lineage={"data": {"calibration": "d" * 64}})


def _more_targets(contents: BundleContents) -> BundleContents:
    first, *others = contents.variants
    return replace(contents, variants=(replace(first, certified_for=("raspberry-pi-4", "jetson")), *others))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_other_model, "int8.onnx: evidence.json judged .* what was certified is not what is shipped"),
        (_other_data, "different data for the split calibration"),
        (_more_targets, "int8 is said to be certified for jetson, of which evidence.json says nothing"),
        (lambda one: replace(one, version="2"), "evidence.json is that of tiny 1, the bundle is tiny 2"),
        (_rewritten(lambda it: it.update(verdict=Verdict.FAIL)), "says FAIL: expected PASS"),
        (
            _rewritten(lambda it: it["targets"][0]["variants"][0].update(verdict="INCONCLUSIVE")),
            "int8 is said to be certified for raspberry-pi-4, but evidence.json says INCONCLUSIVE",
        ),
        (_rewritten(lambda it: it["targets"][0].pop("variants")), "lacks something"),
        (_rewritten(lambda it: it.update(targets=7)), "lacks something"),
        (_rewritten(lambda it: it.update(schema=9)), "has the schema 9, this edgeopt reads 1"),
        (
            lambda one: replace(one, files={**one.files, EVIDENCE: (Role.EVIDENCE, b"[1")}),
            "is not valid JSON",
        ),
    ],
)
def test_a_bundle_that_contradicts_itself_is_refused(
    change: Callable[[BundleContents], BundleContents], message: str, tmp_path: Path, contents: BundleContents
) -> None:
    """Each byte is as the manifest says, and yet what is promised is not what was proved."""
    write_run(tmp_path / "out", change(contents), {})
    with pytest.raises(BundleError, match=message):
        inspect_bundle(tmp_path / "out")
