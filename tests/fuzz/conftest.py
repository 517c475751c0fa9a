"""A served fleet with real data in it, for tests that throw whatever they can think of at it."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import uvicorn
from fastapi import FastAPI

from edgeopt_contract.messages import DeviceState
from edgeopt_fleet.api.rollout_views import RolloutRequest
from edgeopt_fleet.filters import DeviceFilter, Health
from edgeopt_fleet.rights import Role
from edgeopt_fleet.rollout import Wave
from edgeopt_fleet.serial import Serial
from edgeopt_fleet.store.alarms import Alarm, raise_alarm
from edgeopt_fleet.store.database import Database
from edgeopt_fleet.store.inbox import Incoming
from edgeopt_fleet.store.rollouts import Plan
from edgeopt_fleet.store.tokens import TokenGrant
from edgeopt_fleet.worker import Worker
from tests.fleet.conftest import FakeBroker, Kit, kit, make_app, make_kit, window
from tests.fleet.shadow_world import World

__all__ = ["kit"]  # for pytest

_END_SECONDS = 60


@dataclass(frozen=True)
class Served:
    """A fleet that answers at ``url``, the keys that open it, and a token and a digest that it knows."""

    url: str
    admin: str
    viewer: str
    token: str
    digest: str


def fill(kit: Kit) -> tuple[str, str]:
    """Give the fleet something of everything; return a token and a bundle's digest."""
    digest = kit.publish("1")
    kit.publish("2")
    kit.enrol("cam-1", "cam-2", "cam-3", site="oslo")
    kit.enrol("cam-4", site="lima", hardware="pi-5")
    kit.status("cam-4", online=False)
    kit.cohorts.put("oslo", DeviceFilter(tags={"site": "oslo"}, health=Health.OK), kit.now, lambda _present: None)
    for number in range(12):
        kit.report("cam-2", DeviceState.DOWNLOADING, None, job=f"job-{number}")
        kit.serve("cam-1", digest)
    record = replace(window(digest, kit.next_number("cam-1")), infrastructure={"temperature_celsius": 61.5})
    kit.inbox.store([Incoming("cam-1", record)], kit.now)
    model = RolloutRequest(name="digits-2", bundle=digest)
    plan = Plan(
        name="digits-2",
        bundle=digest,
        cohort="oslo",
        waves=(Wave.parse(50), Wave.parse(100)),
        policy=model.policy.policy(),
        execution=model.execution.execution(),
    )
    kit.rollouts.create(plan, kit.now)
    kit.rollouts.start("digits-2", kit.now)
    kit.status("cam-3", running=digest, boot=2)
    World(kit).create("digits-3-beside", version="3", share=0.1)
    raise_alarm(kit.database, Alarm("token_reuse", "token/abc", "the token abc was used again"), kit.now)
    kit.users.create("bob", Role.OPERATOR, kit.now)
    return kit.tokens.create(TokenGrant(uses=5, expires_at=2**31), kit.now), digest


@contextlib.contextmanager
def serve(app: FastAPI) -> Iterator[str]:
    """Serve ``app`` over HTTP on a thread of its own; give its address."""
    server = uvicorn.Server(uvicorn.Config(app, log_config=None, access_log=False, lifespan="off"))
    with contextlib.closing(socket.create_server(("127.0.0.1", 0))) as listener:
        listener.setblocking(False)

        async def run() -> None:
            watch = app.state.operations.watch
            await watch.look()
            looking = asyncio.create_task(watch.run())  # who has not looked for ten seconds is not ready
            await server.serve(sockets=[listener])  # what connects before it is up waits in the socket's line
            looking.cancel()

        thread = threading.Thread(target=lambda: asyncio.run(run()), name="served")
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join(_END_SECONDS)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """Serve a fleet with real data on SQLite."""
    directory: Path = tmp_path_factory.mktemp("served")
    address = directory / "fleet.db"
    Database.create(address).close()
    with make_kit(directory, address) as kit, contextlib.closing(Serial()) as serial:

        async def announce(_devices: object) -> None:
            """Nobody listens."""

        token, digest = fill(kit)
        admin = kit.users.create("admin", Role.ADMIN, kit.now).key
        viewer = kit.users.create("eve", Role.VIEWER, kit.now).key
        worker = Worker(kit.rollouts, serial, announce, lambda: kit.now)
        with serve(make_app(kit, serial, worker, FakeBroker())) as url:
            yield Served(url=url, admin=admin, viewer=viewer, token=token, digest=digest)
