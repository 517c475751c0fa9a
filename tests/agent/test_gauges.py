"""How a machine says it feels, read from files that look like a kernel's."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgeopt_agent.device.gauges import read_gauges


def write(root: Path, files: dict[str, str]) -> Path:
    """Write ``files`` below ``root``."""
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def test_hottest_sensor_counts(tmp_path: Path) -> None:
    """Millidegrees become degrees; a sensor that says nonsense is left out."""
    zones = {"0": "41000\n", "1": "48500\n", "2": "hot\n", "3": "-5000\n"}
    sys = write(tmp_path / "sys", {f"class/thermal/thermal_zone{n}/temp": text for n, text in zones.items()})
    assert 48.5 == read_gauges(tmp_path, tmp_path / "none", sys)["temperature_celsius"]


def test_memory_load_and_uptime(tmp_path: Path) -> None:
    """What the kernel says, in bytes and seconds."""
    proc = write(
        tmp_path / "proc",
        {
            "meminfo": "MemTotal: 1024 kB\nMemAvailable:     512 kB\n",
            "loadavg": "0.52 0.40 0.30 1/100 7\n",
            "uptime": "12.5 7.0\n",
        },
    )
    gauges = read_gauges(tmp_path, proc, tmp_path / "none")
    expected = {"memory_bytes": 512 * 1024.0, "load": 0.52, "uptime_seconds": 12.5}
    assert expected == {name: gauges[name] for name in expected}
    assert gauges["disk_free_bytes"] > 0


def test_own_memory_is_measured(tmp_path: Path) -> None:
    """On this very machine: a Python process has some megabytes."""
    gauges = read_gauges(tmp_path)
    assert 4e6 < gauges["agent_bytes"] < 4e9
    assert gauges["runner_bytes"] >= 0


FIRMWARE = "devices/platform/soc/soc:firmware/get_throttled"
CPU = "devices/system/cpu/cpu0/cpufreq"


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({FIRMWARE: "0\n"}, {"throttled": 0.0, "under_voltage": 0.0}),
        ({FIRMWARE: "50000\n"}, {"throttled": 0.0, "under_voltage": 1.0}),
        ({FIRMWARE: "0x50005\n"}, {"throttled": 1.0, "under_voltage": 1.0}),
        ({FIRMWARE: "nonsense\n"}, {}),
        ({f"{CPU}/scaling_max_freq": "600000", f"{CPU}/cpuinfo_max_freq": "1500000"}, {"throttled": 1.0}),
        ({f"{CPU}/scaling_max_freq": "1500000", f"{CPU}/cpuinfo_max_freq": "1500000"}, {"throttled": 0.0}),
        (
            {"class/thermal/cooling_device0/type": "cpufreq-cpu0", "class/thermal/cooling_device0/cur_state": "2"},
            {"throttled": 1.0},
        ),
        ({"class/thermal/cooling_device0/type": "pwm-fan", "class/thermal/cooling_device0/cur_state": "2"}, {}),
    ],
)
def test_throttling_is_seen_wherever_it_is_said(
    tmp_path: Path, files: dict[str, str], expected: dict[str, float]
) -> None:
    """The firmware of a Raspberry Pi, a limit on the clock, or a cooling device at work; a fan is none."""
    gauges = read_gauges(tmp_path, tmp_path / "none", write(tmp_path / "sys", files))
    assert expected == {name: gauges[name] for name in ("throttled", "under_voltage") if name in gauges}


def test_machine_without_sensors_gives_what_it_has(tmp_path: Path) -> None:
    """No /proc, no sensors: only the disk."""
    assert {"disk_free_bytes"} == set(read_gauges(tmp_path, tmp_path / "none", tmp_path / "none"))
