"""The description of the API, the page that is made of it, and the commands that call it."""

from __future__ import annotations

import re
from importlib import import_module
from typing import Any

import click
import pytest
from jsonschema_rs import Draft202012Validator, ValidationError

from edgeopt.cli import COMMANDS
from edgeopt_fleet.api.app import create_app
from edgeopt_fleet.rights import Caller, least_for
from tools import api_page

SCHEMA: dict[str, Any] = create_app(None).openapi()  # type: ignore[arg-type]  # its description only
OPERATIONS = {
    operation["operationId"]: (method, path, operation)
    for path, operations in SCHEMA["paths"].items()
    for method, operation in operations.items()
}
GROUPS = ("devices", "cohorts", "bundles", "rollout", "shadow", "alerts", "audit", "users", "token")
VERBS = {  # each of the operator's commands, and the operation that it calls
    "devices list": "listDevices",
    "devices show": "getDevice",
    "devices reports": "listDeviceReports",
    "devices windows": "listDeviceWindows",
    "devices messages": "listDeviceMessages",
    "devices tags": "putDeviceTags",
    "devices revoke": "revokeDevice",
    "devices watch": "watchEvents",
    "cohorts create": "putCohort",
    "cohorts list": "listCohorts",
    "cohorts show": "getCohort",
    "cohorts delete": "deleteCohort",
    "bundles list": "listBundles",
    "bundles show": "getBundle",
    "rollout create": "createRollout",
    "rollout list": "listRollouts",
    "rollout show": "getRollout",
    "rollout watch": "getRollout",
    "rollout start": "startRollout",
    "rollout pause": "pauseRollout",
    "rollout resume": "resumeRollout",
    "rollout cancel": "cancelRollout",
    "rollout roll-back": "rollBackRollout",
    "rollout approve": "approveRollout",
    "rollout deny": "denyRollout",
    "rollout explain": "explainRollout",
    "rollout replay": "replayRollout",
    "rollout compare": "compareRollout",
    "rollout conclude": "concludeRollout",
    "shadow create": "createShadow",
    "shadow list": "listShadows",
    "shadow show": "getShadowAgreement",
    "shadow start": "startShadow",
    "shadow end": "endShadow",
    "shadow watch": "getShadow",
    "shadow replay": "replayShadow",
    "shadow promote": "createRollout",
    "alerts list": "listAlerts",
    "alerts show": "getAlert",
    "alerts close": "closeAlert",
    "audit list": "listAudit",
    "audit export": "exportAudit",
    "audit verify": "exportAudit",
    "users list": "listUsers",
    "users whoami": "getMe",
    "users create": "createUser",
    "users role": "changeRole",
    "users rotate": "rotateKey",
    "users revoke": "revokeUser",
    "token create": "createToken",
    "token list": "listTokens",
    "token revoke": "revokeToken",
}


def group(name: str) -> click.Group:
    """Return one of the operator's groups of commands."""
    import_module("edgeopt.cli.operate")  # adds commands to groups of other modules
    module, _, attribute = COMMANDS[name].location.partition(":")
    found = getattr(import_module(module), attribute)
    assert isinstance(found, click.Group)
    return found


@pytest.mark.parametrize("name", GROUPS)
def test_every_verb_is_one_operation(name: str) -> None:
    """Nothing can be done by command only, and no command is missing from the table."""
    verbs = {f"{name} {verb}" for verb in group(name).commands}
    assert {verb for verb in VERBS if verb.split()[0] == name} >= verbs, "name the operation that it calls"
    for verb in verbs:
        assert VERBS[verb] in OPERATIONS, verb


@pytest.mark.parametrize("name", GROUPS)
def test_every_verb_has_json_and_an_example(name: str) -> None:
    """Machines and newcomers are both served."""
    for verb, command in group(name).commands.items():
        assert any("--json" in parameter.opts for parameter in command.params), verb
        assert "Example:" in (command.epilog or ""), verb


@pytest.mark.parametrize("name", sorted(OPERATIONS))
def test_every_operation_is_described(name: str) -> None:
    """A stable name, a summary, a description, a section, who may call it, and each refusal as problem+json."""
    method, path, operation = OPERATIONS[name]
    assert re.fullmatch(r"[a-z]+([A-Z][a-z]+)+", name)
    assert operation["summary"]
    assert operation["description"]
    assert set(operation["tags"]) <= {tag["name"] for tag in SCHEMA["tags"]}
    least = least_for(method.upper(), path)
    assert (least is Caller.ANYONE) == (operation["security"] == [])
    assert "default" not in operation["responses"]
    for status, answer in operation["responses"].items():
        if int(status) >= 400 and path.startswith("/api"):
            assert ["application/problem+json"] == list(answer["content"]), (name, status)


