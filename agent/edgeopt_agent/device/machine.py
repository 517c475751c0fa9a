"""What this machine is: capabilities and facts for the birth message. How it feels: :mod:`edgeopt_agent.device.gauges`.

It reads ``/proc``, ``/sys`` and package metadata; it does not import a runtime. Package metadata are read in a child
process (``python -m edgeopt_agent.device.machine``), for the modules that this takes would stay in memory. Example::

    read_capabilities().features                 # ('avx2', …)
    read_facts()["model"]                        # 'Raspberry Pi 4 Model B Rev 1.4'
"""

from __future__ import annotations

import contextlib
import os
import platform
import re
import subprocess
import sys
from pathlib import Path

import msgspec

from edgeopt_contract.isa import isa_features, normalize_arch
from edgeopt_contract.manifest import Capabilities

__all__ = ["available_memory", "read_capabilities", "read_capabilities_apart", "read_facts", "resident_memory"]

# By package, and others by their entry points (edgeopt_agent.runner.port).
_RUNTIMES = {
    "onnxruntime": ("onnxruntime", "onnxruntime-gpu"),
    "litert": ("ai-edge-litert",),
    "openvino": ("openvino",),
}
_ENTRY_POINTS = "edgeopt_agent.runtimes"
_LONGEST_FACT = 120


def read_capabilities(proc: Path = Path("/proc")) -> Capabilities:
    """Return what this machine can run. A runtime counts when its package is installed."""
    return Capabilities(
        arch=normalize_arch(platform.machine()),
        features=isa_features(_read(proc / "cpuinfo")),
        runtimes=_runtimes(),
        cores=os.cpu_count() or 1,
        memory_bytes=_meminfo(proc).get("MemTotal", 0),
    )


def read_capabilities_apart() -> Capabilities:
    """Return :func:`read_capabilities` as a child process read it."""
    command = [sys.executable, "-m", "edgeopt_agent.device.machine"]
    told = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, check=True).stdout
    return msgspec.json.decode(told, type=Capabilities)


def read_facts(proc: Path = Path("/proc"), sys: Path = Path("/sys"), etc: Path = Path("/etc")) -> dict[str, str]:
    """Return what this machine is in words: model, kernel, system, Python; what is unknown is left out.

    The model is what the board's device tree says, or a PC's firmware.
    """
    model = _read(sys / "firmware" / "devicetree" / "base" / "model") or _read(sys / "class/dmi/id/product_name")
    release = re.search(r'^PRETTY_NAME="?([^"\n]*)', _read(etc / "os-release"), re.MULTILINE)
    facts = {
        "model": model.strip("\0 \n"),
        "kernel": _read(proc / "sys" / "kernel" / "osrelease").strip(),
        "system": release[1] if release else "",
        "python": platform.python_version(),
    }
    return {name: value[:_LONGEST_FACT] for name, value in facts.items() if value}


def available_memory(proc: Path = Path("/proc")) -> int | None:
    """Return how many bytes new work could have without swapping; ``None`` where the kernel does not say."""
    return _meminfo(proc).get("MemAvailable")


def resident_memory(pid: int, proc: Path = Path("/proc")) -> int:
    """Return the bytes of ``pid`` that are in memory; 0 when it is gone."""
    pages = _read(proc / str(pid) / "statm").split()[1:2]
    return int(pages[0]) * os.sysconf("SC_PAGESIZE") if pages else 0


def _runtimes() -> dict[str, str]:
    from importlib import metadata

    found = {}
    for runtime, distributions in _RUNTIMES.items():
        for distribution in distributions:
            with contextlib.suppress(metadata.PackageNotFoundError):
                found[runtime] = metadata.version(distribution)
                break
    for entry in metadata.entry_points(group=_ENTRY_POINTS):
        found.setdefault(entry.name, entry.dist.version if entry.dist else "0")
    return found


def _meminfo(proc: Path) -> dict[str, int]:
    """Return the lines of ``/proc/meminfo`` in bytes."""
    values = {}
    for line in _read(proc / "meminfo").splitlines():
        name, _, rest = line.partition(":")
        words = rest.split()
        if words and words[0].isdigit():
            values[name] = int(words[0]) * 1024
    return values


def _read(path: Path) -> str:
    """Return the text of ``path``; empty where the kernel does not offer it (a sensor may fail when read)."""
    try:
        return path.read_text(encoding="ascii", errors="replace")
    except OSError:
        return ""


if __name__ == "__main__":
    print(msgspec.json.encode(read_capabilities()).decode())
