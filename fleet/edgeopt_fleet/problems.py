"""What the API refuses, and as which HTTP problem (RFC 9457).

Each kind has a type URI, ``urn:edgeopt:problem:<kind>``, by which programs tell them apart; docs/api.md lists them.

::

    UsageError
    └── ProblemError                     any refusal; has a kind, a status and a title
        ├── UnauthorizedError            401  the key is missing or wrong
        ├── ForbiddenError               403  the token or the role does not allow it
        ├── NotFoundError                404  there is no such thing
        ├── ConflictError                409  the state of something does not allow it
        │   └── InProgressError          409  the same request is being worked on
        ├── PreconditionFailedError      412  somebody changed it since it was read
        ├── TooLargeError                413  the body is larger than what is asked for can be
        ├── RangeError                   416  the range lies outside of the file
        ├── InvalidError                 422  the request is understood, but asks for something impossible
        │   └── KeyReusedError           422  the Idempotency-Key came with another request before
        ├── BusyError                    503  too many do the same already
        └── RateLimitedError             429  too many requests; when to come again
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from edgeopt_contract.errors import UsageError

__all__ = [
    "BusyError",
    "ConflictError",
    "ForbiddenError",
    "InProgressError",
    "InvalidError",
    "KeyReusedError",
    "NotFoundError",
    "PreconditionFailedError",
    "ProblemError",
    "RangeError",
    "RateLimitedError",
    "TooLargeError",
    "UnauthorizedError",
]


class ProblemError(UsageError):
    """A request that is refused; the message says what was expected, what came and what to do."""

    kind: ClassVar[str] = "bad-request"
    status: ClassVar[int] = 400
    title: ClassVar[str] = "Bad request"


class UnauthorizedError(ProblemError):
    """The key is missing or wrong."""

    kind = "unauthorized"
    status = 401
    title = "Unauthorized"


class ForbiddenError(ProblemError):
    """The token or the role does not allow it."""

    kind = "forbidden"
    status = 403
    title = "Forbidden"


class NotFoundError(ProblemError):
    """There is no such thing."""

    kind = "not-found"
    status = 404
    title = "Not found"


class ConflictError(ProblemError):
    """The state of something does not allow it."""

    kind = "conflict"
    status = 409
    title = "Conflict"


class InProgressError(ConflictError):
    """A request with the same Idempotency-Key is being worked on; its answer can be had in a moment."""

    kind = "in-progress"
    title = "In progress"


class PreconditionFailedError(ProblemError):
    """If-Match names another representation than the present one: somebody changed it since it was read."""

    kind = "precondition-failed"
    status = 412
    title = "Precondition failed"


class TooLargeError(ProblemError):
    """The body is larger than what is asked for can be."""

    kind = "too-large"
    status = 413
    title = "Too large"


class RangeError(ProblemError):
    """The range lies outside of the file."""

    kind = "range-not-satisfiable"
    status = 416
    title = "Range not satisfiable"


class InvalidError(ProblemError):
    """The request is understood, but asks for something impossible."""

    kind = "invalid"
    status = 422
    title = "Invalid request"


class KeyReusedError(InvalidError):
    """The Idempotency-Key came with another request before: one of the two is not what was meant."""

    kind = "idempotency-key-reused"
    title = "Idempotency-Key reused"


class RateLimitedError(ProblemError):
    """Too many requests with a key or from an address; ``headers`` say which limit it is and when to come again."""

    kind = "rate-limited"
    status = 429
    title = "Too many requests"

    def __init__(self, message: str, headers: Mapping[str, str]) -> None:
        super().__init__(message)
        self.headers = headers


class BusyError(ProblemError):
    """Too many do the same already, or what is asked for is not ready."""

    kind = "unavailable"
    status = 503
    title = "Unavailable"
