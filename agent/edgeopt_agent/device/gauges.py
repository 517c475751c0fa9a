"""How this machine feels: temperature, throttling, memory, disk, load. Read from ``/proc`` and ``/sys``, nothing else.

What the kernel does not say is left out. Sources: Linux' Documentation/ABI/testing (sysfs-class-thermal,
sysfs-devices-system-cpu) and Documentation/filesystems/proc.rst; for the firmware of a Raspberry Pi "vcgencmd
get_throttled" in its documentation. Example::

    read_gauges(Path("/var/lib/edgeopt"))        # {'memory_bytes': …, 'disk_free_bytes': …, 'temperature_celsius': …}
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from edgeopt_agent.device.machine import available_memory, resident_memory

__all__ = ["read_gauges", "read_strain"]

_UNDER_VOLTAGE = 0x1  # of get_throttled: now; the same 16 bits higher: since boot
_HELD_BACK = 0xE  # frequency capped, throttled, soft temperature limit
_SINCE_BOOT = 16


def read_gauges(data: Path, proc: Path = Path("/proc"), sys: Path = Path("/sys")) -> dict[str, float]:
    """Return what can be measured, each under a name with its unit.

    ``memory_bytes`` is available without swapping, ``disk_free_bytes`` below ``data``; ``agent_bytes`` and
    ``runner_bytes`` are the memory of this process and of its children (shared pages in equal parts);
    ``temperature_celsius`` is the hottest zone; ``throttled`` is 1 while the CPU is held back, by heat or the supply,
    and ``under_voltage`` 1 when the supply was too weak at any time since boot.
    """
    gauges = {"disk_free_bytes": float(shutil.disk_usage(data).free), **read_strain(proc, sys)}
    for name, path in (("load", proc / "loadavg"), ("uptime_seconds", proc / "uptime")):
        words = _text(path).split()
        if words:
            gauges[name] = float(words[0])
    return gauges | _memory(proc)


def read_strain(proc: Path = Path("/proc"), sys: Path = Path("/sys")) -> dict[str, float]:
    """Return only what may keep this machine from doing more: memory, temperature, throttling and supply."""
    available = available_memory(proc)
    gauges = {} if available is None else {"memory_bytes": float(available)}
    temperatures = [value / 1000 for value in _integers(sys / "class" / "thermal", "thermal_zone*/temp")]
    if temperatures:
        gauges["temperature_celsius"] = max(temperatures)
    return gauges | _throttling(sys)


def _throttling(sys: Path) -> dict[str, float]:
    firmware = _text(sys / "devices/platform/soc/soc:firmware/get_throttled").strip()
    said = int(firmware, 16) if firmware and set(firmware.removeprefix("0x")) <= set("0123456789abcdef") else None
    cooling = [
        state
        for device in sorted((sys / "class" / "thermal").glob("cooling_device*"))
        if _text(device / "type").startswith(("cpufreq", "Processor"))
        for state in _integers(device, "cur_state")
    ]
    limits = list(_integers(sys / "devices" / "system" / "cpu", "cpu*/cpufreq/scaling_max_freq"))
    greatest = list(_integers(sys / "devices" / "system" / "cpu", "cpu*/cpufreq/cpuinfo_max_freq"))
    gauges = {}
    if said is not None or cooling or (limits and greatest):
        held_back = bool(said and said & _HELD_BACK) or any(cooling) or sum(limits) < sum(greatest)
        gauges["throttled"] = float(held_back)
    if said is not None:
        gauges["under_voltage"] = float(bool(said & (_UNDER_VOLTAGE | _UNDER_VOLTAGE << _SINCE_BOOT)))
    return gauges


def _memory(proc: Path) -> dict[str, float]:
    own = os.getpid()
    if not (proc / str(own)).exists():
        return {}
    children = _text(proc / str(own) / "task" / str(own) / "children").split()
    runners = sum(_proportional(int(child), proc) for child in children)
    return {"agent_bytes": float(_proportional(own, proc)), "runner_bytes": float(runners)}


def _proportional(pid: int, proc: Path) -> int:
    """Return the bytes of ``pid`` in memory, pages that several share in equal parts; else its resident ones."""
    for line in _text(proc / str(pid) / "smaps_rollup").splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024
    return resident_memory(pid, proc)


def _integers(folder: Path, pattern: str) -> Iterator[int]:
    """Yield what the files of ``pattern`` say, if it is a number: a sensor may fail, or say nonsense."""
    for path in sorted(folder.glob(pattern)):
        text = _text(path).strip()
        if text.removeprefix("-").isdigit():
            yield int(text)


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii", errors="replace")
    except OSError:
        return ""
