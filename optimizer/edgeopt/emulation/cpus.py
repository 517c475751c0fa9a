"""What Linux says of an ARM CPU in ``/proc/cpuinfo``: ONNX Runtime chooses kernels by it, and crashes on another's.

QEMU before 8.1 shows the host's file, and cpuinfo (the library in ONNX Runtime) stops with a segmentation fault on one
of x86. Pure. Example::

    cpuinfo("cortex-a72", cores=4)
"""

from __future__ import annotations

__all__ = ["CPUS", "cpuinfo"]

_BASE = "fp asimd evtstrm aes pmull sha1 sha2 crc32 cpuid"
_V82 = f"{_BASE} atomics fphp asimdhp asimdrdm lrcpc dcpop asimddp ssbs"
# QEMU's name -> (the part number of Arm's register MIDR_EL1, the features; Arm's technical reference manuals)
CPUS = {
    "cortex-a35": ("0xd04", _BASE),
    "cortex-a53": ("0xd03", _BASE),
    "cortex-a57": ("0xd07", _BASE),
    "cortex-a72": ("0xd08", _BASE),
    "cortex-a76": ("0xd0b", _V82),
    "neoverse-n1": ("0xd0c", _V82),
}


def cpuinfo(cpu: str, cores: int) -> str:
    """Return the text for ``cores`` equal cores. Raises ``KeyError`` for a ``cpu`` that is not in :data:`CPUS`."""
    part, features = CPUS[cpu]
    lines = (
        "BogoMIPS\t: 108.00",
        f"Features\t: {features}",
        "CPU implementer\t: 0x41",
        "CPU architecture: 8",
        "CPU variant\t: 0x0",
        f"CPU part\t: {part}",
        "CPU revision\t: 3",
    )
    return "\n".join("\n".join((f"processor\t: {core}", *lines, "")) for core in range(cores))
