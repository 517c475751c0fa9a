from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from devices.emulator.arm_root import CHECKOUT
from devices.emulator.namespaces import missing

needs_links = pytest.mark.skipif(missing() is not None, reason=missing() or "")


def _run(*arguments: str, typed: str = "", expect: int = 0) -> str:
    """Run the command line to its end; return what it printed."""
    command = [sys.executable, "-m", "devices.emulator", *arguments]
    done = subprocess.run(command, cwd=CHECKOUT, input=typed, capture_output=True, text=True, check=False)
    assert expect == done.returncode, done.stderr
    return done.stdout if expect == 0 else done.stderr


@needs_links
def test_a_command_runs_at_the_far_end() -> None:
    """Its network is the link, and its exit code is the program's."""
    assert "10.77.0.2/24" in _run("link", "3G", "--", "ip", "-brief", "address")
    _run("link", "loss=0.1", "--", "sh", "-c", "exit 3", expect=3)


@needs_links
def test_a_link_obeys_lines_of_json() -> None:
    """Each line is answered by all conditions, or by what was wrong with it; then come the rest."""
    said = _run("link", "3G loss=0.1", typed='{"loss": 0.3}\n{"outage": 1}\n[]\n{"loss": 3}\n{"delay_ms": 5}\n')
    answers = [json.loads(line) for line in said.splitlines()[2:]]
    assert [0.3, 0.3, None, None, 0.3] == [answer.get("loss") for answer in answers]
    assert [False, False, True, True, False] == ["error" in answer for answer in answers]
    assert 5 == answers[-1]["delay_ms"]
    assert all("nsenter" in line for line in said.splitlines()[:2])


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("run", "--board", "toaster"), "raspberry-pi-4"),
        (("run", "--link", "5G"), "3G"),
        (("run", "--for", "soon"), "time span"),
        (("link", "3g"), "3G"),
    ],
)
def test_what_cannot_be_is_said_before_anything_starts(tmp_path: Path, arguments: tuple[str, ...], said: str) -> None:
    """With what could be, exit code 2, and no folder made."""
    more = ("--directory", str(tmp_path / "run")) if arguments[0] == "run" else ()
    assert said in _run(*arguments, *more, expect=2)
    assert not (tmp_path / "run").exists()


def test_a_folder_with_something_else_in_it_is_left_alone(tmp_path: Path) -> None:
    """Only a former run is removed."""
    (tmp_path / "thesis.tex").write_text("mine")
    assert "name another" in _run("run", "--directory", str(tmp_path), expect=2)
    assert "mine" == (tmp_path / "thesis.tex").read_text()
