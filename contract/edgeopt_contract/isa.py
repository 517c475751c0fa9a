"""Which instruction-set features matter to int8 kernels, and how the kernel's CPU listing names them.

Pure: the caller reads ``/proc/cpuinfo``. Example::

    >>> isa_features("flags : fpu avx2 avx512_vnni")
    ('avx2', 'avx512_vnni', 'vnni')
"""

from __future__ import annotations

__all__ = ["isa_features", "normalize_arch"]

# Linux's name in /proc/cpuinfo -> the name used in manifests and device profiles.
_NAMES = {
    "avx2": "avx2",
    "avx512f": "avx512f",
    "avx512_vnni": "avx512_vnni",
    "avx_vnni": "avx_vnni",
    "amx_int8": "amx_int8",
    "asimd": "neon",
    "neon": "neon",
    "asimddp": "dotprod",
    "i8mm": "i8mm",
    "fphp": "fp16",
}
# Either of these multiplies u8 by s8 without 16-bit saturation; "vnni" stands for both.
_VNNI = {"avx512_vnni", "avx_vnni"}


def isa_features(cpuinfo: str) -> tuple[str, ...]:
    """Return the sorted feature names found in the text of ``/proc/cpuinfo``."""
    words: set[str] = set()
    for line in cpuinfo.splitlines():
        key, _, value = line.partition(":")
        if key.strip() in ("flags", "Features"):
            words.update(value.split())
    found = {_NAMES[word] for word in words if word in _NAMES}
    if found & _VNNI:
        found.add("vnni")
    return tuple(sorted(found))


def normalize_arch(machine: str) -> str:
    """Return the name that manifests use for what ``platform.machine()`` says."""
    return {"amd64": "x86_64", "arm64": "aarch64", "armv7l": "armhf", "armv8l": "armhf"}.get(
        machine.lower(), machine.lower()
    )
