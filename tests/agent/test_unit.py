"""The systemd unit: what systemd itself says of it, and that it starts what there is."""

from __future__ import annotations

import configparser
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from edgeopt_agent.settings import SETTINGS
from tests.project.conftest import ROOT

UNIT = ROOT / "agent" / "edgeopt-agent.service"


def analyze(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run ``systemd-analyze``."""
    program = shutil.which("systemd-analyze")
    if program is None:
        pytest.skip("systemd-analyze is not installed (apt-get install systemd)")
    return subprocess.run([program, *arguments], capture_output=True, text=True, check=False, timeout=60)


def keys() -> dict[str, str]:
    """Return the last value of each key of the section [Service]."""
    parser = configparser.RawConfigParser(strict=False, comment_prefixes=("#",))
    parser.optionxform = str  # type: ignore[assignment, method-assign]  # the documented way to keep upper case
    parser.read_string(UNIT.read_text(encoding="utf-8"))
    return dict(parser["Service"])


def test_systemd_finds_nothing_wrong(tmp_path: Path) -> None:
    """Every key is one, but those of newer versions that the unit says are ignored."""
    shutil.copy(UNIT, tmp_path)
    done = analyze("verify", "--man=no", str(tmp_path / UNIT.name))
    known = re.compile(r"Unknown key '(RestartSteps|RestartMaxDelaySec)'")
    complaints = [line for line in done.stderr.splitlines() if UNIT.name in line and not known.search(line)]
    assert [] == complaints
    assert 0 == done.returncode


def test_service_is_exposed_to_little(tmp_path: Path) -> None:
    """Systemd's own measure from 0 to 10: below 2 is what it calls OK for a service that speaks to a network."""
    shutil.copy(UNIT, tmp_path)
    done = analyze("security", "--offline=true", "--no-pager", str(tmp_path / UNIT.name))
    level = re.search(r"exposure level for \S+: ([\d.]+)", done.stdout)
    if level is None:
        pytest.skip(f"this systemd-analyze judges no file: {done.stderr.strip()[:100]}")
    print(f"systemd-analyze security: {level[1]} of 10")
    assert float(level[1]) < 2


def test_watchdog_restart_and_memory_are_set() -> None:
    """A loop that is stuck, a process that dies, and memory that runs out each have their answer."""
    unit = keys()
    assert ("notify", "main", "always", "2") == (
        unit["Type"], unit["NotifyAccess"], unit["Restart"], unit["RestartPreventExitStatus"]
    )  # fmt: skip
    assert int(unit["WatchdogSec"]) >= 60
    assert {"MemoryHigh", "MemoryMax", "TasksMax", "OOMPolicy", "RestartMaxDelaySec"} <= set(unit)
    assert unit["ExecStart"].endswith("edgeopt-agent run")


def test_what_the_unit_sets_is_a_setting() -> None:
    """A typing error in it would keep every device from starting."""
    variable = keys()["Environment"].partition("=")[0]
    assert variable in {setting.variable for setting in SETTINGS}
