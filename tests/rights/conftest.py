"""People with keys before the API of the fleet's tests."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from edgeopt_fleet.api.app import create_app
from edgeopt_fleet.rights import Role
from tests.fleet.conftest import Api, Kit, api, kit

__all__ = ["api", "kit"]

DEADLINE = 30.0


def app_of(api: Api, **changes: Any) -> FastAPI:
    """Return the application over the same services, some of them changed."""
    transport = api.client._transport
    assert isinstance(transport, httpx.ASGITransport)
    old = transport.app
    assert isinstance(old, FastAPI)
    app = create_app(dataclasses.replace(old.state.services, **changes))
    app.state.operations = old.state.operations
    return app


@dataclass
class Answer:
    """The beginning of an answer, and whether the request's body was asked for."""

    status: int
    headers: Mapping[str, str]
    body: bytes = b""
    body_read: bool = False


async def ask(
    app: FastAPI, method: str, path: str, key: str | None = None, body: bytes = b"", *, address: str = "203.0.113.7"
) -> Answer:
    """Make one request without any client in between; of an endless answer only the beginning is taken."""
    headers = [(b"host", b"fleet.test"), (b"content-type", b"application/json")]
    if key is not None:
        headers.append((b"authorization", f"Bearer {key}".encode("latin-1", "replace")))
    path, _, query = path.partition("?")
    scope = {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": method, "path": path,
        "raw_path": path.encode(), "query_string": query.encode(), "headers": headers, "scheme": "http",
        "client": (address, 50000), "server": ("fleet.test", 80), "root_path": "", "state": {},
    }  # fmt: skip
    answer = Answer(0, {})
    begun, left = asyncio.Event(), asyncio.Event()
    given = False

    async def receive() -> dict[str, Any]:
        nonlocal given
        answer.body_read = True
        if not given:
            given = True
            return {"type": "http.request", "body": body, "more_body": False}
        await left.wait()
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        if message["type"] == "http.response.start":
            answer.status = message["status"]
            answer.headers = {name.decode(): value.decode() for name, value in message["headers"]}
        else:
            answer.body += message.get("body", b"")
            begun.set()

    async with asyncio.timeout(DEADLINE):
        task = asyncio.create_task(app(scope, receive, send))
        waiting = asyncio.create_task(begun.wait())
        endless = "text/event-stream"
        await asyncio.wait((task, waiting), return_when=asyncio.FIRST_COMPLETED)
        if answer.headers.get("content-type", "").startswith(endless):
            left.set()
            task.cancel()
        waiting.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
    return answer


@dataclass
class People:
    """An API and a key of each kind."""

    api: Api
    app: FastAPI
    keys: dict[str, str | None] = field(default_factory=dict)

    def with_services(self, **changes: Any) -> People:
        """Return the same people before an API whose services differ."""
        return People(self.api, app_of(self.api, **changes), self.keys)

    @property
    def kit(self) -> Kit:
        """The stores."""
        return self.api.kit

    async def ask(self, who: str, method: str, path: str, body: bytes = b"", **options: Any) -> Answer:
        """Make a request as one of them."""
        return await ask(self.app, method, path, self.keys[who], body, **options)


@pytest.fixture
async def people(api: Api) -> People:
    """One user of each role, and everybody who must not get in."""
    kit, keys = api.kit, {}
    for role in Role:
        keys[str(role)] = kit.users.create(str(role), role, kit.now).key
    keys["expired"] = kit.users.create("late", Role.ADMIN, kit.now - 100, lifetime_seconds=60).key
    keys["revoked"] = kit.users.create("gone", Role.ADMIN, kit.now).key
    kit.users.revoke("gone", kit.now)
    rotated = kit.users.create("careful", Role.ADMIN, kit.now)
    keys["rotated"] = rotated.key
    kit.users.rotate("careful", kit.now, overlap_seconds=0)
    keys["cut short"] = keys["admin"][:-1]
    keys["no key"] = None
    keys["nothing"] = ""
    keys["not ASCII"] = "eok_ÿ\udcff"
    for device in ("cam-1", "cam-2"):
        token = kit.tokens.create(kit_grant(), kit.now)
        kit.identities.enrol(token, kit.enrolment(device, bearer=f"bearer of {device}"), int(kit.now))
    kit.identities.revoke("cam-2", int(kit.now))
    keys["device"], keys["revoked device"] = "bearer of cam-1", "bearer of cam-2"
    return People(api, app_of(api), keys)


def kit_grant() -> Any:
    """Return a token for one device."""
    from edgeopt_fleet.store.tokens import TokenGrant

    return TokenGrant(uses=1, expires_at=2**31)
