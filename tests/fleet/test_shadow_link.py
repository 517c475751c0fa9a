"""Orders of shadows at a real broker: retained, published again after a loss, cleared at the end."""

# ruff: noqa: F811  # tests take imported fixtures by their names

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal

import aiomqtt
import pytest

from edgeopt_contract.codec import decode
from edgeopt_contract.messages import Shadow
from edgeopt_contract.topics import Topics
from edgeopt_fleet.rollout import Event
from tests.fleet.conftest import Kit, eventually
from tests.fleet.shadow_world import World
from tests.fleet.test_link import Running, running  # noqa: F401  # the fixture

pytestmark = pytest.mark.scenario


def world_of(kit: Kit) -> tuple[World, str]:
    """Return a world with one running shadow, and a device that is asked."""
    world = World(kit)
    for device in ("cam-1", "cam-2"):
        kit.status(device, running=kit.publish("champion"), boot=2)
    kit.rollouts.apply("v1", Event.CANCELLED, kit.now)  # which has the devices, and so comes first
    world.create()
    return world, next(iter(world.running()))


async def retained(running: Running, *topics: str) -> dict[str, bytes]:
    """Return what the broker holds, once it holds something on each of ``topics``."""

    async def there() -> dict[str, bytes]:
        with contextlib.suppress(aiomqtt.MqttError):
            found = await running.retained(*topics) if running.link.connected else {}
            return found if len(found) == len(topics) else {}
        return {}

    found: dict[str, bytes] = await eventually(there, "the retained messages")
    return found


async def test_an_order_is_published_with_the_blocks_and_cleared_at_the_end(kit: Kit, running: Running) -> None:
    """The device that connects later finds all it needs; after the end it finds nothing."""
    await eventually(lambda: asyncio.sleep(0, running.link.connected), "the connection")
    world, device = world_of(kit)
    await running.link.announce_shadows({device})
    bundle = kit.publish("challenger")
    blocks = [Topics.block(name) for name in (bundle, *kit.bundles.delivery(bundle).blocks)]
    found = await retained(running, Topics.shadow(device), *blocks)
    expected = Shadow(job="next", bundle=bundle, share=0.5, until=4600)
    assert expected == decode(Shadow, found[Topics.shadow(device)])
    async with running.client() as client:
        await client.subscribe(Topics.shadow(device), 1)
        await running.link.announce_shadows(world.shadows.end("next", kit.now))
        async with asyncio.timeout(20):
            async for message in client.messages:
                if message.payload == b"":
                    break
    assert {} == await running.retained(Topics.shadow(device))


async def test_a_broker_that_lost_its_store_is_told_again(kit: Kit, running: Running) -> None:
    """Killed with -9, and everything that it kept is gone: the next connection publishes it."""
    _, device = world_of(kit)
    await eventually(lambda: asyncio.sleep(0, running.link.connected), "the connection")
    await running.link.announce_shadows({device})
    before = await retained(running, Topics.shadow(device))
    os.kill(int(running.settings.pid_file.read_text()), signal.SIGKILL)
    shutil.rmtree(running.settings.directory / "store", ignore_errors=True)
    await eventually(lambda: asyncio.sleep(0, not running.link.connected), "the link to notice")
    assert before == await retained(running, Topics.shadow(device))
