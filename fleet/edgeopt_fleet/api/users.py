"""Routes: users, their roles and their keys."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Request, Response

from edgeopt_fleet.api.access import actor_of
from edgeopt_fleet.api.etags import NOT_MODIFIED, TAGGED, IfMatch, tagged
from edgeopt_fleet.api.idempotency import IdempotentRoute, answer_once
from edgeopt_fleet.api.paging import Paging
from edgeopt_fleet.api.people_views import (
    MeView,
    NewKeyView,
    RevokeRequest,
    RoleRequest,
    RotateRequest,
    UserList,
    UserRequest,
    UserView,
)
from edgeopt_fleet.api.responses import problems
from edgeopt_fleet.api.services import services_of
from edgeopt_fleet.problems import ConflictError, NotFoundError, PreconditionFailedError
from edgeopt_fleet.store.users import User

__all__ = ["router"]

router = APIRouter(tags=["users"], route_class=IdempotentRoute)
UserName = Annotated[str, Path(description="of the user", examples=["alice"])]


@router.get("/me", operation_id="getMe", summary="Show who you are")
async def get_me(request: Request) -> MeView:
    """Show the user whose key this is, the role, and which key it is."""
    actor = actor_of(request)
    assert actor.role is not None  # the table of rights asks for one
    return MeView(name=actor.name, role=actor.role, prefix=actor.key)


@router.post(
    "/me/rotate", status_code=201, operation_id="rotateMyKey", summary="Replace your key", response_model=NewKeyView,
    responses=problems(ConflictError, NotFoundError),
)  # fmt: skip
async def rotate_my_key(request: Request, body: RotateRequest) -> Response:
    """Make a new key for yourself; the keys before it go on for the overlap."""
    return await rotate_key(request, actor_of(request).name, body)


@router.get("/users", operation_id="listUsers", summary="List users")
async def list_users(request: Request, page: Paging) -> UserList:
    """List users by name, with the beginnings of their keys."""
    services = services_of(request)
    after = page.after(str)
    name = "" if after is None else str(after[0])
    found = await services.serial.read(services.users.page, page.limit + 1, name)
    items = [UserView.of(user) for user in page.cut(found)]
    return UserList(items=items, next=page.next(found, lambda user: (user.row.name,)))


@router.post(
    "/users", status_code=201, operation_id="createUser", summary="Add a user", response_model=NewKeyView,
    responses=problems(ConflictError),
)  # fmt: skip
async def create_user(request: Request, body: UserRequest) -> Response:
    """Add a user with a role; the answer holds the key, which cannot be read again."""
    services = services_of(request)

    def create() -> NewKeyView:
        lifetime = body.expires_in_seconds
        return NewKeyView.of(services.users.create(body.name, body.role, services.clock(), lifetime_seconds=lifetime))

    return await answer_once(request, create)


@router.get(
    "/users/{name}", operation_id="getUser", summary="Show a user", response_model=UserView,
    responses=NOT_MODIFIED | problems(NotFoundError),
)  # fmt: skip
async def get_user(request: Request, name: UserName) -> Response:
    """Show one user."""
    services = services_of(request)
    return tagged(request, UserView.of(await services.serial.read(services.users.one, name)))


@router.put(
    "/users/{name}/role", operation_id="changeRole", summary="Give a user another role", response_model=UserView,
    responses=TAGGED | problems(NotFoundError, ConflictError, PreconditionFailedError),
)  # fmt: skip
async def change_role(request: Request, name: UserName, body: RoleRequest, match: IfMatch) -> Response:
    """Give a user another role; 409 when no admin would be left."""
    services = services_of(request)

    def check(present: User) -> None:
        match.check(UserView.of(present))

    await services.serial(services.users.change_role, name, body.role, services.clock(), check)
    return tagged(request, UserView.of(await services.serial.read(services.users.one, name)))


@router.post(
    "/users/{name}/rotate", status_code=201, operation_id="rotateKey", summary="Replace a user's key",
    response_model=NewKeyView, responses=problems(NotFoundError, ConflictError),
)  # fmt: skip
async def rotate_key(request: Request, name: UserName, body: RotateRequest) -> Response:
    """Make a new key for a user; the keys before it go on for the overlap, unless they end sooner."""
    services = services_of(request)

    def rotate() -> NewKeyView:
        made = services.users.rotate(
            name,
            services.clock(),
            overlap_seconds=body.overlap_seconds,
            lifetime_seconds=body.expires_in_seconds,
        )
        return NewKeyView.of(made)

    return await answer_once(request, rotate)


@router.post(
    "/users/{name}/revoke", operation_id="revokeUser", summary="Take a user or one key out", response_model=UserView,
    responses=problems(NotFoundError, ConflictError),
)  # fmt: skip
async def revoke_user(request: Request, name: UserName, body: RevokeRequest) -> Response:
    """Take one key out, or the user with all keys, at once; 409 when no admin would be left."""
    services = services_of(request)

    def revoke() -> UserView:
        services.users.revoke(name, services.clock(), prefix=body.prefix)
        return UserView.of(services.users.one(name))

    return await answer_once(request, revoke)
