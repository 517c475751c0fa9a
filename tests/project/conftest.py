"""The three command lines and the text of all documents."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import click
import pytest

ROOT = Path(__file__).parent.parent.parent


def walk(command: click.Command, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    """Yield a command and all commands below it, each with the words that call it."""
    yield path, command
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            below = command.get_command(context, name)
            assert below is not None, name
            yield from walk(below, (*path, name))


def all_commands() -> list[tuple[tuple[str, ...], click.Command]]:
    """Every command of the three programs."""
    from edgeopt.cli import group as edgeopt
    from edgeopt_agent.cli import cli as agent
    from edgeopt_fleet.cli import group as fleet

    roots = (("edgeopt", edgeopt), ("edgeopt-fleet", fleet), ("edgeopt-agent", agent))
    return [found for name, root in roots for found in walk(root, (name,))]


@pytest.fixture(scope="session")
def documents() -> str:
    """All documents in one text."""
    paths = [*ROOT.glob("*.md"), *sorted((ROOT / "docs").rglob("*.md"))]
    return "\n".join(path.read_text(encoding="utf-8") for path in paths)
