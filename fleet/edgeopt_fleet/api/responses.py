"""How the OpenAPI tells of refusals, and how they are sent: problem+json (RFC 9457).

Example::

    @router.get("/devices/{device}", responses=problems(NotFoundError))
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from fastapi.responses import JSONResponse

from edgeopt_contract.errors import StorageError
from edgeopt_fleet.problems import (
    ForbiddenError,
    InvalidError,
    ProblemError,
    UnauthorizedError,
)

__all__ = [
    "PROBLEM_JSON",
    "TYPE_PREFIX",
    "Responses",
    "answer_problem",
    "describe",
    "kinds",
    "problems",
    "problems_of_all",
]

Responses = dict[int | str, dict[str, Any]]

PROBLEM_JSON = "application/problem+json"
TYPE_PREFIX = "urn:edgeopt:problem:"
_STORAGE = (507, "Storage failed", "storage-failed")
_UNEXPECTED = (500, "Unexpected", "unexpected")
_WHEN = {  # draft-ietf-httpapi-ratelimit-headers
    "Retry-After": {
        "description": "come again after so many seconds", "schema": {"type": "integer", "minimum": 1}, "example": 1
    },
    "RateLimit-Policy": {
        "description": "which limit: user, address or enrolments; so many requests (q) in so many seconds (w)",
        "schema": {"type": "string"},
        "example": '"user";q=1000;w=2',
    },
    "RateLimit": {
        "description": "what is left of it (r), and when there is more (t, seconds)",
        "schema": {"type": "string"},
        "example": '"user";r=0;t=1',
    },
}  # fmt: skip
_DETAILS = {  # an example for each kind
    "bad-request": "the body is not what its Content-Type says",
    "unauthorized": "expected 'Authorization: Bearer <key>'; it is missing or wrong",
    "forbidden": "this needs the role operator, you are a viewer; ask an admin",
    "not-found": "there is no device 'cam-9'",
    "method-not-allowed": "Method Not Allowed; see /openapi.json for what there is",
    "conflict": "rollout v2 is succeeded: it cannot be 'paused' now",
    "in-progress": "a request with this Idempotency-Key is being worked on; ask again in a moment",
    "precondition-failed": "If-Match: somebody changed it since; read it again, decide again",
    "too-large": "expected a body of at most 131072 bytes",
    "range-not-satisfiable": "expected a range inside the 200000 bytes of the file",
    "invalid": "waves: expected each percent above the one before, got [50, 20]",
    "idempotency-key-reused": "this Idempotency-Key came with another request before; use a new key for a new request",
    "rate-limited": "more than 200 requests a second with this key; wait 1 s",
    "unavailable": "the broker is not connected; try again in a moment",
    "unexpected": "the fleet failed; its log says more",
    "storage-failed": "the database failed: disk is full",
}


def problems(*refusals: type[ProblemError]) -> Responses:
    """Return the declaration of these refusals for the OpenAPI, by status."""
    by_status: dict[int, list[tuple[str, str]]] = {}
    for refusal in refusals:
        by_status.setdefault(refusal.status, []).append((refusal.kind, refusal.title))
    return {status: _declared(status, several) for status, several in by_status.items()}


def problems_of_all() -> Responses:
    """Return what any operation may answer."""
    return {
        **problems(UnauthorizedError, ForbiddenError, InvalidError),
        429: _declared(429, [("rate-limited", "Too many requests")]) | {"headers": _WHEN},
        500: _declared(500, [(_UNEXPECTED[2], _UNEXPECTED[1])]),
        503: _declared(503, [("unavailable", "Unavailable")]),
        507: _declared(507, [(_STORAGE[2], _STORAGE[1])]),
    }


def kinds() -> Iterator[tuple[str, int, str]]:
    """Yield kind, status and title of every problem there is, by status."""
    found = {(cls.kind, cls.status, cls.title) for cls in _descendants(ProblemError)}
    found |= {(kind, status, title) for status, title, kind in (_STORAGE, _UNEXPECTED)}
    found.add(("method-not-allowed", 405, "Method not allowed"))
    yield from sorted(found, key=lambda one: (one[1], one[0]))


def answer_problem(error: Exception, headers: Mapping[str, str] | None = None) -> JSONResponse:
    """Return the answer to a refusal, a failing disk, or something that nobody expected."""
    if isinstance(error, ProblemError):
        return describe(error.kind, error.status, error.title, str(error), headers)
    if isinstance(error, StorageError):
        return describe(_STORAGE[2], _STORAGE[0], _STORAGE[1], str(error), headers)
    return describe(_UNEXPECTED[2], _UNEXPECTED[0], _UNEXPECTED[1], _DETAILS["unexpected"], headers)


def describe(kind: str, status: int, title: str, detail: str, headers: Mapping[str, str] | None = None) -> JSONResponse:
    """Return a problem in so many words; what no text can hold is replaced."""
    content = _content(kind, status, title, detail.encode("utf-8", "replace").decode())
    return JSONResponse(content, status_code=status, headers=dict(headers or {}), media_type=PROBLEM_JSON)


def _content(kind: str, status: int, title: str, detail: str) -> dict[str, str | int]:
    return {"type": TYPE_PREFIX + kind, "title": title, "status": status, "detail": detail}


def _declared(status: int, several: list[tuple[str, str]]) -> dict[str, Any]:
    examples = {
        kind: {
            "value": {"type": TYPE_PREFIX + kind, "title": title, "status": status, "detail": _DETAILS.get(kind, title)}
        }
        for kind, title in several
    }
    return {
        "description": " or ".join(title for _, title in several),
        "content": {PROBLEM_JSON: {"schema": {"$ref": "#/components/schemas/Problem"}, "examples": examples}},
    }


def _descendants(cls: type[ProblemError]) -> Iterator[type[ProblemError]]:
    yield cls
    for child in cls.__subclasses__():
        yield from _descendants(child)
