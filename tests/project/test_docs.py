"""What the documents promise is there, and what is there stands in the documents."""

from __future__ import annotations

import dataclasses
import json
import re
import tomllib
from pathlib import Path
from urllib.parse import unquote

import click
import pytest

from edgeopt_contract.errors import ExitCode
from edgeopt_contract.messages import DeviceState, Result
from edgeopt_contract.topics import PREFIX, Channel, Topics
from tests.contract.conftest import KINDS, golden_bytes
from tests.project.conftest import ROOT, all_commands
from tools import state_diagrams

PROTOCOL = (ROOT / "docs" / "protocol.md").read_text(encoding="utf-8")
MARKDOWN = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
COMMANDS = all_commands()


def section(kind: str) -> str:
    """The part of docs/protocol.md about one message."""
    match = re.search(rf"^### {kind}\n(.*?)(?=^##|\Z)", PROTOCOL, re.MULTILINE | re.DOTALL)
    assert match is not None, f"docs/protocol.md has no section '### {kind}'"
    return match[1]


@pytest.mark.parametrize(("path", "command"), COMMANDS, ids=[" ".join(path) for path, _ in COMMANDS])
def test_every_command_has_help_with_an_example(path: tuple[str, ...], command: click.Command) -> None:
    """A newcomer can copy a line that calls this very command."""
    text = command.get_help(click.Context(command, info_name=path[-1]))
    _, found, example = text.partition("Example:")
    assert found, "no 'Example:' in the help"
    first, *rest = path
    assert re.search(rf"\b{re.escape(first)}\b.*?{'.*?'.join(map(re.escape, rest))}", example, re.DOTALL)
    assert command.help, "no description"


@pytest.mark.parametrize(("path", "program"), [found for found in COMMANDS if len(found[0]) == 1], ids=str)
def test_h_is_help_in_all_three_programs(path: tuple[str, ...], program: click.Command) -> None:
    """Commands inherit it; the setting is asked, for click keeps the names with which a command was asked first."""
    assert ["-h", "--help"] == program.context_settings["help_option_names"], path


@pytest.mark.parametrize(("path", "command"), COMMANDS, ids=[" ".join(path) for path, _ in COMMANDS])
def test_every_command_and_option_stands_in_the_documents(
    path: tuple[str, ...], command: click.Command, documents: str
) -> None:
    """The words that call a command, and each of its options, are explained somewhere."""
    assert " ".join(path) in documents
    for parameter in command.params:
        if isinstance(parameter, click.Option) and not parameter.hidden:
            longest = max(parameter.opts, key=len)
            assert re.search(rf"(?<![\w-]){re.escape(longest)}(?![\w-])", documents), f"{path}: {longest}"


def test_every_topic_stands_in_the_protocol() -> None:
    """Topics of devices, of blocks, and the fleet's subscriptions."""
    assert f"`{PREFIX}/blocks/<sha256>`" in PROTOCOL
    for channel in Channel:
        assert f"`{PREFIX}/devices/<id>/{channel}`" in PROTOCOL
    for subscription in (Topics.ANY_REPORTED, Topics.ANY_TELEMETRY, Topics.ANY_STATUS):
        assert f"`{subscription}`" in PROTOCOL


@pytest.mark.parametrize("name", sorted(KINDS))
def test_example_in_the_protocol_is_the_golden_file(name: str) -> None:
    """What people copy from the documents decodes."""
    match = re.search(r"```json\n(.*?)```", section(KINDS[name].__name__), re.DOTALL)
    assert match is not None
    assert json.loads(golden_bytes(name)) == json.loads(match[1])


@pytest.mark.parametrize("name", sorted(KINDS))
def test_every_field_stands_in_the_protocol_with_the_limit(name: str) -> None:
    """One row a field, and the greatest size."""
    kind = KINDS[name]
    text = section(kind.__name__)
    rows = set(re.findall(r"^\| `(\w+)` \|", text, re.MULTILINE))
    assert {"schema", *(field.name for field in dataclasses.fields(kind))} - {"extra"} == rows
    limit = f"{kind.MAX_BYTES >> 20} MiB" if kind.MAX_BYTES >> 20 else f"{kind.MAX_BYTES >> 10} KiB"
    assert f"At most {limit}." in text


