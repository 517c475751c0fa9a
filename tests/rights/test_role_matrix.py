"""Every kind of caller against every operation of the OpenAPI: let in or refused as the table of rights says."""

from __future__ import annotations

import json
import re

import pytest

from edgeopt_fleet.api.app import create_app
from edgeopt_fleet.rights import OPERATIONS, Caller, Role
from tests.rights.conftest import People

pytestmark = [pytest.mark.rights, pytest.mark.parametrize("backend", ["sqlite"], indirect=True)]

STRANGERS = ("no key", "nothing", "not ASCII", "cut short", "expired", "revoked", "rotated", "revoked device")
METHODS = ("GET", "PUT", "POST", "DELETE", "PATCH", "OPTIONS")


def described() -> set[str]:
    """Every operation of the OpenAPI, like ``GET /api/v1/devices``."""
    paths = create_app(None).openapi()["paths"]  # type: ignore[arg-type]  # only its description is looked at
    return {f"{method.upper()} {path}" for path, calls in paths.items() for method in calls}


def concrete(path: str) -> str:
    """Return a path with something in the place of its parameters."""
    return re.sub(r"\{(\w+)\}", lambda match: "0" * 64 if match[1] in ("sha256", "digest") else "nothing-such", path)


def test_the_table_and_the_openapi_name_the_same_operations(backend: str) -> None:
    """No operation without an entry, no entry without an operation."""
    assert described() == set(OPERATIONS) - {"GET /openapi.json"}


async def test_every_caller_is_let_in_or_refused_as_the_table_says(people: People) -> None:
    """401 for who is nobody here, 403 for who has too low a role, naming the one that is needed; the others pass."""
    counts = {"allowed": 0, 401: 0, 403: 0}
    for operation in sorted({*described(), "GET /openapi.json"}):
        method, path = operation.split(" ")
        least = OPERATIONS[operation]
        for who in people.keys:
            answer = await people.ask(who, method, concrete(path), b"{}")
            wanted = expected(who, least)
            got = answer.status if answer.status in (401, 403) else "allowed"
            assert wanted == got, f"{who}: {operation}: {answer.status} {answer.body[:200]!r}"
            counts[wanted] += 1
            if wanted != "allowed":
                problem = json.loads(answer.body)
                assert "application/problem+json" == answer.headers["content-type"]
                assert wanted == problem["status"]
                assert not answer.body_read, f"{operation}: refused only after the body was read"
                assert (wanted == 401) == ("www-authenticate" in answer.headers)
            if wanted == 403:
                assert f"needs the role {least}" in problem["detail"]
            assert 405 != answer.status
    print(f"\n{len(people.keys)} callers x {len(OPERATIONS)} operations: {counts}")


def expected(who: str, least: Role | Caller) -> int | str:
    """What the table means for one caller, in words of HTTP."""
    if least is Caller.ANYONE:
        return "allowed"
    if least is Caller.DEVICE:
        return "allowed" if who == "device" else 401
    if who in (*STRANGERS, "device"):
        return 401
    return "allowed" if list(Role).index(Role(who)) >= list(Role).index(Role(least)) else 403


async def test_what_is_not_in_the_table_tells_strangers_nothing(people: People) -> None:
    """Other methods and other paths: strangers cannot even learn what there is; an admin gets 404 or 405."""
    known = described()
    paths = {operation.split(" ")[1] for operation in known}
    others = {(method, concrete(path)) for path in paths for method in METHODS}
    others |= {("GET", path) for path in ("/", "/api/v1", "/api/v1/secrets", "/api/v2/devices", "/docs", "/redoc")}
    others |= {("GET", "/api/v1/devices/"), ("GET", "/api/v1/users/../tuf"), ("GET", "/api/v1//tuf")}
    served = [re.compile(re.sub(r"\{\w+\}", "[^/]+", operation)) for operation in known]
    for method, path in sorted(others):
        if any(pattern.fullmatch(f"{method} {path}") for pattern in served):
            continue
        for who in ("no key", "device", "viewer", "approver"):
            answer = await people.ask(who, method, path, b"{}")
            assert (403 if who in ("viewer", "approver") else 401) == answer.status, f"{who}: {method} {path}"
        answer = await people.ask("admin", method, path, b"{}")
        assert answer.status in (307, 404, 405), f"{method} {path}: {answer.status}"
    print(f"\n{len(others)} requests, of which those that nobody serves are closed to all but admins")


async def test_a_key_is_nowhere_but_in_the_header(people: People) -> None:
    """A key in the query, as a password, in a cookie or under another scheme opens nothing."""
    key = people.keys["admin"]
    answer = await people.ask("no key", "GET", f"/api/v1/users?key={key}&access_token={key}")
    assert 401 == answer.status
    assert str(key).encode() not in answer.body
