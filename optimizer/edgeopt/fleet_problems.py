"""What a fleet says when it refuses, in its own words (RFC 9457), with what to do about it.

Example::

    raise refusal(response)          # UsageError: the fleet refuses: there is no device 'cam-9'
"""

from __future__ import annotations

import httpx
import msgspec

from edgeopt_contract.errors import UsageError

__all__ = ["detail", "refusal"]


def refusal(response: httpx.Response) -> UsageError:
    """Return the error of an answer of the 400s, whose body was read."""
    advice = ""
    if response.status_code == httpx.codes.UNAUTHORIZED:
        advice = "; use the operator.json that 'edgeopt-fleet init' wrote for this fleet"
    return UsageError(f"the fleet refuses: {detail(response)}{advice}")


def detail(response: httpx.Response) -> str:
    """Return a problem's own words, or the status when it has none."""
    try:
        problem = msgspec.json.decode(response.content)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        problem = None
    if isinstance(problem, dict):
        for member in ("detail", "title"):
            if isinstance(problem.get(member), str) and problem[member]:
                return str(problem[member])
    return f"HTTP {response.status_code} {response.reason_phrase}".strip()
