"""The Makefile and .ci/run: what they offer, and what they say when something is missing."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.project.conftest import ROOT

MAKEFILE = (ROOT / "Makefile").read_text()
TARGETS = sorted(set(re.findall(r"^\.PHONY: (.*)$", MAKEFILE, re.MULTILINE)[0].split()))

pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")


def make(directory: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run make on a copy of the Makefile."""
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, directory / name)
    return subprocess.run(["make", *arguments], cwd=directory, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("target", TARGETS)
def test_every_target_can_be_planned(tmp_path: Path, target: str) -> None:
    """No target depends on something that nobody makes."""
    assert 0 == make(tmp_path, "--dry-run", target).returncode


def test_help_explains_every_target_for_people(tmp_path: Path) -> None:
    """Plain make shows what there is; 'help' and 'venv' explain themselves."""
    shown = set(re.findall(r"^make ([\w-]+) ", make(tmp_path).stdout, re.MULTILINE))
    assert set(TARGETS) - {"help", "venv"} == shown


def test_a_missing_python_is_said(tmp_path: Path) -> None:
    """One sentence with what to install."""
    done = make(tmp_path, "venv", "PYTHON=python-that-is-not-there")
    assert 0 != done.returncode
    assert "there is no 'python-that-is-not-there': install Python 3.11 or newer" in done.stdout


@pytest.mark.parametrize(
    ("refuses", "sentence"),
    [("version_info", "edgeopt needs Python 3.11 or newer"), ("ensurepip", "apt-get install python3-venv")],
)
def test_an_unfit_python_is_said(tmp_path: Path, refuses: str, sentence: str) -> None:
    """One that is too old, and Debian's without the package python3-venv."""
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\ncase "$2" in *{refuses}*) exit 1;; esac\n')
    python.chmod(0o755)
    done = make(tmp_path, "venv", f"PYTHON={python}")
    assert 0 != done.returncode
    assert sentence in done.stdout
    assert not (tmp_path / ".venv").exists()


def test_ci_is_executable_and_strict() -> None:
    """It stops at the first surprise, and ends with pytest."""
    script = (ROOT / ".ci" / "run").read_text()
    assert os.access(ROOT / ".ci" / "run", os.X_OK)
    assert "set -euo pipefail" in script
    assert subprocess.run(["bash", "-n", ROOT / ".ci" / "run"], check=False).returncode == 0


def test_ci_runs_every_step_and_keeps_the_exit_code(tmp_path: Path) -> None:
    """With a failing style check and good tests the last line is pytest's summary, and the exit code is 1."""
    shutil.copytree(ROOT / ".ci", tmp_path / ".ci")
    (tmp_path / "bin").mkdir()
    fakes = {
        "make": 'echo "make $*"; case "$*" in *style*) exit 2;; esac',
        "dpkg-query": "printf installed",
    }
    for name, body in fakes.items():
        (tmp_path / "bin" / name).write_text(f"#!/bin/sh\n{body}\n")
        (tmp_path / "bin" / name).chmod(0o755)
    python = tmp_path / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text('#!/bin/sh\necho "5 passed in 1.00s"\nexit ${PYTEST_CODE:-0}\n')
    python.chmod(0o755)
    environment = {"PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}"}
    for code, expected in (("0", 1), ("3", 3)):
        done = subprocess.run(
            [tmp_path / ".ci" / "run"],
            env={**environment, "PYTEST_CODE": code},
            capture_output=True,
            text=True,
            check=False,
        )
        assert expected == done.returncode, done.stderr
        assert "5 passed in 1.00s" == done.stdout.splitlines()[-1]
        assert "FAILED before the tests: style" in done.stdout
        for step in ("venv", "style", "types", "imports", "demo"):
            assert re.search(rf"^make .*\b{step}$", done.stdout, re.MULTILINE), step


def test_packages_that_ci_installs_stand_in_the_readme() -> None:
    """Whoever runs the tests elsewhere copies one command and has what .ci/run has."""
    listed = re.search(r"^packages=\(([^)]*)\)", (ROOT / ".ci" / "run").read_text(), re.MULTILINE)
    command = re.search(r"apt-get install ((?:.*\\\n)*.*)", (ROOT / "README.md").read_text())
    assert listed is not None
    assert command is not None
    assert set(listed[1].split()) == set(command[1].replace("\\", " ").split())
