"""How busy a machine was with other things while something was timed, in words for the report.

It reads ``/proc/stat`` and this process's own CPU time, and changes no measurement: interleaving and the interval of
:mod:`edgeopt.timing` deal with noise, this says that there was some. Example::

    before = cpu_times()
    ...                                        # the measurement
    noise_note(before, cpu_times())            # "" on a quiet machine
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path

__all__ = ["CpuTimes", "cpu_times", "noise_note", "parse_cpu_times"]

_STAT = Path("/proc/stat")
_NOTICED = 0.05  # of one CPU: less than that is what any system does in the background
_STOLEN = 0.01  # of all CPUs


@dataclass(frozen=True, slots=True, kw_only=True)
class CpuTimes:
    """Seconds since some moment: ``wall`` by the clock, of CPU time ``busy`` in all, ``own``, and ``stolen``.

    ``stolen`` is what a hypervisor gave to other machines. ``cpus`` is how many CPUs there are; none: not known.
    """

    wall: float
    busy: float
    own: float
    stolen: float
    cpus: int


def cpu_times() -> CpuTimes:
    """Read the times now; where there is no ``/proc/stat`` only the own time is known."""
    mine = os.times()  # with the processes that it started and that have ended, such as emulators
    wall, own = time.monotonic(), sum(mine[:4])
    if not _STAT.exists():
        return CpuTimes(wall=wall, busy=own, own=own, stolen=0.0, cpus=0)
    busy, stolen, cpus = parse_cpu_times(_STAT.read_text(), os.sysconf("SC_CLK_TCK"))
    return CpuTimes(wall=wall, busy=busy, own=own, stolen=stolen, cpus=cpus)


def parse_cpu_times(text: str, ticks_per_second: int) -> tuple[float, float, int]:
    """Return busy and stolen seconds and the number of CPUs from ``text`` (``man 5 proc_stat``)."""
    lines = [line.split() for line in text.splitlines() if line.startswith("cpu")]
    user, nice, system, _, _, irq, soft_irq, steal = (int(field) for field in lines[0][1:9])
    busy = user + nice + system + irq + soft_irq
    return busy / ticks_per_second, steal / ticks_per_second, len(lines) - 1


def noise_note(before: CpuTimes, after: CpuTimes) -> str:
    """Return what others took of the CPUs between the two moments, or nothing when that was little."""
    wall = after.wall - before.wall
    if wall <= 0 or after.cpus == 0:
        return ""
    others = max((after.busy - before.busy) - (after.own - before.own), 0.0) / wall
    stolen = (after.stolen - before.stolen) / wall / after.cpus
    found = []
    if others > _NOTICED:
        found.append(f"other programs used {others:.1f} of {after.cpus} CPUs")
    if stolen > _STOLEN:
        found.append(f"the hypervisor withheld {stolen:.0%} of the CPU time")
    if not found:
        return ""
    return f"the machine was busy while it was timed: {' and '.join(found)}; times are longer, intervals wider"
