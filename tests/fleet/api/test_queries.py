"""Query parameters that an operation does not have: refused by every operation, with the names that it has."""

from __future__ import annotations

import re
from typing import Any

import pytest

from edgeopt_fleet.api.app import create_app
from tests.fleet.conftest import Api

SCHEMA: dict[str, Any] = create_app(None).openapi()  # type: ignore[arg-type]  # its description only
OPERATIONS = sorted((method.upper(), path) for path, operations in SCHEMA["paths"].items() for method in operations)


def concrete(path: str) -> str:
    """Return a path with something valid in the place of its parameters."""
    values = {"sha256": "0" * 64, "digest": "0" * 64, "prefix": "0000", "number": "7"}
    return re.sub(r"\{(\w+)\}", lambda match: values.get(match[1], "nothing-such"), path)


async def test_every_operation_refuses_what_it_does_not_know(api: Api) -> None:
    """422 that names the parameter and those that the OpenAPI has for the operation; nothing else is looked at."""
    device = api.kit.tokens.create(_grant(), api.kit.now)
    api.kit.identities.enrol(device, api.kit.enrolment("cam-1", bearer="bearer"), int(api.kit.now))
    for method, path in OPERATIONS:
        operation = SCHEMA["paths"][path][method.lower()]
        is_device = operation.get("x-least-role") == "device"
        headers = {"Authorization": "Bearer bearer"} if is_device else {}
        answer = await api.client.request(method, concrete(path), params={"lmit": "secret"}, headers=headers)
        assert 422 == answer.status_code, (method, path, answer.text)
        problem = answer.json()
        assert "urn:edgeopt:problem:invalid" == problem["type"]
        assert "'lmit'" in problem["detail"]
        assert "secret" not in problem["detail"]
        known = sorted(one["name"] for one in operation.get("parameters", ()) if one["in"] == "query")
        assert (", ".join(known) if known else "takes no parameters") in problem["detail"], (method, path)


def _grant() -> Any:
    from edgeopt_fleet.store.tokens import TokenGrant

    return TokenGrant(uses=1, expires_at=2**31)


@pytest.mark.parametrize(("wrong", "meant"), [("tags", "tag"), ("onlin", "online"), ("Limit", "limit")])
async def test_what_was_meant_is_named(api: Api, wrong: str, meant: str) -> None:
    """A filter that is misspelt does not list the whole fleet."""
    api.kit.enrol("cam-1")
    problem = await api.call("GET", "devices", 422, params={wrong: "1"})
    assert f"did you mean {meant!r}" in problem["detail"]


async def test_what_is_known_may_come_several_times(api: Api) -> None:
    """Lists of values stay lists."""
    api.kit.enrol("cam-1", site="oslo", line="2")
    found = await api.call("GET", "devices", 200, params=[("tag", "site=oslo"), ("tag", "line=2"), ("limit", "1")])
    assert ["cam-1"] == [item["id"] for item in found["items"]]
