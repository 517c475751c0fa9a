"""Writes docs/api.md from the OpenAPI: the conventions, every kind of problem, every operation with its least role.

Example::

    python -m tools.api_page
"""

from __future__ import annotations

from pathlib import Path

from edgeopt_fleet.api.app import create_app
from edgeopt_fleet.api.responses import TYPE_PREFIX, kinds

__all__ = ["PAGE", "page"]

PAGE = Path(__file__).parent.parent / "docs" / "api.md"

_HEAD = """\
# The HTTP API

This page is made by `python -m tools.api_page` from the OpenAPI, which every fleet serves at `/openapi.json` with all
parameters, bodies, answers and examples. What the fields of bodies mean is said in the [protocol](protocol.md).

## Conventions

- **Who asks**: `Authorization: Bearer <key>`, the key of a user as in `operator.json`, or the bearer of a device's
  identity.
- **Refusals** are `application/problem+json` (RFC 9457): `type`, `title`, `status`, `detail`. Programs go by
  `type`.
- **Lists** come in pages: `limit` (100 if not given, 1000 at most) and `cursor`, the `next` of the page before;
  `next` is null on the last page. A page begins after the last row of the one before it, so what is added or
  removed meanwhile neither hides nor repeats anything. Filters are query parameters and must all hold. One that an
  operation does not have is refused (422, with those that it has): a misspelt filter would list everything.
- **ETags**: what can be changed (a cohort, a device's tags, a user, a rollout, a shadow) has a strong ETag.
  `If-None-Match` answers 304 without a body. A change with `If-Match` is made only if nobody changed the thing since
  it was read, else 412; the comparison and the change are one transaction.
- **Idempotency-Key**: any name that is used once, such as a UUID, with a POST of a user. The same request with the
  same key is carried out once; repeated within 24 hours it gets the same answer (`Idempotent-Replayed: true`), also
  from another API process, and after the server was killed at whatever moment: the change, its entry in the audit log
  and the answer are one transaction. With another request the key is refused (422), while the first one
  is being worked on, too (409). Answers are kept encrypted under the key and the bearer, which the database does
  not have. The commands of `edgeopt` that make a token, a user, a key, a rollout or a shadow send a random one each.
- **How often**: who asks too often gets 429 with `Retry-After` (seconds), `RateLimit-Policy` (`"user";q=1000;w=2`: so
  many requests in so many seconds; `user`, `address` or `enrolments`) and `RateLimit` (`"user";r=0;t=1`). What the
  limits are is a setting of the fleet. Each API process counts for itself. The commands of `edgeopt` wait.
- **Events**: `GET /api/v1/events?topic=rollouts` is a stream of server-sent events for live views. The first event
  is `ready`; its id is the present, so what is read after it misses nothing. Then each device, rollout, shadow or
  alert that changes is sent as the lists show it: states, not history, so what changes often is told as it is when the
  client takes it. `Last-Event-ID` goes on where a stream broke off, from the database: after a restart, and on
  another process. A comment comes every 15 s when nothing changes; a stream ends after `seconds` (a quarter of an
  hour at most), and the client comes again.

"""


def page() -> str:
    """Return the page as it is to be."""
    problems = [f"| `{TYPE_PREFIX}{kind}` | {status} | {title} |" for kind, status, title in kinds()]
    return "\n".join([
        _HEAD + "## Problems\n", "| type | status | title |", "|---|---|---|", *problems,
        "\n## Operations\n",
        "`edgeopt` commands call these by their `operationId`, which never changes.\n",
        "| operationId | call | least role | what |", "|---|---|---|---|", *_operations(), "",
    ])  # fmt: skip


def _operations() -> list[str]:
    schema = create_app(None).openapi()  # type: ignore[arg-type]  # its description only
    return [
        f"| `{operation['operationId']}` | `{method.upper()} {path}` | {operation.get('x-least-role', 'anyone')} | "
        f"{operation['summary']} |"
        for path, operations in schema["paths"].items()
        for method, operation in operations.items()
    ]


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
