"""On what a variant is certified, in words."""

from __future__ import annotations

import dataclasses
import sys
from importlib import metadata
from pathlib import Path

import msgspec
import pytest

from edgeopt.emulation.execution import ExecutionKind, execution_for
from edgeopt.emulation.root import RECORD, VARIABLE, RootRecord, find_root, roots_folder
from edgeopt.targets import Target, read_target
from edgeopt_contract.errors import UsageError

DEVICES = Path(__file__).parents[3] / "devices"
AVX2, ATOM, VNNI, PI = (
    read_target(DEVICES / f"{name}.toml") for name in ("x86-avx2", "x86-atom", "x86-vnni", "raspberry-pi-4")
)


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A PATH with both emulators, which nothing starts here."""
    for name in ("qemu-x86_64-static", "qemu-aarch64"):
        program = tmp_path / "bin" / name
        program.parent.mkdir(exist_ok=True)
        program.touch(mode=0o755)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    return tmp_path / "bin"


def make_root(folder: Path, onnxruntime: str) -> Path:
    """What counts of a root when nothing is started: its record, and the CPUs it knows."""
    place = folder / "aarch64"
    (place / "cpus" / "cortex-a72").mkdir(parents=True)
    record = RootRecord(arch="aarch64", python="3.11", packages={"onnxruntime": onnxruntime})
    (place / RECORD).write_bytes(msgspec.json.encode(record))
    return place


def test_a_like_cpu_needs_no_emulator(programs: Path) -> None:
    """A Haswell computes like any other machine with AVX2 and no VNNI; a server with AMX like one with VNNI."""
    haswell = dataclasses.replace(AVX2, name="this", cores=2)
    execution = execution_for(AVX2, haswell)
    assert (ExecutionKind.NATIVE, "this CPU (this)", None) == dataclasses.astuple(execution)
    server = dataclasses.replace(VNNI, features=(*VNNI.features, "amx_int8"))
    assert ExecutionKind.NATIVE is execution_for(VNNI, server).kind


@pytest.mark.parametrize(("target", "cpu"), [(AVX2, "Haswell"), (ATOM, "Snowridge")])
def test_another_cpu_of_this_architecture_runs_this_python(programs: Path, target: Target, cpu: str) -> None:
    """No other system is needed."""
    execution = execution_for(target, VNNI)
    assert ExecutionKind.EMULATED is execution.kind
    assert f"emulated (qemu-x86_64 -cpu {cpu})" == execution.title
    assert execution.emulator is not None
    assert (str(programs / "qemu-x86_64-static"), "-cpu", cpu, sys.executable) == execution.emulator.command


def test_another_architecture_runs_the_roots_python(programs: Path, tmp_path: Path) -> None:
    """With what that CPU's kernel says of it laid over the system."""
    place = make_root(tmp_path, metadata.version("onnxruntime"))
    execution = execution_for(PI, AVX2, tmp_path)
    assert "emulated (qemu-aarch64 -cpu cortex-a72)" == execution.title
    prefix = place / "cpus" / "cortex-a72"
    assert execution.emulator is not None
    expected = (str(programs / "qemu-aarch64"), "-cpu", "cortex-a72", "-L", str(prefix), f"{prefix}/usr/bin/python3.11")
    assert expected == execution.emulator.command


def test_another_version_of_the_runtime_is_named(programs: Path, tmp_path: Path) -> None:
    """A certificate of another version is worth less, and says so."""
    make_root(tmp_path, "1.20.0")
    assert "emulated (qemu-aarch64 -cpu cortex-a72, onnxruntime 1.20.0)" == execution_for(PI, AVX2, tmp_path).title


def test_what_cannot_be_emulated_is_simulated_and_says_why(programs: Path, tmp_path: Path) -> None:
    """No emulator for the CPU, none named, no system, an unknown CPU, no program."""
    a53 = read_target(DEVICES / "raspberry-pi-3.toml")
    empty = tmp_path / "empty"
    reasons = {
        "simulated integers: QEMU translates neither AVX-512 nor VNNI": execution_for(VNNI, AVX2),
        "simulated integers: the profile board names no emulator": execution_for(
            dataclasses.replace(PI, name="board", emulator=None), AVX2
        ),
        f"simulated integers: there is no aarch64 system in {empty} (make one: edgeopt emulator build)": execution_for(
            PI, AVX2, empty
        ),
    }
    place = make_root(tmp_path, "1.20.0")
    unknown = f"simulated integers: {place} knows no CPU cortex-a53, only cortex-a72"
    reasons[unknown] = execution_for(a53, AVX2, tmp_path)
    for reason, execution in reasons.items():
        assert (ExecutionKind.SIMULATED, reason, None) == dataclasses.astuple(execution)
    for program in programs.iterdir():
        program.unlink()
    assert "qemu-aarch64 is not installed (Debian: apt-get install qemu-user-static)" in execution_for(PI, AVX2).title


def test_roots_lie_where_they_are_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """An option goes before the environment, and that before the cache directory."""
    monkeypatch.delenv(VARIABLE, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert tmp_path / "edgeopt" / "emulator" == roots_folder()
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert Path.home() / ".cache" / "edgeopt" / "emulator" == roots_folder()
    monkeypatch.setenv(VARIABLE, "/roots")
    assert Path("/roots") == roots_folder()
    assert tmp_path == roots_folder(tmp_path)


def test_a_damaged_root_is_refused(tmp_path: Path) -> None:
    """Rather than taken for none."""
    make_root(tmp_path, "1.20.0")
    (tmp_path / "aarch64" / RECORD).write_text("{}")
    with pytest.raises(UsageError, match="build it again"):
        find_root("aarch64", tmp_path)
