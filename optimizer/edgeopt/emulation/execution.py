"""On what a variant is certified for a target: this CPU, an emulated one, or simulated integers. In words, too.

This CPU where it computes the same integers; an emulated one where QEMU can and is there; else the model is computed
as what its integers stand for, which shows what rounding costs, and nothing of what a CPU's kernels do. Nothing is
run here. Example::

    execution = execution_for(target, host_target())
    execution.title                           # "emulated (qemu-x86_64 -cpu Haswell)"
    execution.emulator                        # None unless it is emulated
"""

from __future__ import annotations

import shutil
import sys
from dataclasses import dataclass
from enum import StrEnum
from importlib import metadata
from pathlib import Path

from edgeopt.emulation.emulator import Emulator
from edgeopt.emulation.root import find_root, roots_folder
from edgeopt.targets import EmulatedCpu, Target

__all__ = ["Execution", "ExecutionKind", "execution_for", "find_qemu"]

_RUNTIME = "onnxruntime"


class ExecutionKind(StrEnum):
    """What answers the certification samples."""

    NATIVE = "native"
    EMULATED = "emulated"
    SIMULATED = "simulated"


@dataclass(frozen=True, slots=True)
class Execution:
    """How a variant is certified, and how to say so in a report."""

    kind: ExecutionKind
    title: str
    emulator: Emulator | None = None


def find_qemu(program: str) -> str | None:
    """Return the path of QEMU's user-mode ``program`` (such as ``qemu-aarch64``), the static one where there is one."""
    return shutil.which(f"{program}-static") or shutil.which(program)


def execution_for(target: Target, host: Target, roots: Path | None = None) -> Execution:
    """Return how variants for ``target`` are certified on ``host``, which is this machine.

    ``roots`` is the folder of roots for other architectures (:func:`~edgeopt.emulation.root.roots_folder`).
    """
    if target.computes_like(host):
        return Execution(ExecutionKind.NATIVE, f"this CPU ({host.name})")
    if target.emulator is None:
        return _simulated(target.no_emulator or f"the profile {target.name} names no emulator")
    program = find_qemu(target.emulator.program)
    if program is None:
        return _simulated(f"{target.emulator.program} is not installed (Debian: apt-get install qemu-user-static)")
    if target.arch == host.arch:
        return _emulated(target.emulator, (program, "-cpu", target.emulator.cpu, sys.executable))
    return _with_root(target.arch, target.emulator, program, roots_folder(roots))


def _with_root(arch: str, cpu: EmulatedCpu, program: str, folder: Path) -> Execution:
    """Return the emulation of another architecture, whose programs lie in a root."""
    root = find_root(arch, folder)
    if root is None:
        return _simulated(f"there is no {arch} system in {folder} (make one: edgeopt emulator build)")
    prefix, python = root.prefix(cpu.cpu), root.python(cpu.cpu)
    if prefix is None or python is None:
        known = ", ".join(sorted(path.name for path in (root.path / "cpus").iterdir()))
        return _simulated(f"{root.path} knows no CPU {cpu.cpu}, only {known}")
    version = root.record.packages.get(_RUNTIME, "without")
    note = "" if version == metadata.version(_RUNTIME) else f", {_RUNTIME} {version}"
    return _emulated(cpu, (program, "-cpu", cpu.cpu, "-L", str(prefix), str(python)), note)


def _emulated(cpu: EmulatedCpu, command: tuple[str, ...], note: str = "") -> Execution:
    title = f"emulated ({cpu.title}{note})"
    return Execution(ExecutionKind.EMULATED, title, Emulator(command=command, title=cpu.title))


def _simulated(reason: str) -> Execution:
    return Execution(ExecutionKind.SIMULATED, f"simulated integers: {reason}")
