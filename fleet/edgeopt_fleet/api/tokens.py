"""Routes: tokens with which devices enrol."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Request, Response

from edgeopt_contract.enrolment import EnrolToken
from edgeopt_fleet.api.idempotency import IdempotentRoute, answer_once
from edgeopt_fleet.api.paging import Paging
from edgeopt_fleet.api.people_views import TokenItem, TokenList, TokenRequest, TokenView
from edgeopt_fleet.api.responses import problems
from edgeopt_fleet.api.services import services_of
from edgeopt_fleet.problems import NotFoundError
from edgeopt_fleet.store.tokens import TokenGrant, token_id

__all__ = ["router"]

router = APIRouter(tags=["tokens"], route_class=IdempotentRoute)


@router.post(
    "/tokens",
    status_code=201,
    operation_id="createToken",
    summary="Make a token",
    response_model=TokenView,
    responses=problems(NotFoundError),
)
async def create_token(request: Request, body: TokenRequest) -> Response:
    """Make a token that enrols devices; the answer holds it, and it cannot be read again."""
    services = services_of(request)
    now = services.clock()
    expires_at = int(now) + body.expires_in_seconds
    grant = TokenGrant(uses=body.uses, expires_at=expires_at, tags=body.tags, cohort=body.cohort)

    def create() -> TokenView:
        secret = services.tokens.create(grant, now)
        token = EnrolToken(secret=secret, fingerprint=services.authority.fingerprint)
        return TokenView(id=token_id(secret), token=str(token), expires_at=expires_at)

    return await answer_once(request, create)


@router.get("/tokens", operation_id="listTokens", summary="List tokens")
async def list_tokens(request: Request, page: Paging) -> TokenList:
    """List tokens, newest first, without their secrets."""
    services = services_of(request)
    after = page.after(int, str)
    found = await services.serial.read(
        services.tokens.page, page.limit + 1, None if after is None else (int(after[0]), str(after[1]))
    )
    items = [TokenItem.of(row) for row in page.cut(found)]
    return TokenList(items=items, next=page.next(found, lambda row: (row.created_at, row.sha256)))


@router.post(
    "/tokens/{token}/revoke",
    operation_id="revokeToken",
    summary="Revoke a token",
    response_model=TokenItem,
    responses=problems(NotFoundError),
)
async def revoke_token(
    request: Request, token: Annotated[str, Path(description="its id", examples=["3fa94c0d1e2b5a68"])]
) -> Response:
    """Make a token worthless, by its id; devices that enrolled with it stay."""
    services = services_of(request)
    return await answer_once(request, lambda: TokenItem.of(services.tokens.revoke(token, services.clock())))
