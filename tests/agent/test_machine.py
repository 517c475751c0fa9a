"""What a machine says of itself, read from files that look like a kernel's."""

from __future__ import annotations

import platform
from pathlib import Path

import onnxruntime
import pytest

from edgeopt_agent.device.machine import read_capabilities, read_facts

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


def test_capabilities_come_from_the_kernel_and_the_packages(proc: Path) -> None:
    """CPU features, memory, and the installed runtime's version."""
    capabilities = read_capabilities(proc)
    assert ("avx2", "avx512_vnni", "vnni") == capabilities.features
    assert (1 << 20, onnxruntime.__version__) == (capabilities.memory_bytes, capabilities.runtimes["onnxruntime"])
    assert capabilities.cores >= 1


def test_facts_are_those_of_the_board(proc: Path, tmp_path: Path) -> None:
    """The model of the device tree ends with a zero byte; what the machine does not say is left out."""
    model = tmp_path / "sys" / "firmware" / "devicetree" / "base" / "model"
    model.parent.mkdir(parents=True)
    model.write_text("Raspberry Pi 4 Model B Rev 1.4\0")
    (tmp_path / "os-release").write_text('NAME="Debian"\nPRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\n')
    facts = read_facts(proc, tmp_path / "sys", tmp_path)
    expected = {"model": "Raspberry Pi 4 Model B Rev 1.4", "system": "Debian GNU/Linux 12 (bookworm)"}
    assert expected | {"python": platform.python_version()} == facts


def test_machine_that_says_nothing_has_no_capabilities(tmp_path: Path) -> None:
    """No /proc: no features, and no memory that is known of."""
    assert (0, ()) == ((c := read_capabilities(tmp_path / "none")).memory_bytes, c.features)
