"""What the API refuses, and as which HTTP problem (RFC 9457).

::

    UsageError
    └── ProblemError            any refusal; has a status and a title
        ├── NotFoundError       404  there is no such thing
        ├── ConflictError       409  the state of something does not allow it
        ├── ForbiddenError      403  the token does not allow it
        ├── UnauthorizedError   401  the key is missing or wrong
        ├── TooLargeError       413  the body is larger than what is asked for can be
        ├── RangeError          416  the range lies outside of the file
        └── InvalidError        422  the request is understood, but asks for something impossible
"""

from __future__ import annotations

from edgeopt_contract.errors import UsageError

__all__ = [
    "ConflictError",
    "ForbiddenError",
    "InvalidError",
    "NotFoundError",
    "ProblemError",
    "RangeError",
    "TooLargeError",
    "UnauthorizedError",
]


class ProblemError(UsageError):
    """A request that is refused; the message says what was expected, what came and what to do."""

    status = 400
    title = "Bad request"


class NotFoundError(ProblemError):
    """There is no such thing."""

    status = 404
    title = "Not found"


class ConflictError(ProblemError):
    """The state of something does not allow it."""

    status = 409
    title = "Conflict"


class ForbiddenError(ProblemError):
    """The token does not allow it."""

    status = 403
    title = "Forbidden"


class UnauthorizedError(ProblemError):
    """The operator's key is missing or wrong."""

    status = 401
    title = "Unauthorized"


class TooLargeError(ProblemError):
    """The body is larger than what is asked for can be."""

    status = 413
    title = "Too large"


class RangeError(ProblemError):
    """The range lies outside of the file."""

    status = 416
    title = "Range not satisfiable"


class InvalidError(ProblemError):
    """The request is understood, but asks for something impossible."""

    status = 422
    title = "Invalid request"
