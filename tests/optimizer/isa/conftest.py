"""Emulated CPUs: Haswell and an Atom with this Python, ARM with a system that is built once and kept in the cache."""

from __future__ import annotations

import dataclasses
import fcntl
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from edgeopt.emulation.building import Request, build_root
from edgeopt.emulation.emulator import Emulator
from edgeopt.emulation.execution import execution_for
from edgeopt.emulation.root import Root, find_root, roots_folder
from edgeopt.runtimes.onnx_runtime import OnnxRuntimeSession
from edgeopt.samples import Array, Sample
from edgeopt.targets import Target, host_target, read_target
from edgeopt_contract.errors import UnreachableError, UsageError

Answer = Callable[[bytes, list[Sample]], dict[str, Array]]

DEVICES = Path(__file__).parents[3] / "devices"
WITH_VNNI = dataclasses.replace(host_target(), features=("avx2", "vnni"))  # so that nothing emulated counts as native


@pytest.fixture(autouse=True)
def needs_qemu() -> None:
    """Skip with the reason where the emulators are not installed."""
    for program in ("qemu-x86_64-static", "qemu-aarch64-static"):
        if shutil.which(program) is None:
            pytest.skip(f"needs {program}: apt-get install qemu-user-static")
    if "x86_64" != host_target().arch:
        pytest.skip("emulates x86 with this machine's Python: needs an x86 machine")


def emulator_of(target: Target, roots: Path | None = None) -> Emulator:
    """The emulator for ``target``, even where this CPU would do."""
    execution = execution_for(target, WITH_VNNI, roots)
    assert execution.emulator is not None, execution.title
    return dataclasses.replace(execution.emulator, processes=1)  # few samples: starting is what takes time


@pytest.fixture(scope="session")
def haswell() -> Emulator:
    """AVX2 without VNNI."""
    return emulator_of(read_target(DEVICES / "x86-avx2.toml"))


@pytest.fixture(scope="session")
def atom() -> Emulator:
    """No AVX at all."""
    return emulator_of(read_target(DEVICES / "x86-atom.toml"))


@pytest.fixture(scope="session")
def saturating(haswell: Emulator) -> Answer:
    """Run a model on AVX2 without VNNI: this CPU, or the emulated one."""
    if host_target().saturates:
        return lambda model, data: OnnxRuntimeSession(model, threads=1).predict_singly(data)
    return haswell.predict


def kept_root(folder: Path) -> Root:
    """Find the system in a folder, or build it there: once, although every worker of the tests asks at the same time.

    A second one would take the place of the first while it is in use.
    """
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        return find_root("aarch64", folder) or build_root(Request(arch="aarch64", folder=folder), on_step=print)


@pytest.fixture(scope="session")
def arm(request: pytest.FixtureRequest) -> Root:
    """The user's system for aarch64 where there is one, else one in pytest's cache."""
    found = find_root("aarch64", roots_folder())
    if found is not None:
        return found
    try:
        return kept_root(Path(request.config.cache.mkdir("emulator")))
    except (UnreachableError, UsageError) as error:
        pytest.skip(f"the aarch64 system cannot be built here: {error}")
