"""What the model is made for: the kind of CPU, as a profile in TOML or as this machine.

It reads the profile and ``/proc/cpuinfo``; it decides nothing about quantization. Example (a profile)::

    name = "raspberry-pi-5"
    arch = "aarch64"
    features = ["neon", "dotprod"]
    cores = 4
    memory_mib = 4096
    runtimes = { onnxruntime = "1.20" }
    emulator = { program = "qemu-aarch64", cpu = "cortex-a76" }
"""

from __future__ import annotations

import dataclasses
import os
import platform
import re
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib import util
from pathlib import Path
from typing import ClassVar

import msgspec

from edgeopt_contract.errors import UsageError
from edgeopt_contract.isa import isa_features, normalize_arch

__all__ = ["EmulatedCpu", "Target", "check_targets", "host_target", "least_version", "read_target"]

_ARITHMETIC = frozenset({"avx2", "vnni", "dotprod", "i8mm"})
_SPEED = _ARITHMETIC | {"avx512f", "amx_int8", "fp16"}
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_FEATURES = _SPEED | {"avx512_vnni", "avx_vnni", "neon"}
# The oldest version of each runtime that variants are made for, by the module that brings it.
_RUNTIMES = {
    "onnxruntime": ("onnxruntime", "1.20"),
    "openvino": ("openvino", "2025.0"),
    "litert": ("ai_edge_litert", "2.0"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class EmulatedCpu:
    """What QEMU calls the CPU: the name of its user-mode ``program``, and what is given to ``-cpu``."""

    program: str
    cpu: str

    @property
    def title(self) -> str:
        """How it is called, for instance ``qemu-aarch64 -cpu cortex-a72``."""
        return f"{self.program} -cpu {self.cpu}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A kind of device. ``arch`` and ``features`` are the names of :mod:`edgeopt_contract.isa`.

    ``runtimes`` maps the runtimes that the device can have to their least versions. ``emulator`` is the CPU on which
    variants are certified where this machine's is another; without one, ``no_emulator`` says why, in words.

    ``ARITHMETIC`` is what int8 kernels are chosen by where it changes the integers they compute, or the order in which
    they add. ``SPEED`` is that and what makes float or int8 faster: a time that was measured with it says nothing of a
    CPU without it.
    """

    ARITHMETIC: ClassVar[frozenset[str]] = _ARITHMETIC
    SPEED: ClassVar[frozenset[str]] = _SPEED

    name: str
    arch: str
    features: tuple[str, ...]
    cores: int
    memory_mib: int
    runtimes: dict[str, str]
    emulator: EmulatedCpu | None = None
    no_emulator: str = ""

    @property
    def has_vnni(self) -> bool:
        """Whether the CPU multiplies u8 by s8 without 16-bit saturation by an instruction of its own (x86 only)."""
        return "vnni" in self.features

    @property
    def saturates(self) -> bool:
        """Whether ONNX Runtime adds pairs of u8 by s8 products in 16 saturating bits (VPMADDUBSW) on this CPU.

        So it does with AVX2 and no VNNI. Without AVX2 its SSE kernels widen first, and are exact.
        """
        return self.arch == "x86_64" and "avx2" in self.features and not self.has_vnni

    @property
    def signed_activations(self) -> bool:
        """Whether int8 activations should be signed: ARM multiplies s8 by s8 best, x86 u8 by s8.

        With signed activations ONNX Runtime is 1.6 times as slow on x86 with VNNI (ONNX Runtime documentation,
        "Quantize ONNX models": S8S8 on ARM64, U8S8 on x86-64).
        """
        return self.arch != "x86_64"

    @property
    def decisive(self) -> frozenset[str]:
        """Those of its features by which kernels are chosen."""
        return self.SPEED & set(self.features)

    def computes_like(self, other: Target) -> bool:
        """Tell whether int8 kernels give the same integers on both, so that one may certify for the other."""
        return self._same(other, self.ARITHMETIC)

    def times_like(self, other: Target) -> bool:
        """Tell whether kernels are as good on both, so that a ratio measured on one holds for the other.

        A server that computes in AMX or AVX-512 must not lend them to a board that has neither.
        """
        return self._same(other, self.SPEED)

    def _same(self, other: Target, features: frozenset[str]) -> bool:
        return self.arch == other.arch and features & set(self.features) == features & set(other.features)


def host_target() -> Target:
    """Return this machine, named after its kind of CPU, for instance ``x86_64-vnni``, with the runtimes installed."""
    cpuinfo = Path("/proc/cpuinfo")
    features = isa_features(cpuinfo.read_text()) if cpuinfo.exists() else ()
    arch = normalize_arch(platform.machine())
    best = next((feature for feature in ("vnni", "avx2", "i8mm", "dotprod", "neon") if feature in features), None)
    return Target(
        name=arch if best is None else f"{arch}-{best}",
        arch=arch,
        features=features,
        cores=os.cpu_count() or 1,
        memory_mib=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2**20,
        runtimes={name: least for name, (module, least) in _RUNTIMES.items() if util.find_spec(module) is not None},
    )


def read_target(path: Path) -> Target:
    """Read a profile. Raises :class:`UsageError` when it is missing, not TOML, or a key is wrong or unknown."""
    try:
        raw = tomllib.loads(path.read_text())
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise UsageError(f"cannot read the target profile {path}: {error}") from error
    known = {field.name for field in dataclasses.fields(Target)}
    unknown = sorted(set(raw) - known)
    if unknown:
        raise UsageError(f"{path}: unknown keys {', '.join(unknown)}; expected {', '.join(sorted(known))}")
    try:
        target = msgspec.convert(raw, Target, strict=True)
    except msgspec.ValidationError as error:
        raise UsageError(f"{path}: {error}") from error
    for wrong in _wrong(target):
        raise UsageError(f"{path}: {wrong}")
    return target


def check_targets(targets: Sequence[Target]) -> None:
    """Raise :class:`UsageError` when two of ``targets`` have the same name: reports and bundles tell them by it."""
    names = [target.name for target in targets]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise UsageError(f"two targets are called {twice[0]}: give each profile once, and a name of its own")


def least_version(runtime: str) -> str:
    """Return the oldest version of ``runtime`` that variants are made for."""
    return _RUNTIMES[runtime][1]


def _wrong(target: Target) -> Iterator[str]:
    """Yield what no device would ever say of itself, so that no variant would reach one."""
    if not _NAME.fullmatch(target.name):
        yield f"name: expected letters, digits, '.', '_' and '-' (files are called after it), got {target.name!r}"
    if normalize_arch(target.arch) != target.arch:
        yield f"arch: expected {normalize_arch(target.arch)}, as devices call it, got {target.arch}"
    for feature in target.features:
        if feature not in _FEATURES:
            yield f"features: expected some of {', '.join(sorted(_FEATURES))}, got {feature}"
    for runtime in target.runtimes:
        if runtime not in _RUNTIMES:
            yield f"runtimes: expected some of {', '.join(_RUNTIMES)}, got {runtime}"
