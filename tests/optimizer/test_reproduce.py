"""A bundle is built again from its lineage: identical, or different with a reason."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from edgeopt import rebuilding
from edgeopt.cli import group
from edgeopt.handover import evidence_files
from edgeopt.machine import describe_machine, processor_name
from edgeopt.packing import with_evidence, write_run
from edgeopt.reproduce import Moved, Outcome, Rebuilt, explain_difference, machine_of, reproduce
from edgeopt_contract.bundle import Bundle, open_bundle
from edgeopt_contract.commands import run_command
from edgeopt_contract.errors import BundleError, ExitCode
from edgeopt_contract.manifest import Manifest, Role
from tests.optimizer.runs import a_run, tiny_contents

Capture = pytest.CaptureFixture[str]
MACHINES = ("x86_64 with avx2", "x86_64 with avx2")


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    """A bundle with evidence, and the report of another machine beside it."""
    bare = tiny_contents(tmp_path / "tiny")
    contents = with_evidence(bare, evidence_files(a_run(), bare))
    beside = {"report.json": b'{"machine": "another machine"}'}
    written = write_run(tmp_path / "out", contents, beside)
    assert written is not None
    return written


def _files(bundle: Bundle) -> dict[str, bytes]:
    entries = bundle.manifest.files
    return {one.path: bundle.path_of(one).read_bytes() for one in entries if one.role is not Role.EVIDENCE}


def _fake(bundle: Bundle, **changes: bytes | None) -> Callable[[Manifest], Rebuilt]:
    """Return a rebuild that gives the bundle's own files with ``changes`` (``None``: it makes no such file)."""
    files = {**_files(bundle), **{name.replace("__", "."): data for name, data in changes.items()}}
    made = {name: data for name, data in files.items() if data is not None}
    return lambda manifest: Rebuilt(made, manifest.lineage["data"])


def test_the_same_files_are_identical(bundle: Bundle) -> None:
    """Each file that can be made is compared; evidence is not made again; there is nothing to explain."""
    found = reproduce(bundle, _fake(bundle), Moved(), MACHINES)
    assert found.identical
    assert () == found.causes
    outcomes = {one.path: one.outcome for one in found.files}
    assert set(outcomes) == {entry.path for entry in bundle.manifest.files}
    assert {"int8.onnx", "fp32.onnx", "golden.npz", "profile.json"} == {
        path for path, outcome in outcomes.items() if outcome is Outcome.IDENTICAL
    }


@pytest.mark.parametrize(
    ("changes", "path", "outcome"),
    [
        ({"int8__onnx": b"other"}, "int8.onnx", Outcome.DIFFERENT),
        ({"golden__npz": None}, "golden.npz", Outcome.MISSING),
        ({"half__onnx": b"more"}, "half.onnx", Outcome.NEW),
    ],
)
def test_every_difference_is_found_and_explained(
    changes: dict[str, Any], path: str, outcome: Outcome, bundle: Bundle
) -> None:
    """Changed, missing and additional files; the rest stays identical."""
    found = reproduce(bundle, _fake(bundle, **changes), Moved(), MACHINES)
    assert not found.identical
    assert outcome == {one.path: one.outcome for one in found.files}[path]
    assert found.causes


def test_what_moved_is_looked_for_elsewhere(bundle: Bundle) -> None:
    """The rebuild gets the lineage with the new places, and everything else as it was."""
    seen: list[Manifest] = []

    def rebuild(manifest: Manifest) -> Rebuilt:
        seen.append(manifest)
        return Rebuilt(_files(bundle), {})

    reproduce(bundle, rebuild, Moved(model="there:model", data={"data": "there:data"}), MACHINES)
    settings = bundle.manifest.lineage["settings"]
    assert {**settings, "model": "there:model", "data": {"data": "there:data"}} == seen[0].lineage["settings"]
    with pytest.raises(BundleError, match="made without calibration: it was made from data"):
        reproduce(bundle, rebuild, Moved(data={"calibration": "there"}), MACHINES)


def test_a_bundle_without_lineage_cannot_be_built_again(bundle: Bundle) -> None:
    """Said before any work."""
    bare = replace(bundle, manifest=replace(bundle.manifest, lineage={}))
    with pytest.raises(BundleError, match="names no model and data"):
        reproduce(bare, lambda manifest: pytest.fail("built"), Moved(), MACHINES)


