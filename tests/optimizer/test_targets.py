"""Target profiles, and this machine as one."""

from __future__ import annotations

import dataclasses
import platform
from pathlib import Path

import pytest

from edgeopt.targets import Target, host_target, read_target
from edgeopt_contract.errors import UsageError
from edgeopt_contract.isa import normalize_arch

DEVICES = Path(__file__).parents[2] / "devices"


@pytest.mark.parametrize("path", sorted(DEVICES.glob("*.toml")), ids=lambda path: path.stem)
def test_every_profile_of_the_project_reads(path: Path) -> None:
    """Each names itself after its file, and what it can run."""
    target = read_target(path)
    assert path.stem == target.name
    assert "onnxruntime" in target.runtimes
    assert target.cores > 0


def test_the_profiles_cover_the_kinds_of_cpu() -> None:
    """ARM with and without dot product, x86 with and without VNNI."""
    kinds = {(target.arch, target.has_vnni) for target in map(read_target, DEVICES.glob("*.toml"))}
    assert {("aarch64", False), ("x86_64", False), ("x86_64", True)} == kinds


def test_this_machine() -> None:
    """The host is a target like any other."""
    host = host_target()
    assert normalize_arch(platform.machine()) == host.arch
    assert host.name.startswith(host.arch)
    assert host.memory_mib > 0
    assert "onnxruntime" in host.runtimes
    assert host.times_like(host)


def test_every_profile_names_its_emulator_or_says_why_there_is_none() -> None:
    """So a report can always say on what a variant was certified; the names are QEMU's."""
    for target in map(read_target, DEVICES.glob("*.toml")):
        assert (target.emulator is None) == bool(target.no_emulator), target.name
        assert target.emulator is None or f"qemu-{target.arch}" == target.emulator.program
    pi = read_target(DEVICES / "raspberry-pi-4.toml").emulator
    assert pi is not None
    assert "qemu-aarch64 -cpu cortex-a72" == pi.title


def test_only_avx2_without_vnni_saturates() -> None:
    """An Atom's SSE kernels and ARM's multiply-adds are exact, and so is VNNI."""
    saturating = {target.name for target in map(read_target, DEVICES.glob("*.toml")) if target.saturates}
    assert {"x86-avx2"} == saturating


def test_equal_integers_are_less_than_equal_times() -> None:
    """AVX-512 and AMX change how fast a VNNI machine is, and not what it computes."""
    vnni = read_target(DEVICES / "x86-vnni.toml")
    server = dataclasses.replace(vnni, features=(*vnni.features, "amx_int8"))
    assert vnni.computes_like(server)
    assert not vnni.times_like(server)
    assert not read_target(DEVICES / "x86-atom.toml").computes_like(read_target(DEVICES / "x86-avx2.toml"))


def test_times_carry_over_only_between_like_cpus() -> None:
    """Another instruction set, or VNNI on one side only, makes a measured time worthless."""
    avx2, vnni, pi = (read_target(DEVICES / f"{name}.toml") for name in ("x86-avx2", "x86-vnni", "raspberry-pi-4"))
    assert not avx2.times_like(vnni)
    assert not avx2.times_like(pi)
    assert not pi.times_like(read_target(DEVICES / "raspberry-pi-5.toml"))  # dot product instructions
    assert pi.times_like(dataclasses.replace(pi, name="another board", cores=2))


def _profile(*, name: str = "board", arch: str = "aarch64", features: str = "[]", runtimes: str = "{}") -> str:
    """Return the text of a profile that reads, but for what is given."""
    return f'name = "{name}"\narch = "{arch}"\nfeatures = {features}\nruntimes = {runtimes}\ncores = 1\nmemory_mib = 1'


def test_a_profile_needs_no_more_than_this(tmp_path: Path) -> None:
    """The refusals below are for what they say."""
    (tmp_path / "board.toml").write_text(_profile())
    assert "board" == read_target(tmp_path / "board.toml").name


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "cannot read the target profile"),
        ("name = ", "cannot read the target profile"),
        ('name = "x"\nspeed = 3', "unknown keys speed"),
        ('name = "x"', "missing required field"),
        ('emulator = { program = "qemu" }', "missing required field"),
        (_profile(name="../fleet"), "files are called after it"),
        (_profile(arch="arm64"), "arch: expected aarch64"),
        (_profile(features='["AVX2"]'), "features: expected some of .*, got AVX2"),
        (_profile(runtimes='{ tflite = "2.0" }'), "runtimes: expected some of onnxruntime, .*, got tflite"),
        ('name = 3\narch="a"\nfeatures=[]\ncores=1\nmemory_mib=1\nruntimes={}', "Expected `str`"),
    ],
)
def test_wrong_profiles_are_refused(tmp_path: Path, text: str | None, message: str) -> None:
    """A misspelt key is an error and not a default."""
    path = tmp_path / "board.toml"
    if text is not None:
        path.write_text(text)
    with pytest.raises(UsageError, match=message):
        read_target(path)


def test_vnni_is_a_feature() -> None:
    """Either kind of VNNI carries the common name."""
    target = Target(name="t", arch="x86_64", features=("avx_vnni", "vnni"), cores=1, memory_mib=1, runtimes={})
    assert target.has_vnni
