"""What the model is made for: the kind of CPU, as a profile in TOML or as this machine.

It reads the profile and ``/proc/cpuinfo``; it decides nothing about quantization. Example (a profile)::

    name = "raspberry-pi-5"
    arch = "aarch64"
    features = ["neon", "dotprod"]
    cores = 4
    memory_mib = 4096
    runtimes = { onnxruntime = "1.20" }
"""

from __future__ import annotations

import dataclasses
import os
import platform
import tomllib
from dataclasses import dataclass
from pathlib import Path

import msgspec

from edgeopt_contract.errors import UsageError
from edgeopt_contract.isa import isa_features, normalize_arch

__all__ = ["Target", "host_target", "read_target"]

_INT8_FEATURES = frozenset({"vnni", "dotprod", "i8mm"})  # each brings its own int8 kernels


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A kind of device. ``arch`` and ``features`` are the names of :mod:`edgeopt_contract.isa`."""

    name: str
    arch: str
    features: tuple[str, ...]
    cores: int
    memory_mib: int
    runtimes: dict[str, str]

    @property
    def has_vnni(self) -> bool:
        """Whether the CPU multiplies u8 by s8 without 16-bit saturation (x86 only)."""
        return "vnni" in self.features

    def times_like(self, other: Target) -> bool:
        """Tell whether int8 kernels run alike on both, so that a time measured on one says something of the other."""
        mine, theirs = _INT8_FEATURES & set(self.features), _INT8_FEATURES & set(other.features)
        return self.arch == other.arch and mine == theirs


def host_target() -> Target:
    """Return this machine, named after its kind of CPU, for instance ``x86_64-vnni``."""
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
        runtimes={"onnxruntime": "1.20"},
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
        return msgspec.convert(raw, Target, strict=True)
    except msgspec.ValidationError as error:
        raise UsageError(f"{path}: {error}") from error