THEN = {
    "git": {"commit": "a" * 40, "dirty": False},
    "settings": {"model": "net:model"},
    "versions": {"python": "3.11.7", "numpy": "2.0"},
    "data": {"calibration": "c" * 64},
    "data_versions": {"data": {"tool": "dvc", "version": "11.dir"}},
}


class TestCauses:
    """What is another now than then."""

    def _causes(self, machines: tuple[str | None, str] = MACHINES, **now: Any) -> list[str]:
        return list(explain_difference(THEN, THEN | now, machines))

    @pytest.mark.parametrize(
        ("now", "cause"),
        [
            ({"git": {"commit": "b" * 40, "dirty": False}}, "other code: the commit was aaaaaaaaaaaa, it is bbbbbbbb"),
            ({"git": {"commit": "a" * 40, "dirty": True, "changes": "1"}}, "there are uncommitted changes now"),
            ({"git": None}, "made at the commit aaaaaaaaaaaa, this is none"),
            ({"versions": {"python": "3.12.0", "numpy": "2.0"}}, "other packages: python 3.11.7 then, 3.12.0 now"),
            ({"versions": {"python": "3.11.7"}}, "numpy 2.0 then, absent now"),
            ({"data": {"calibration": "d" * 64}}, "the split calibration has the root dddddddddddd, it was cccccccc"),
            ({"settings": {"model": "net:other"}}, "given as net:model then, as net:other now"),
            ({"data_versions": {}}, "other version of data: 11.dir then, none now"),
        ],
    )
    def test_each_is_named_alone(self, now: dict[str, Any], cause: str) -> None:
        """One difference, one sentence."""
        (found,) = self._causes(**now)
        assert cause in found

    def test_dirty_then_and_the_same_now(self) -> None:
        """The same uncommitted changes are the same code; others are told, and so are those that are gone."""
        dirty, other = ({"commit": "a" * 40, "dirty": True, "changes": digit} for digit in "12")
        causes = [
            next(explain_difference({"git": dirty}, {"git": now}, MACHINES)) for now in (dirty, other, THEN["git"])
        ]
        assert "something in the build does not repeat" in causes[0]
        assert "there are others now" in causes[1]
        assert "made with uncommitted changes, which no commit has" in causes[2]

    def test_another_cpu(self) -> None:
        """Named when known; when it is not, that is said."""
        assert (
            "other CPU: x86_64 with vnni then, x86_64 with avx2 now"
            in self._causes(("x86_64 with vnni", MACHINES[1]))[0]
        )
        assert "CPU that made the bundle is not recorded" in self._causes((None, MACHINES[1]))[0]

    def test_many_packages_are_counted(self) -> None:
        """A whole other environment stays one sentence."""
        (found,) = self._causes(versions={f"p{number}": "1" for number in range(20)})
        assert "and 14 more" in found


class TestMachine:
    """The line that names the machine."""

    def test_it_is_read_from_the_report_beside(self, bundle: Bundle, tmp_path: Path) -> None:
        """Without a report, or with one that says nothing, it is not known."""
        assert "another machine" == machine_of(bundle.directory)
        (bundle.directory / "report.json").write_text("[]")
        assert machine_of(bundle.directory) is None
        assert machine_of(tmp_path / "nowhere") is None

    def test_names_of_processors(self) -> None:
        """x86 by its model name, a board by its model, another by nothing."""
        assert "AMD EPYC" == processor_name("flags\t: avx2\nmodel name\t: AMD  EPYC\nmodel name\t: AMD EPYC\n")
        assert "Raspberry Pi 4 Model B" == processor_name("processor : 0\nModel\t\t: Raspberry Pi 4 Model B\n")
        assert processor_name("processor : 0\n") is None
        assert "core" in describe_machine()


