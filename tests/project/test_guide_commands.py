"""Every command of the operator's guide: words and options that there are, and carried out against a real fleet."""

from __future__ import annotations

import json
import os
import re
import shlex
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import click
import httpx
import pytest

from demo.system import System
from edgeopt.cli import group
from edgeopt_contract.commands import run_command
from edgeopt_fleet.cli import group as fleet_group
from tests.fleet.conftest import enrol_body, make_bundle
from tests.project.conftest import ROOT

GUIDE = (ROOT / "docs" / "guides" / "operator.md").read_text(encoding="utf-8")
SECTIONS = dict(re.findall(r"^## ([^\n]+)\n(.*?)(?=^## |\Z)", GUIDE, re.MULTILINE | re.DOTALL))
PROGRAMS = {"edgeopt": group, "edgeopt-fleet": fleet_group}


def commands(text: str) -> list[str]:
    """Return the lines of a part of the guide that call a program, without what is said of them."""
    joined = re.sub(r" *\\\n +", " ", text).replace(" && ", "\n    ")
    lines = re.findall(r"^ {4}(edgeopt(?:-fleet)? .+)$", joined, re.MULTILINE)
    return [shlex.join(shlex.split(line.replace("…", ""), comments=True)) for line in lines]


@pytest.mark.parametrize("line", dict.fromkeys(commands(GUIDE)))
def test_every_command_of_the_guide_is_one(line: str) -> None:
    """Whoever copies a line is not told that there is no such command or option."""
    program, *words = shlex.split(line)
    command: click.Command = PROGRAMS[program]
    while isinstance(command, click.Group):
        context = click.Context(command, info_name=program)
        named = words[0] if words and not words[0].startswith("-") else "list"
        found = command.get_command(context, named)
        assert found is not None, f"there is no {named}"
        command, words = found, words[1:] if words[:1] == [named] else words
    command.make_context(program, words)  # reads all words as the command would; raises when it cannot


@dataclass
class Story:
    """A fleet in which what the guide names is there: cam-7, a bundle, a token, an alarm, a key of alice's."""

    system: System
    run: Callable[[str], tuple[int, str]]
    names: dict[str, str] = field(default_factory=dict)

    def follow(self, part: str) -> Iterator[tuple[str, int, str]]:
        """Carry out each ``edgeopt`` line of a part of the guide; yield it, its exit code and what it printed."""
        for line in commands(part):
            if line.startswith("edgeopt "):
                for word, name in self.names.items():
                    line = line.replace(word, name)  # noqa: PLW2901  # with what is there in place of the guide's names
                yield (line, *self.run(line))


@pytest.fixture
def story(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Iterator[Story]:
    """Serve a fleet, and give it what the guide speaks of."""
    with System(tmp_path) as system:
        system.start_fleet()
        monkeypatch.chdir(tmp_path)
        monkeypatch.setenv("EDGEOPT_FLEET", os.fspath(system.operator_file))

        def run(line: str) -> tuple[int, str]:
            capfd.readouterr()
            code = run_command(lambda: group.main(shlex.split(line)[1:], "edgeopt", standalone_mode=False))
            out, err = capfd.readouterr()
            return code, out + err

        def one(line: str) -> str:
            code, out = run(line)
            assert 0 == code, out
            return out.strip()

        token = one("edgeopt token create --tag site=oslo")
        url = json.loads(system.operator_file.read_text())["url"]
        for device in ("cam-7", "cam-8"):  # the second time raises an alarm
            httpx.post(f"{url}/api/v1/devices/enrol", content=enrol_body(token, device), timeout=60, trust_env=False)
        (tmp_path / "build").mkdir()
        bundle = make_bundle(tmp_path / "build" / "digits", "2")
        digest = one(f"edgeopt publish {bundle.directory}")
        names = {
            "3fa94c0d1e2b5a68": json.loads(one("edgeopt token list --json"))[0]["id"],
            "3fa94c": digest[:12],
            "--seconds 600": "--seconds 0",
            "alerts show 7": "alerts show 1",
            "alerts close 7": "alerts close 1",
            "9f86d081884c7d65": json.loads(one("edgeopt audit verify --json"))["head"],
        }
        yield Story(system, run, names)


@pytest.mark.scenario
def test_the_guide_can_be_followed(story: Story) -> None:
    """Each command does what the guide says: it ends well, or is refused because nothing waits for approval."""
    refused = ("rollout approve", "rollout deny")
    for section in ("People and rights", "Devices and cohorts", "Publishing"):
        for line, code, said in story.follow(SECTIONS[section]):
            assert (2 if any(words in line for words in refused) else 0) == code, f"{line}\n{said}"
            assert "Traceback" not in said
            if line.startswith("edgeopt users create alice"):
                user = next(
                    one for one in json.loads(story.run("edgeopt users list --json")[1]) if one["name"] == "alice"
                )
                story.names["eok_Q3xk7ZpL"] = user["keys"][0]["prefix"]
    for line, code, said in story.follow(SECTIONS["Drift"]):
        assert 0 == code, f"{line}\n{said}"
