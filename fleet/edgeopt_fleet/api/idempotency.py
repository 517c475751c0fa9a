"""Idempotency-Key: a POST that is sent twice is carried out once, and answered the same twice.

A router with this route class has it on every POST. Only answers that tell of success are kept: a refusal changed
nothing, and the same request may be right later. What :func:`answer_once` carries out is committed together with its
answer: a server that is killed in between loses both or neither. Example::

    router = APIRouter(route_class=IdempotentRoute)

    @router.post("/tokens", status_code=201, response_model=TokenView)
    async def create_token(request: Request, body: TokenRequest) -> Response:
        return await answer_once(request, lambda: TokenView.of(tokens.create(…)))
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Annotated, Any

from fastapi import Depends, Header, Request, Response
from fastapi.responses import JSONResponse
from fastapi.routing import APIRoute
from pydantic import BaseModel

from edgeopt_contract.values import canonical_json, digest_of
from edgeopt_fleet.api.responses import problems
from edgeopt_fleet.api.services import services_of
from edgeopt_fleet.problems import InProgressError, InvalidError, KeyReusedError
from edgeopt_fleet.store.idempotency import Answer, Ticket

__all__ = ["IdempotentRoute", "answer_once"]

_HEADER = "Idempotency-Key"
_LONGEST_KEY = 255
_KEPT_HEADERS = ("content-type", "etag", "location")


async def _documented(
    _key: Annotated[
        str | None,
        Header(
            alias=_HEADER,
            min_length=1,
            max_length=_LONGEST_KEY,
            description="a name for this request that is used once, such as a UUID: repeated within 24 hours, the "
            "request gets the same answer and is not carried out again",
            examples=["6f1c1f0e-2f5b-4b8e-9a55-6d1f0c4a8f10"],
        ),
    ] = None,
) -> None:
    """Name the header in the OpenAPI; :class:`IdempotentRoute` reads it."""


class IdempotentRoute(APIRoute):
    """A route whose POST answers are kept under the request's Idempotency-Key."""

    def __init__(self, path: str, endpoint: Callable[..., Any], **options: Any) -> None:
        if "POST" in (options.get("methods") or ()):
            options["dependencies"] = [*(options.get("dependencies") or ()), Depends(_documented)]
            declared = problems(InProgressError, InvalidError, KeyReusedError)
            options["responses"] = {**declared, **(options.get("responses") or {})}
        super().__init__(path, endpoint, **options)

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Return the handler, with the book of answers around it."""
        handle = super().get_route_handler()

        async def handle_once(request: Request) -> Response:
            key = request.headers.get(_HEADER)
            if request.method != "POST" or key is None:
                return await handle(request)
            return await _once(request, key, handle)

        return handle_once


async def answer_once(request: Request, act: Callable[[], BaseModel]) -> Response:
    """Carry out ``act``, which writes, and send what it returns, with the status that the route is declared with.

    It runs on a thread of the database, in one transaction with keeping its answer under the Idempotency-Key, if the
    request has one. What it does beside the database is to be done after this.
    """
    services, route = services_of(request), request.scope["route"]
    ticket: Ticket | None = getattr(request.state, "ticket", None)
    status, media_type = route.status_code or 200, JSONResponse.media_type

    def carry_out() -> bytes:
        with services.answers.together():
            body = act().model_dump_json().encode()
            if ticket is not None:
                headers = {"content-type": media_type}
                services.answers.keep(ticket, Answer(status=status, headers=headers, body=body))
        return body

    body = await services.serial(carry_out)
    request.state.ticket = None  # its answer is kept
    return Response(body, status, media_type=media_type)


async def _once(request: Request, key: str, handle: Callable[[Request], Coroutine[Any, Any, Response]]) -> Response:
    if not 0 < len(key) <= _LONGEST_KEY or not key.isprintable():
        raise InvalidError(f"{_HEADER}: expected 1 to {_LONGEST_KEY} printable characters")
    services = services_of(request)
    ticket = Ticket(
        bearer=request.headers.get("authorization", ""), key=key, request_sha256=await _digest_of_request(request)
    )
    kept = await services.serial(services.answers.begin, ticket, services.clock())
    if kept is not None:
        return Response(kept.body, kept.status, {**kept.headers, "Idempotent-Replayed": "true"})
    request.state.ticket = ticket
    try:
        response = await handle(request)
    except BaseException:
        await services.serial(services.answers.forget, ticket)
        raise
    if request.state.ticket is None:
        return response
    if 200 <= response.status_code < 300:
        headers = {name: response.headers[name] for name in _KEPT_HEADERS if name in response.headers}
        answer = Answer(status=response.status_code, headers=headers, body=bytes(response.body))
        await services.serial(services.answers.keep, ticket, answer)
    else:
        await services.serial(services.answers.forget, ticket)
    return response


async def _digest_of_request(request: Request) -> str:
    url = request.url
    condition = request.headers.get("if-match", "")  # asked under another condition it is another request
    asked = [request.method, url.path, url.query, condition, digest_of(await request.body())]
    return digest_of(canonical_json(asked))