class TestCommand:
    """edgeopt reproduce."""

    def _reproduce(self, *arguments: str | Path) -> int:
        line = ["reproduce", *map(str, arguments)]
        return run_command(lambda: group(line, prog_name="edgeopt", standalone_mode=False))

    def test_identical_and_not(self, bundle: Bundle, monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
        """0 and 1; each file has its line, a difference its cause."""
        monkeypatch.setattr(rebuilding, "rebuild", lambda manifest, _directory: _fake(bundle)(manifest))
        assert ExitCode.GOOD == self._reproduce(bundle.directory)
        assert "reproduced: 4 files are the same to the last bit" in capsys.readouterr().out
        monkeypatch.setattr(
            rebuilding, "rebuild", lambda manifest, _directory: _fake(bundle, int8__onnx=b"other")(manifest)
        )
        assert ExitCode.UNEXPECTED == self._reproduce(bundle.directory, "--data", "there:data")
        shown = capsys.readouterr().out
        assert "! int8.onnx" in shown
        assert "not reproduced: 1 of 4 files differ" in shown
        assert "other CPU: another machine then" in shown

    def test_json(self, bundle: Bundle, monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
        """For programs."""
        monkeypatch.setattr(
            rebuilding, "rebuild", lambda manifest, _directory: _fake(bundle, profile__json=None)(manifest)
        )
        assert ExitCode.UNEXPECTED == self._reproduce(bundle.directory, "--json")
        found = json.loads(capsys.readouterr().out)
        assert (False, bundle.digest) == (found["identical"], found["digest"])
        assert {"path": "profile.json", "outcome": "missing"} in found["files"]

    def test_a_real_bundle_is_reproduced(
        self, tmp_path: Path, stopwatch: Callable[[float], None], capsys: Capture
    ) -> None:
        """Made by the pipeline and made again from its manifest; then one weight is another."""
        stopwatch(0.5)
        line = [
            "quantize",
            "edgeopt_zoo:tiny",
            "--data",
            "edgeopt_zoo:table",
            "--max-drop",
            "1%",
            "-o",
            tmp_path / "out",
        ]
        assert ExitCode.GOOD == run_command(
            lambda: group([str(item) for item in line], prog_name="edgeopt", standalone_mode=False)
        )
        capsys.readouterr()
        assert ExitCode.GOOD == self._reproduce(tmp_path / "out"), capsys.readouterr().out
        assert open_bundle(tmp_path / "out").manifest.lineage["environment"]
        assert ExitCode.UNEXPECTED == self._reproduce(tmp_path / "out", "--model", "edgeopt_zoo:spread_out")
        assert "! fp32.onnx" in capsys.readouterr().out

    @pytest.mark.parametrize("kind", ["preprocess", "targets", "optimize"])
    def test_whatever_made_the_bundle(
        self, kind: str, tmp_path: Path, stopwatch: Callable[[float], None], capsys: Capture
    ) -> None:
        """Steps that are folded in, devices of three kinds in one bundle, a search: each is made again."""
        stopwatch(1.5)
        steps = tmp_path / "steps.toml"
        steps.write_text('[[input]]\nstep = "normalize"\nmean = [0.1]\nstd = [0.9]\n')
        options: dict[str, list[str]] = {
            "preprocess": ["quantize", "--preprocess", str(steps)],
            "targets": ["quantize", *_boards(tmp_path)],
            "optimize": ["optimize", "--budget", "10m"],
        }
        command, *more = options[kind]
        line = [command, "edgeopt_zoo:digits", "--data", "edgeopt_zoo:digits_data", "--max-drop", "3%"]
        line += ["--no-tracking", *more, "-o", str(tmp_path / "out")]
        assert ExitCode.GOOD == run_command(lambda: group(line, prog_name="edgeopt", standalone_mode=False))
        manifest = open_bundle(tmp_path / "out").manifest
        assert {"preprocess": 2, "targets": 3, "optimize": 2}[kind] <= len(manifest.variants)
        capsys.readouterr()
        assert ExitCode.GOOD == self._reproduce(tmp_path / "out"), capsys.readouterr().out


def _boards(folder: Path) -> list[str]:
    """Return options for three kinds of devices that are not emulated."""
    kinds = {
        "arm": 'arch = "aarch64"\nfeatures = ["neon"]',
        "plain": 'arch = "x86_64"\nfeatures = ["avx2"]',
        "vnni": 'arch = "x86_64"\nfeatures = ["avx2", "vnni"]',
    }
    options = []
    for name, cpu in kinds.items():
        path = folder / f"{name}.toml"
        rest = 'cores = 4\nmemory_mib = 1024\nruntimes = { onnxruntime = "1.20" }\n'
        path.write_text(f'name = "{name}"\n{cpu}\n{rest}')
        options += ["--target", str(path)]
    return options
