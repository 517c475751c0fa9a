r"""What a board's kernel says in files: ``/proc``, ``/sys`` and ``/etc``, from its profile and its temperature. Pure.

Paths are relative to the root. Sources: Linux's documentation (Documentation/ABI/testing/sysfs-class-thermal,
sysfs-devices-system-cpu) and, for ``get_throttled``, Raspberry Pi's ("vcgencmd get_throttled"). Example::

    sensor_files(board, celsius=85.0)["sys/class/thermal/thermal_zone0/temp"]      # '85000\n'
"""

from __future__ import annotations

from devices.emulator.board_profile import BoardProfile
from edgeopt.emulation.cpus import cpuinfo

__all__ = ["sensor_files", "still_files"]

_THERMAL = "sys/class/thermal"
_CPUS = "sys/devices/system/cpu"
_FREE_SHARE = 0.85  # of the memory, on a board that has just started
_THROTTLED_NOW, _THROTTLED_SINCE_BOOT = 1 << 2, 1 << 18


def still_files(board: BoardProfile, hostname: str) -> dict[str, str]:
    """Return the files that stay as they are while the board runs."""
    facts, cores = board.facts, board.target.cores
    total, available = facts.memory_total_kib, int(facts.memory_total_kib * _FREE_SHARE)
    slowest, fastest = facts.megahertz
    files = {
        "proc/cpuinfo": f"{cpuinfo(board.cpu, cores)}\nModel\t\t: {facts.model}\n",
        "proc/meminfo": f"MemTotal: {total:>14} kB\nMemFree: {available:>15} kB\nMemAvailable: {available:>10} kB\n",
        "etc/os-release": f'PRETTY_NAME="{facts.system}"\n',
        "etc/hostname": f"{hostname}\n",
        "etc/hosts": f"127.0.0.1 localhost\n127.0.1.1 {hostname}\n",
        "sys/firmware/devicetree/base/model": f"{facts.model}\0",
        f"{_THERMAL}/thermal_zone0/type": "cpu-thermal\n",
        f"{_THERMAL}/thermal_zone0/trip_point_0_type": "passive\n",
        f"{_THERMAL}/thermal_zone0/trip_point_0_temp": f"{facts.throttles_celsius * 1000:.0f}\n",
        f"{_THERMAL}/cooling_device0/type": "cpufreq-cpu0\n",
        f"{_THERMAL}/cooling_device0/max_state": "1\n",
    }
    files |= {f"{_CPUS}/{name}": f"0-{cores - 1}\n" for name in ("possible", "present", "online")}
    for core in range(cores):
        files[f"{_CPUS}/cpu{core}/cpufreq/cpuinfo_min_freq"] = f"{slowest * 1000}\n"
        files[f"{_CPUS}/cpu{core}/cpufreq/cpuinfo_max_freq"] = f"{fastest * 1000}\n"
    return files


def sensor_files(board: BoardProfile, celsius: float) -> dict[str, str]:
    """Return the files that follow the temperature: the sensor, and what the board does against heat."""
    facts = board.facts
    hot = celsius >= facts.throttles_celsius
    clock = facts.megahertz[0 if hot else 1] * 1000
    files = {
        f"{_THERMAL}/thermal_zone0/temp": f"{celsius * 1000:.0f}\n",
        f"{_THERMAL}/cooling_device0/cur_state": f"{hot:d}\n",
    }
    files |= {f"{_CPUS}/cpu{core}/cpufreq/scaling_cur_freq": f"{clock}\n" for core in range(board.target.cores)}
    if facts.get_throttled is not None:
        files[facts.get_throttled] = f"{(_THROTTLED_NOW | _THROTTLED_SINCE_BOOT) * hot:x}\n"
    return files
