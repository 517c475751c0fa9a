"""What a machine says of itself, read from files that look like a kernel's."""

from __future__ import annotations

from pathlib import Path

import onnxruntime
import pytest

from edgeopt_agent.machine import read_capabilities, read_gauges

CPUINFO = "processor\t: 0\nflags\t\t: fpu avx2 avx512_vnni\n"
MEMINFO = "MemTotal:        1024 kB\nMemAvailable:     512 kB\nHugePages_Total:       0\n"


@pytest.fixture
def proc(tmp_path: Path) -> Path:
    """A small /proc."""
    proc = tmp_path / "proc"
    proc.mkdir()
    (proc / "cpuinfo").write_text(CPUINFO)
    (proc / "meminfo").write_text(MEMINFO)
    return proc


def sensor(sys: Path, number: int, text: str) -> None:
    """Write a thermal sensor."""
    zone = sys / "class" / "thermal" / f"thermal_zone{number}"
    zone.mkdir(parents=True)
    (zone / "temp").write_text(text)


def test_capabilities_come_from_the_kernel_and_the_packages(proc: Path) -> None:
    """CPU features, memory, and the installed runtime's version."""
    capabilities = read_capabilities(proc)
    assert ("avx2", "avx512_vnni", "vnni") == capabilities.features
    assert (1 << 20, {"onnxruntime": onnxruntime.__version__}) == (capabilities.memory_bytes, capabilities.runtimes)
    assert capabilities.cores >= 1


def test_gauges_give_the_hottest_sensor(proc: Path, tmp_path: Path) -> None:
    """Millidegrees become degrees; a sensor that says nonsense is left out."""
    sensor(tmp_path / "sys", 0, "41000\n")
    sensor(tmp_path / "sys", 1, "48500\n")
    sensor(tmp_path / "sys", 2, "hot\n")
    gauges = read_gauges(tmp_path, proc, tmp_path / "sys")
    assert (48.5, 512 * 1024.0) == (gauges["temperature_celsius"], gauges["memory_bytes"])
    assert gauges["disk_free_bytes"] > 0


def test_machine_without_sensors_gives_what_it_has(tmp_path: Path) -> None:
    """No /proc, no sensors: only the disk."""
    assert {"disk_free_bytes"} == set(read_gauges(tmp_path, tmp_path / "none", tmp_path / "none"))
    assert (0, ()) == ((c := read_capabilities(tmp_path / "none")).memory_bytes, c.features)
