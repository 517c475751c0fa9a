"""What this machine is, in one line for people: processor, kind of CPU, features and cores. Neither host nor user.

Example::

    describe_machine()       # "AMD EPYC 7B13, x86_64 with avx2, 2 cores"
"""

from __future__ import annotations

import re
from pathlib import Path

from edgeopt.targets import host_target

__all__ = ["describe_machine", "processor_name"]

_NAMES = (r"model name", r"Model")  # x86, and boards with an ARM processor


def describe_machine() -> str:
    """Return the line; the same on machines of the same kind."""
    host = host_target()
    path = Path("/proc/cpuinfo")
    name = processor_name(path.read_text(errors="replace")) if path.exists() else None
    features = f" with {', '.join(host.features)}" if host.features else ""
    cores = "1 core" if host.cores == 1 else f"{host.cores} cores"
    return ", ".join(part for part in (name, f"{host.arch}{features}", cores) if part)


def processor_name(cpuinfo: str) -> str | None:
    """Return the name of the processor or board in the text of ``/proc/cpuinfo``, ``None`` when it has none."""
    for key in _NAMES:
        if match := re.search(rf"^{key}\s*:\s*(\S.*)$", cpuinfo, re.MULTILINE):
            return " ".join(match[1].split())
    return None
