"""Who may do what: the roles of people, and the least role of every operation in one table.

A role may do all that the roles below it may. What has no entry in the table is for admins only, so a forgotten entry
opens nothing; a test compares the table with the OpenAPI. Pure: no I/O. Example::

    needed = least_for("POST", "/api/v1/rollouts/v2/approve")     # Role.APPROVER
    Role.OPERATOR.covers(needed)                                    # False
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum

__all__ = ["OPERATIONS", "Caller", "Role", "least_for", "least_of", "operation_for"]


class Role(StrEnum):
    """What a person is to the fleet; each may do all that the one before it may."""

    VIEWER = "viewer"  # sees everything but people
    OPERATOR = "operator"  # publishes bundles, enrols and revokes devices, runs rollouts
    APPROVER = "approver"  # lets another's rollout go, or denies it
    ADMIN = "admin"  # decides who may do what

    def covers(self, other: Role) -> bool:
        """Say whether this role may do what ``other`` may."""
        order = list(Role)
        return order.index(self) >= order.index(other)


class Caller(StrEnum):
    """Who is no person with a role."""

    ANYONE = "anyone"  # no key is asked for
    DEVICE = "device"  # by the bearer of its identity


_API = "/api/v1"

OPERATIONS: Mapping[str, Role | Caller] = {
    "GET /openapi.json": Caller.ANYONE,
    "GET /healthz": Caller.ANYONE,
    "GET /readyz": Caller.ANYONE,
    "GET /metrics": Caller.ANYONE,  # counts only; keep it from the internet with the proxy in front
    # what devices call
    f"GET {_API}/ca": Caller.ANYONE,
    f"GET {_API}/tuf": Caller.ANYONE,
    f"POST {_API}/devices/enrol": Caller.ANYONE,  # by the token in the body
    f"POST {_API}/devices/renew": Caller.ANYONE,  # by the signature in the body
    f"GET {_API}/blocks/{{sha256}}": Caller.DEVICE,
    f"GET {_API}/bundles/{{digest}}/files/{{path}}": Caller.DEVICE,
    # devices, tokens and cohorts
    f"GET {_API}/devices": Role.VIEWER,
    f"GET {_API}/devices/{{device}}": Role.VIEWER,
    f"GET {_API}/devices/{{device}}/messages": Role.VIEWER,
    f"GET {_API}/devices/{{device}}/reports": Role.VIEWER,
    f"GET {_API}/devices/{{device}}/windows": Role.VIEWER,
    f"GET {_API}/devices/{{device}}/tags": Role.VIEWER,
    f"PUT {_API}/devices/{{device}}/tags": Role.OPERATOR,
    f"POST {_API}/devices/{{device}}/revoke": Role.OPERATOR,
    f"GET {_API}/tokens": Role.OPERATOR,
    f"POST {_API}/tokens": Role.OPERATOR,
    f"POST {_API}/tokens/{{token}}/revoke": Role.OPERATOR,
    f"GET {_API}/cohorts": Role.VIEWER,
    f"GET {_API}/cohorts/{{name}}": Role.VIEWER,
    f"PUT {_API}/cohorts/{{name}}": Role.OPERATOR,
    f"DELETE {_API}/cohorts/{{name}}": Role.OPERATOR,
    # bundles; what may be installed is said by the targets keys, not by who hands it in
    f"GET {_API}/bundles": Role.VIEWER,
    f"GET {_API}/bundles/{{prefix}}": Role.VIEWER,
    f"POST {_API}/bundles": Role.OPERATOR,
    f"PUT {_API}/blocks/{{sha256}}": Role.OPERATOR,
    f"GET {_API}/tuf/signing": Role.VIEWER,
    f"PUT {_API}/tuf/root": Role.OPERATOR,
    f"PUT {_API}/tuf/targets": Role.OPERATOR,
    # rollouts, shadows and alerts
    f"GET {_API}/rollouts": Role.VIEWER,
    f"GET {_API}/rollouts/{{name}}": Role.VIEWER,
    f"GET {_API}/rollouts/{{name}}/explanation": Role.VIEWER,
    f"GET {_API}/rollouts/{{name}}/replay": Role.VIEWER,
    f"GET {_API}/rollouts/{{name}}/comparison": Role.VIEWER,
    f"POST {_API}/rollouts/{{name}}/conclude": Role.OPERATOR,
    f"POST {_API}/rollouts": Role.OPERATOR,
    f"POST {_API}/rollouts/dry-run": Role.OPERATOR,
    f"POST {_API}/rollouts/{{name}}/start": Role.OPERATOR,
    f"POST {_API}/rollouts/{{name}}/pause": Role.OPERATOR,
    f"POST {_API}/rollouts/{{name}}/resume": Role.OPERATOR,
    f"POST {_API}/rollouts/{{name}}/cancel": Role.OPERATOR,
    f"POST {_API}/rollouts/{{name}}/roll-back": Role.OPERATOR,
    f"POST {_API}/rollouts/{{name}}/approve": Role.APPROVER,
    f"POST {_API}/rollouts/{{name}}/deny": Role.APPROVER,
    f"GET {_API}/shadows": Role.VIEWER,
    f"GET {_API}/shadows/{{name}}": Role.VIEWER,
    f"GET {_API}/shadows/{{name}}/agreement": Role.VIEWER,
    f"GET {_API}/shadows/{{name}}/looks": Role.VIEWER,
    f"POST {_API}/shadows": Role.OPERATOR,
    f"POST {_API}/shadows/{{name}}/start": Role.OPERATOR,
    f"POST {_API}/shadows/{{name}}/end": Role.OPERATOR,
    f"GET {_API}/alerts": Role.VIEWER,
    f"GET {_API}/alerts/{{number}}": Role.VIEWER,
    f"POST {_API}/alerts/{{number}}/close": Role.OPERATOR,
    f"GET {_API}/events": Role.VIEWER,
    # people
    f"GET {_API}/me": Role.VIEWER,
    f"POST {_API}/me/rotate": Role.VIEWER,  # one's own key
    f"GET {_API}/users": Role.ADMIN,
    f"POST {_API}/users": Role.ADMIN,
    f"GET {_API}/users/{{name}}": Role.ADMIN,
    f"PUT {_API}/users/{{name}}/role": Role.ADMIN,
    f"POST {_API}/users/{{name}}/rotate": Role.ADMIN,
    f"POST {_API}/users/{{name}}/revoke": Role.ADMIN,
    f"GET {_API}/audit": Role.VIEWER,
    f"GET {_API}/audit/export": Role.VIEWER,
}

_Parts = tuple[str, ...]


def _parts(operation: str) -> _Parts:
    method, _, path = operation.partition(" ")
    return (method, *path.split("/"))


def _is_parameter(part: str) -> bool:
    return part.startswith("{")


def _most_literal_first(operation: str) -> tuple[bool, ...]:
    return tuple(_is_parameter(part) for part in _parts(operation))


_LITERAL = 5  # so many parts of every operation are no parameters: GET, "", api, v1, blocks


def _place(parts: _Parts) -> tuple[int, _Parts]:
    """Return where the operations stand that a request of these parts may be: few, for every request asks."""
    return len(parts), parts[:_LITERAL]


_BY_PLACE: dict[tuple[int, _Parts], list[tuple[str, _Parts]]] = {}
for _operation in sorted(OPERATIONS, key=_most_literal_first):
    _BY_PLACE.setdefault(_place(_parts(_operation)), []).append((_operation, _parts(_operation)))


def operation_for(method: str, path: str) -> str | None:
    """Return the entry of the table for a request, the one with the most literal path; ``None`` when none fits."""
    wanted = ("GET" if method == "HEAD" else method, *path.split("/"))
    for operation, parts in _BY_PLACE.get(_place(wanted), ()):
        if all(part == have or (_is_parameter(part) and have) for part, have in zip(parts, wanted, strict=True)):
            return operation
    return None


def least_for(method: str, path: str) -> Role | Caller:
    """Return who may call this, at least; what has no entry is for admins."""
    return least_of(operation_for(method, path))


def least_of(operation: str | None) -> Role | Caller:
    """Return who may call an entry of the table, at least; None stands for what has no entry."""
    return Role.ADMIN if operation is None else OPERATIONS[operation]
