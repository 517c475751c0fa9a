"""The boundaries between packages, held by import-linter, and heavy modules kept out of --help."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.project.conftest import ROOT

BIN = Path(sys.executable).parent
HEAVY = (
    "aiomqtt",
    "cryptography",
    "fastapi",
    "httpx",
    "numpy",
    "onnx",
    "onnxruntime",
    "rich",
    "scipy",
    "sqlmodel",
    "torch",
)


def test_packages_import_only_what_they_may() -> None:
    """Three programs that do not import each other, a contract below, and deciding modules without I/O."""
    done = subprocess.run([BIN / "lint-imports"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert 0 == done.returncode, done.stdout + done.stderr


@pytest.mark.parametrize(
    "program", ["edgeopt.cli:group", "edgeopt_fleet.cli:group", "edgeopt_agent.cli:cli"], ids=lambda name: name
)
def test_help_imports_nothing_heavy(program: str) -> None:
    """--help answers at once because nothing slow is imported for it."""
    module, _, name = program.partition(":")
    script = f"""
import sys
from {module} import {name} as command
try:
    command(["--help"])
except SystemExit as end:
    assert not end.code
print("heavy:", sorted(set({HEAVY!r}) & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert "Example" in done.stdout
    assert done.stdout.endswith("heavy: []\n")


@pytest.mark.parametrize("words", ["token create", "devices list", "publish", "rollout create", "rollout watch"])
def test_help_of_an_operators_command_imports_nothing_heavy(words: str) -> None:
    """Nor does the help of the commands that an operator types all day."""
    script = f"""
import sys
from edgeopt.cli import group
try:
    group([*{words.split()!r}, "--help"])
except SystemExit as end:
    assert not end.code
print("heavy:", sorted(set({HEAVY!r}) & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.endswith("heavy: []\n")
