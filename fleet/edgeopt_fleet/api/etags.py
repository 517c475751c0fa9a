"""Entity tags: answers that are not sent twice, and changes that overwrite nobody else's.

A tag is strong: the SHA-256 of the representation. A change carries the tag that was read in If-Match; the store calls
the check inside the transaction that changes, so of two operators who read the same, one gets 412. Example::

    @router.get("/cohorts/{name}", response_model=CohortView, responses=NOT_MODIFIED | problems(NotFoundError))
    async def get_cohort(request: Request, name: str) -> Response:
        return tagged(request, CohortView.of(...))

    @router.put("/cohorts/{name}", responses=problems(PreconditionFailedError))
    async def put_cohort(match: IfMatch, …): registry.put_cohort(…, check=lambda c: match.check(CohortView.of(c)))
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import Depends, Header, Request, Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel

from edgeopt_contract.values import digest_of
from edgeopt_fleet.api.views import DIGEST_EXAMPLE
from edgeopt_fleet.problems import InvalidError, PreconditionFailedError

__all__ = ["NOT_MODIFIED", "TAGGED", "IfMatch", "Match", "etag_of", "is_among", "tagged"]

_TAG_EXAMPLE = f'"{DIGEST_EXAMPLE[:32]}"'
_HEADER = {
    "ETag": {"description": "strong tag of this representation", "schema": {"type": "string"}, "example": _TAG_EXAMPLE}
}
TAGGED: dict[int | str, dict[str, Any]] = {200: {"headers": _HEADER}}  # of an operation that answers with a tag
NOT_MODIFIED: dict[int | str, dict[str, Any]] = {
    **TAGGED,
    304: {"description": "It is what If-None-Match names", "headers": _HEADER},
}


def etag_of(model: BaseModel) -> str:
    """Return the strong entity tag of ``model`` as it is sent."""
    return f'"{digest_of(_body(model))[:32]}"'


def tagged(request: Request, model: BaseModel, status: int = 200) -> Response:
    """Return ``model`` with its tag; 304 without a body when a GET's If-None-Match names the tag."""
    tag = etag_of(model)
    headers = {"ETag": tag}
    known = request.headers.get("if-none-match")
    if request.method == "GET" and known is not None and is_among(tag, known, weak=True):
        return Response(status_code=304, headers=headers)
    return Response(_body(model), status_code=status, media_type=JSONResponse.media_type, headers=headers)


def is_among(tag: str, header: str, *, weak: bool = False) -> bool:
    """Say whether ``tag`` is in a list of tags as If-Match and If-None-Match carry it (RFC 9110, section 13.1).

    ``weak`` compares weakly, as If-None-Match does: ``W/`` in front does not matter.
    """
    if header.strip() == "*":
        return True
    listed = [part.strip() for part in header.split(",")]
    return tag in ([part.removeprefix("W/") for part in listed] if weak else listed)


@dataclass(frozen=True, slots=True)
class Match:
    """The If-Match of a request; None: whatever is there may be changed."""

    header: str | None

    def check(self, present: BaseModel | None) -> None:
        """Raise :class:`PreconditionFailedError` unless ``present`` (None: nothing is there) is what was read."""
        if self.header is None:
            return
        if present is None:
            raise PreconditionFailedError("If-Match: there is nothing yet; leave the header out to create it")
        tag = etag_of(present)
        if not is_among(tag, self.header):
            raise PreconditionFailedError(
                f"If-Match: expected {tag}, got {self.header[:120]}: somebody changed it since; read it again, "
                "decide again"
            )


async def _match(
    if_match: Annotated[
        str | None,
        Header(
            alias="If-Match",
            max_length=1024,
            examples=[_TAG_EXAMPLE],
            description="the ETag that was read: 412 when somebody changed it since. Left out: not checked",
        ),
    ] = None,
) -> Match:
    if if_match is not None and not if_match.strip():
        raise InvalidError("If-Match: expected an ETag, got nothing")
    return Match(if_match)


IfMatch = Annotated[Match, Depends(_match)]


def _body(model: BaseModel) -> bytes:
    return model.model_dump_json().encode()