_NOTHING: tuple[Any, ...] = (None, "", [], {})  # as a default they show nothing


def shows(described: dict[str, Any]) -> bool:
    """Say whether a reader sees what a value looks like: here, by its default, or at the schema that it names."""
    if {"example", "examples", "enum", "const", "$ref"} & set(described) or described.get("default") not in _NOTHING:
        return True
    inner = [described.get(name) for name in ("schema", "items", "additionalProperties")] + described.get("anyOf", [])
    return any(shows(one) for one in inner if isinstance(one, dict))


@pytest.mark.parametrize(
    ("described", "seen"),
    [
        ({"type": "integer"}, False),
        ({"type": "integer", "default": 0}, True),
        ({"type": "string", "default": ""}, False),
        ({"type": "string", "examples": ["cam-7"]}, True),
        ({"anyOf": [{"type": "boolean"}, {"type": "null"}]}, False),
        ({"anyOf": [{"$ref": "#/components/schemas/Health"}, {"type": "null"}]}, True),
        ({"type": "array", "items": {"type": "string"}}, False),
        ({"in": "query", "schema": {"type": "string"}}, False),
        ({"in": "query", "schema": {"type": "string", "enum": ["open"]}}, True),
    ],
)
def test_an_example_is_told_from_none(described: dict[str, Any], *, seen: bool) -> None:
    """The tests below can fail."""
    assert seen is shows(described)


def test_every_field_shows_what_it_looks_like() -> None:
    """Each field of each body and answer has an example, few values, or a default that says something."""
    without = [
        f"{name}.{field}"
        for name, schema in SCHEMA["components"]["schemas"].items()
        for field, described in schema.get("properties", {"itself": schema}).items()
        if not shows(described)
    ]
    assert [] == without


@pytest.mark.parametrize("name", sorted(OPERATIONS))
def test_every_parameter_shows_what_it_looks_like(name: str) -> None:
    """In the path, the query and the headers; a body that is no model names its message in docs/protocol.md."""
    _, _, operation = OPERATIONS[name]
    headers = [header for answer in operation["responses"].values() for header in answer.get("headers", {}).items()]
    asked = [(parameter["name"], parameter) for parameter in operation.get("parameters", [])]
    assert [] == [name for name, described in asked + headers if not shows(described)]


def check_examples(described: dict[str, Any], schema: dict[str, Any]) -> int:
    """Hold the examples of ``described`` against ``schema``; return how many there are."""
    held = Draft202012Validator({**schema, "components": SCHEMA["components"]})
    for example in (examples := described.get("examples", ())):
        held.validate(example)
    return len(examples)


def test_every_example_could_be() -> None:
    """What a field or a parameter shows, its own schema allows."""
    schemas = SCHEMA["components"]["schemas"].values()
    fields = [field for schema in schemas for field in schema.get("properties", {}).values()]
    asked = [one["schema"] for _, _, operation in OPERATIONS.values() for one in operation.get("parameters", [])]
    assert sum(check_examples(described, described) for described in fields + asked) > 300


def test_an_example_that_could_not_be_is_found() -> None:
    """The test above can fail."""
    with pytest.raises(ValidationError):
        check_examples({"examples": ["often"]}, {"type": "integer"})


def test_lists_have_pages() -> None:
    """Each answer with items can be asked for in pages, and says where the next begins.

    But a device's few spool sessions, and what the gate saw and says again of one rollout, which are documents.
    """
    whole = ("listDeviceMessages", "explainRollout", "replayRollout", "replayShadow")
    for name, (_, _, operation) in OPERATIONS.items():
        reference = (
            operation["responses"].get("200", {}).get("content", {}).get("application/json", {}).get("schema", {})
        )
        model = SCHEMA["components"]["schemas"].get(reference.get("$ref", "").rpartition("/")[2], {})
        if "items" in model.get("properties", {}) and name not in whole:
            assert {"limit", "cursor"} <= {parameter["name"] for parameter in operation["parameters"]}, name
            assert "next" in model["properties"], name


def test_posts_of_people_are_carried_out_once() -> None:
    """Every POST that needs a role takes an Idempotency-Key."""
    for name, (method, path, operation) in OPERATIONS.items():
        if method == "post" and least_for("POST", path) not in tuple(Caller):
            assert "Idempotency-Key" in {parameter["name"] for parameter in operation["parameters"]}, name


def test_the_page_is_that_of_the_description() -> None:
    """docs/api.md was made from the OpenAPI as it is."""
    assert api_page.page() == api_page.PAGE.read_text(encoding="utf-8"), "run: python -m tools.api_page"
