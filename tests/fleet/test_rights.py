from __future__ import annotations

import itertools

import pytest

from edgeopt_fleet.rights import OPERATIONS, Caller, Role, least_for, operation_for

pytestmark = pytest.mark.rights


def test_each_role_may_do_what_the_ones_below_may() -> None:
    """Viewer, operator, approver, admin, in this order."""
    order = [Role.VIEWER, Role.OPERATOR, Role.APPROVER, Role.ADMIN]
    for (high, role), (low, other) in itertools.product(enumerate(order), repeat=2):
        assert (high >= low) == role.covers(other)


@pytest.mark.parametrize("operation", OPERATIONS)
def test_a_request_finds_its_own_entry(operation: str) -> None:
    """Also where another entry has a parameter at the same place; HEAD is GET."""
    method, path = operation.split(" ")
    concrete = "/".join("x.1" if part.startswith("{") else part for part in path.split("/"))
    assert operation == operation_for(method, concrete)
    if method == "GET":
        assert operation == operation_for("HEAD", concrete)


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("DELETE", "/api/v1/devices/cam-1"),
        ("GET", "/api/v1/devices/"),
        ("GET", "/api/v1//devices"),
        ("GET", "/api/v1/devices/cam-1/"),
        ("GET", "/API/v1/devices"),
        ("POST", "/healthz"),
        ("GET", "/healthz/x"),
        ("GET", "/"),
        ("GET", ""),
        ("OPTIONS", "/api/v1/tuf"),
    ],
)
def test_what_has_no_entry_is_for_admins(method: str, path: str) -> None:
    """A forgotten route, another method, another spelling: nothing is open by accident."""
    assert Role.ADMIN is least_for(method, path)


def test_what_needs_no_key_is_known() -> None:
    """Whoever opens another operation to everybody changes this list, too."""
    assert {
        "GET /openapi.json",
        "GET /healthz",
        "GET /readyz",
        "GET /metrics",
        "GET /api/v1/ca",
        "GET /api/v1/tuf",
        "POST /api/v1/devices/enrol",
        "POST /api/v1/devices/renew",
    } == {operation for operation, least in OPERATIONS.items() if least is Caller.ANYONE}


def test_nothing_that_changes_something_is_for_viewers_but_their_own_key() -> None:
    """Viewers look."""
    changing = {op for op, least in OPERATIONS.items() if least is Role.VIEWER and not op.startswith("GET ")}
    assert {"POST /api/v1/me/rotate"} == changing
