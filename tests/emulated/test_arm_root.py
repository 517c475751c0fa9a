from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import msgspec
import pytest

from devices.emulator import arm_root as module
from devices.emulator.arm_root import CHECKOUT, agent_requirements, arm_root, root_key
from edgeopt.emulation.building import Request
from edgeopt.emulation.root import RECORD, Root, RootRecord
from edgeopt_contract.errors import UnreachableError

Build = Callable[[Request, Callable[[str], None]], Root]
_PYPROJECT = """
[project]
dependencies = ["click>=8", "no-such-package>=2"]
[project.optional-dependencies]
agent = ["paho-mqtt>=2.1,<3", "msgspec>=9999"]
fleet = ["fastapi"]
"""
# A program that makes a system as the real builder does, slowly, and can be killed meanwhile.
_BUILDER = """
import sys, time
from pathlib import Path
from devices.emulator import arm_root as module
def build(request, on_step):
    (request.folder / ".building-x").mkdir()
    print("building", flush=True)
    time.sleep(600)
module.build_root = build
with module.arm_root(print, Path(sys.argv[1])):
    pass
"""


def built(request: Request) -> Root:
    """Put a system in place that has nothing in it."""
    record = RootRecord(arch=request.arch, python="3.11", packages={})
    place = request.folder / request.arch
    (place / "root").mkdir(parents=True)
    (place / RECORD).write_bytes(msgspec.json.encode(record))
    return Root(place, record)


@pytest.fixture
def builds(monkeypatch: pytest.MonkeyPatch) -> list[Request]:
    """A builder that needs no network, and what it was asked for."""
    asked: list[Request] = []

    def build(request: Request, _: object) -> Root:
        asked.append(request)
        return built(request)

    monkeypatch.setattr(module, "build_root", build)
    return asked


def test_requirements_are_the_agents_in_the_versions_of_this_machine() -> None:
    """Only the agent's; pinned where this machine has one that fits, else as they stand."""
    expected = (
        f"click=={version('click')}",
        "msgspec>=9999",
        "no-such-package>=2",
        f"paho-mqtt=={version('paho-mqtt')}",
    )
    assert expected == agent_requirements(_PYPROJECT)


def test_another_input_is_another_system() -> None:
    """The name follows what it is made of, and nothing else."""
    assert root_key(("a==1",)) == root_key(("a==1",))
    assert root_key(("a==1",)) != root_key(("a==2",))


def test_it_is_made_once(tmp_path: Path, builds: list[Request]) -> None:
    """The second use finds it, without asking anybody."""
    for _ in range(2):
        with arm_root(print, tmp_path) as root:
            assert root.is_dir()
    assert 1 == len(builds)
    assert any(wheel.startswith("onnxruntime==") for wheel in builds[0].wheels)


def test_two_builders_wait_for_each_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who comes second finds what the first has made."""
    asked, go = [], threading.Event()

    def build(request: Request, _: object) -> Root:
        asked.append(request)
        assert go.wait(30)
        return built(request)

    def use() -> None:
        with arm_root(print, tmp_path):
            pass

    monkeypatch.setattr(module, "build_root", build)
    threads = [threading.Thread(target=use) for _ in range(2)]
    for thread in threads:
        thread.start()
    go.set()
    for thread in threads:
        thread.join(30)
    assert 1 == len(asked)


def test_a_failed_build_can_be_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An error leaves nothing that looks like a system."""

    def fail(*_: object) -> Root:
        raise UnreachableError("no network")

    monkeypatch.setattr(module, "build_root", fail)
    with pytest.raises(UnreachableError), arm_root(print, tmp_path):
        pass
    monkeypatch.setattr(module, "build_root", lambda request, _: built(request))
    with arm_root(print, tmp_path) as root:
        assert root.is_dir()


def test_what_a_killed_builder_leaves_goes(tmp_path: Path, builds: list[Request]) -> None:
    """After SIGKILL half-way the next one is not held up, builds, and removes the rest."""
    command = [sys.executable, "-c", _BUILDER, str(tmp_path)]
    with subprocess.Popen(command, cwd=CHECKOUT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert "building\n" == process.stdout.readline()
        process.send_signal(signal.SIGKILL)
    assert [".building-x"] == [path.name for path in tmp_path.glob("*/.building-*")]
    with arm_root(print, tmp_path):
        assert [] == list(tmp_path.glob("*/.building-*"))
    assert 1 == len(builds)


def test_old_systems_go_unless_somebody_uses_them(tmp_path: Path, builds: list[Request]) -> None:
    """When a new one is made, those of more than a week ago are removed, but for those in use."""
    for name in ("old", "fresh"):
        built(Request(arch="aarch64", folder=tmp_path / name))
    long_ago = time.time() - 8 * 86_400
    os.utime(tmp_path / "old", (long_ago, long_ago))
    with arm_root(print, tmp_path) as root:
        used = root.parents[1]
        assert {"fresh", used.name} == {path.name for path in tmp_path.iterdir()}
        os.utime(used, (long_ago, long_ago))
        (tmp_path / "next").mkdir()
        module._tidy(tmp_path, tmp_path / "next")
        assert used.exists()
    module._tidy(tmp_path, tmp_path / "next")
    assert not used.exists()