def test_states_results_and_exit_codes_stand_in_the_protocol() -> None:
    """Every value that a reader may meet."""
    reported = section("Reported")
    assert all(f"`{value}`" in reported for value in (*DeviceState, *Result))
    codes = {int(code) for code in re.findall(r"^\| (\d+) \|", PROTOCOL, re.MULTILINE)}
    assert {*map(int, ExitCode), 130} == codes


def test_every_route_stands_in_the_protocol() -> None:
    """The table of calls and the application agree, in both directions."""
    from edgeopt_fleet.api.app import create_app

    application = create_app(None)  # type: ignore[arg-type]  # only its description is looked at
    served = {f"{method.upper()} {path}" for path, calls in application.openapi()["paths"].items() for method in calls}
    documented = set(re.findall(r"^\| `((?:GET|PUT|POST|DELETE|PATCH) /\S+)` \|", PROTOCOL, re.MULTILINE))
    assert served == documented


def test_diagrams_are_those_of_the_tables() -> None:
    """docs/states.md was generated from the transition tables as they are now."""
    expected = state_diagrams.page()
    assert expected == state_diagrams.PAGE.read_text(encoding="utf-8"), "run 'make diagrams'"


def test_every_pure_module_stands_in_the_architecture() -> None:
    """The list in pyproject.toml, which import-linter holds, is the list in the documents."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    (contract,) = [c for c in project["tool"]["importlinter"]["contracts"] if "no clock" in c["name"]]
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    part = text[text.index("## Deciding") : text.index("## What survives")]
    assert set(contract["source_modules"]) == set(re.findall(r"`((?:edgeopt|devices)\w*(?:\.\w+)+)`", part))


@pytest.mark.parametrize("path", MARKDOWN, ids=lambda path: path.name)
def test_links_lead_somewhere(path: Path) -> None:
    """Every relative link is a file that exists, and every anchor a heading in it."""
    for target in re.findall(r"\]\(([^)\s]+)\)", path.read_text(encoding="utf-8")):
        if target.startswith(("http://", "https://", "mailto:")):
            continue
        name, _, anchor = unquote(target).partition("#")
        file = path.parent / name if name else path
        assert file.exists(), f"{path.name}: {target}"
        if anchor:
            headings = re.findall(r"^#+ (.*)$", file.read_text(encoding="utf-8"), re.MULTILINE)
            assert anchor in {re.sub(r"[^\w -]", "", h).lower().replace(" ", "-") for h in headings}, target


def test_make_targets_in_the_documents_exist(documents: str) -> None:
    """Whoever types what the documents say gets it."""
    makefile = (ROOT / "Makefile").read_text()
    targets = set(re.findall(r"^([a-z-]+):", makefile, re.MULTILINE))
    named = set(re.findall(r"(?:^|[`$] ?|^    )make ([a-z-]+)", documents, re.MULTILINE))
    assert {"demo", "test", "check"} <= named
    assert named <= targets


def test_every_marker_stands_in_the_documents(documents: str) -> None:
    """Whoever wants one kind of test finds what it shows."""
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["pytest"]["ini_options"]["markers"]
    for marker in declared:
        assert f"`{marker.partition(':')[0]}`" in documents, marker


def test_decisions_are_numbered_and_complete() -> None:
    """Each says its context, the options, the decision and the cost."""
    decisions = sorted((ROOT / "docs" / "adr").glob("*.md"))
    assert list(range(1, len(decisions) + 1)) == [int(path.name[:4]) for path in decisions]
    for path in decisions:
        headings = re.findall(r"^## (.*)$", path.read_text(encoding="utf-8"), re.MULTILINE)
        assert ["Context", "Options", "Decision", "What it costs"] == headings, path.name
