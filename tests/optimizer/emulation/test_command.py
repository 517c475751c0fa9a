"""``edgeopt emulator``: what it says, and that only ``build`` fetches anything."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from edgeopt.cli.emulator import emulator
from edgeopt.emulation import building
from edgeopt.emulation.building import Request
from edgeopt.emulation.root import Root, RootRecord

DEVICES = Path(__file__).parents[3] / "devices"


def test_show_says_on_what_each_profile_is_certified(tmp_path: Path) -> None:
    """One line for each, with the reason where it is only simulated."""
    profiles = [str(DEVICES / f"{name}.toml") for name in ("raspberry-pi-4", "x86-vnni")]
    result = CliRunner().invoke(emulator, ["show", *profiles, "--emulator", str(tmp_path)])
    assert 0 == result.exit_code
    pi, vnni = result.stdout.splitlines()
    assert pi.startswith("raspberry-pi-4: ")
    assert "edgeopt emulator build" in pi or "qemu-user-static" in pi or "this CPU" in pi
    assert vnni.startswith(("x86-vnni: simulated integers: QEMU", "x86-vnni: this CPU"))


def test_build_says_what_is_in_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The directory that was given, one more wheel, and the versions of all."""
    requests: list[Request] = []

    def build(request: Request, on_step) -> Root:  # noqa: ANN001
        requests.append(request)
        on_step("fetching")
        record = RootRecord(arch="aarch64", python="3.11", packages={"onnxruntime": "1.2", "numpy": "3.4"})
        return Root(request.folder / "aarch64", record)

    monkeypatch.setattr(building, "build_root", build)
    result = CliRunner().invoke(emulator, ["build", str(tmp_path), "--wheel", "msgspec"])
    assert 0 == result.exit_code, result.output
    assert [Request(arch="aarch64", folder=tmp_path, wheels=("msgspec",))] == requests
    assert f"{tmp_path}/aarch64: aarch64, Python 3.11, numpy 3.4, onnxruntime 1.2\n" == result.stdout
    assert "fetching\n" == result.stderr
