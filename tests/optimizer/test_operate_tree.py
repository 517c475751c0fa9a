"""Every command that speaks to a fleet, found by walking the whole tree: what it says when it cannot."""

# ruff: noqa: F811  # tests take imported fixtures by their names

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from edgeopt.cli import group
from edgeopt_contract.bundle import BundleContents, write_bundle
from edgeopt_contract.commands import run_command
from tests.contract.conftest import contents  # noqa: F401  # the fixture
from tests.optimizer.operate_fake import FakeFleet, served

MOST_COLUMNS = 100


def leaves(command: click.Command, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    """Yield the commands of the fleet, each with the words that call it: those that take ``--fleet``."""
    if isinstance(command, click.Group):
        for name in command.list_commands(click.Context(command)):
            below = command.get_command(click.Context(command), name)
            assert below is not None
            yield from leaves(below, (*path, name))
    elif (
        any(parameter.name == "fleet" for parameter in command.params) and path[0] != "sign"
    ):  # it asks for a key first
        yield path, command


FLEETS = dict(leaves(group))
SPECIAL: dict[tuple[str, ...], list[str]] = {  # what a command asks for in words of its own
    ("devices", "watch"): ["--seconds", "0"],
    ("rollout", "create"): ["--bundle", "abcd"],
}


def words_for(command: click.Command, directory: Path) -> list[str]:
    """Return arguments that a command takes, whatever they mean."""
    words: list[str] = []
    for parameter in command.params:
        if isinstance(parameter, click.Argument) or parameter.required:
            kind = parameter.type
            if isinstance(kind, click.Choice):
                word = str(kind.choices[0])
            elif isinstance(kind, click.IntRange):
                word = "1"
            elif parameter.name == "directory":
                word = str(directory / "bundle")
            elif isinstance(kind, click.Path):
                word = str(directory / "file")
            else:
                word = "abcd"
            words += [word] if isinstance(parameter, click.Argument) else [parameter.opts[0], word]
    return words


def call(path: tuple[str, ...], words: list[str], capfd: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    """Run a command; return exit code, standard output and standard error."""
    capfd.readouterr()
    code = run_command(lambda: group.main([*path, *words], "edgeopt", standalone_mode=False))
    out, err = capfd.readouterr()
    return code, out, err


def test_the_tree_is_found() -> None:
    """The walk misses no group."""
    groups = {path[0] for path in FLEETS}
    assert {"devices", "cohorts", "bundles", "rollout", "alerts", "audit", "users", "token", "publish"} <= groups
    assert 40 <= len(FLEETS)


@pytest.mark.parametrize("path", FLEETS, ids=" ".join)
def test_help_is_narrow_and_has_an_example_and_json(path: tuple[str, ...]) -> None:
    """For people and for machines."""
    command = FLEETS[path]
    text = command.get_help(click.Context(command, info_name="edgeopt " + " ".join(path)))
    assert max(map(len, text.splitlines())) <= MOST_COLUMNS
    example = text.partition("Example:")[2]
    assert f"edgeopt {' '.join(path)}" in example or f"edgeopt {path[0]}" in example
    assert "--json" in text


@pytest.fixture
def directory(tmp_path: Path, contents: BundleContents) -> Path:
    """A directory with a bundle, and with an access to nobody."""
    write_bundle(tmp_path / "bundle", contents)
    return tmp_path


def with_access(directory: Path, url: str, monkeypatch: pytest.MonkeyPatch, key: str = "wrong") -> None:
    """Let commands find a fleet at ``url``."""
    access = directory / "operator.json"
    access.write_text(json.dumps({"url": url, "key": key}))
    monkeypatch.setenv("EDGEOPT_FLEET", str(access))


@pytest.mark.parametrize("path", FLEETS, ids=" ".join)
def test_a_fleet_that_is_down_and_a_wrong_key_are_told(
    path: tuple[str, ...], directory: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """One line with what to do: exit code 5 where nobody answers, 2 where the key is not known; nothing on stdout."""
    words = words_for(FLEETS[path], directory)
    words += SPECIAL.get(path, [])
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
        with_access(directory, url, monkeypatch)
        if path[-1] != "watch":  # it goes on asking for half a minute
            code, out, err = call(path, words, capfd)
            assert (5, "") == (code, out), err
            assert f"the fleet at {url} does not answer" in err
            assert 1 == len(err.strip().splitlines()), err
    with served(FakeFleet()) as url:
        with_access(directory, url, monkeypatch)
        code, out, err = call(path, words, capfd)
        assert (2, "") == (code, out), err
        assert "operator.json" in err
        assert 1 == len(err.strip().splitlines()), err
    monkeypatch.delenv("EDGEOPT_FLEET")
    code, out, err = call(path, words, capfd)
    assert (2, "") == (code, out)
    assert "which fleet? give --fleet FILE" in err
