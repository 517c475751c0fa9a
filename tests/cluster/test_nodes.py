"""What the nodes of the broker's cluster let in, and how soon they cut off whom they do not let in any more."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from pathlib import Path
from typing import Any

import aiomqtt
import pytest

from edgeopt_contract.topics import Topics
from edgeopt_fleet.broker import FLEET_USER
from edgeopt_fleet.ca import DeviceAuthority
from edgeopt_fleet.credentials import client_context, write_pair
from tests.cluster.conftest import NODES, Cluster, Device
from tests.fleet.conftest import eventually

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(280)]

LIMIT_SECONDS = 5.0  # must-show 5 of the issue, for the cluster as for one broker


def client(cluster: Cluster, node: str, device: Device) -> aiomqtt.Client:
    """Return a device's connection to one node."""
    return aiomqtt.Client(
        "127.0.0.1",
        cluster.nodes[node],
        identifier=device.identity.device,
        tls_context=device.tls,
        protocol=aiomqtt.ProtocolVersion.V311,
    )


async def admitted(cluster: Cluster, node: str, device: Device) -> bool:
    """Say whether a node lets a device in and takes what it says."""
    try:
        async with client(cluster, node, device) as connection:
            await connection.publish(Topics.reported(device.identity.device), b"hello", qos=1)
    except aiomqtt.MqttError:
        return False
    return True


def configuration(cluster: Cluster, node: str) -> dict[str, Any]:
    """Return the file that a node's server reads."""
    home = Path(cluster.processes[f"node {node}"].command[1])
    path = home / "broker" / node / "broker.json"
    assert 0o600 == path.stat().st_mode & 0o777
    found: dict[str, Any] = json.loads(path.read_text())
    return found


async def begin(cluster: Cluster) -> list[Device]:
    """Enrol three devices and wait until each node lets each of them in."""
    await cluster.until_heard()
    devices = [await cluster.identity(f"cam-{number}") for number in range(3)]

    async def all_in() -> bool:
        return all([await admitted(cluster, node, device) for node in NODES for device in devices])

    await eventually(all_in, "every node to know every device")
    return devices


async def test_devices_touch_their_own_topics_only_and_a_revoked_one_is_cut_within_five_seconds(
    cluster: Cluster,
) -> None:
    """On every node: whatever file it reads, whichever node the other devices are at, whoever took the order."""
    devices = await begin(cluster)
    each_node_s_file_says_the_same(cluster, [device.identity.device for device in devices])
    await what_is_another_s_stays_there(cluster, devices)
    for node, device in zip(NODES, devices, strict=True):
        waited, refused = await cut(cluster, node, device)
        print(f"\nat node {node}: cut {waited:.2f} s after the order, refused by every node after {refused:.2f} s")


def each_node_s_file_says_the_same(cluster: Cluster, names: list[str]) -> None:
    """TLS towards devices and towards the other nodes, routes to all, and one user with rights of its own for each."""
    files = {node: configuration(cluster, node) for node in NODES}
    for node, found in files.items():
        assert found["mqtt"]["tls"]["verify_and_map"] is True
        assert found["cluster"]["tls"]["verify"] is True
        assert len(NODES) == len(found["cluster"]["routes"])
        assert node == found["server_name"]
        assert 3 == found["mqtt"]["stream_replicas"]
        fleet, *users = found["authorization"]["users"]
        assert "permissions" not in fleet
        assert names == sorted(user["user"].partition("CN=")[2] for user in users)
        for user in users:
            name = user["user"].partition("CN=")[2]
            assert ["MQTT"] == user["allowed_connection_types"]
            assert all(f".{name}." in subject for subject in user["permissions"]["publish"])
    assert 1 == len({json.dumps(found["authorization"], sort_keys=True) for found in files.values()})


async def what_is_another_s_stays_there(cluster: Cluster, devices: list[Device]) -> None:
    """A device at one node neither hears nor says what belongs to a device at another."""
    mine, other = (device.identity.device for device in devices[:2])
    async with (
        fleet_client(cluster, "a") as fleet,
        client(cluster, "a", devices[0]) as me,
        client(cluster, "b", devices[1]) as them,
    ):
        await me.subscribe(Topics.ack(mine), 1)
        await them.subscribe([(Topics.ack(other), 1), (Topics.desired(other), 1)])
        for topic in (Topics.desired(other), Topics.ack(other), Topics.telemetry(other), "#", "edgeopt/#", "$SYS/#"):
            with contextlib.suppress(aiomqtt.MqttError):
                await me.subscribe(topic, 1)
        for topic in (Topics.desired(other), Topics.ack(other), Topics.ack(mine), Topics.TUF):
            await me.publish(topic, b"forged", qos=0)
        await me.publish(Topics.telemetry(mine), b"a barrier", qos=1)
        await fleet.publish(Topics.desired(other), b"for the other", qos=1)
        for name in (mine, other):
            await fleet.publish(Topics.ack(name), b"end", qos=1)
        assert [(Topics.ack(mine), b"end")] == await heard(me)
        assert {(Topics.desired(other), b"for the other"), (Topics.ack(other), b"end")} == set(await heard(them))


def fleet_client(cluster: Cluster, node: str) -> aiomqtt.Client:
    """Return a connection of the fleet itself to one node."""
    ca, pair = cluster.home / "ca", cluster.home.parent / "fleet-client.pem"
    write_pair(pair, DeviceAuthority.load(ca).make_client(FLEET_USER, time.time()))
    context = client_context(ca / "ca.pem", pair)
    return aiomqtt.Client("127.0.0.1", cluster.nodes[node], identifier="edgeopt-test", tls_context=context)


async def heard(connection: aiomqtt.Client) -> list[tuple[str, bytes]]:
    """Return what comes, up to the end."""
    found = []
    async with asyncio.timeout(60):
        async for message in connection.messages:
            found.append((str(message.topic), bytes(message.payload)))
            if message.payload == b"end":
                break
    return found


async def cut(cluster: Cluster, node: str, device: Device) -> tuple[float, float]:
    """Revoke a device that is connected to ``node``; return the seconds to its cut and until no node lets it in.

    Each node reads its own file, and does so when its own process has written it.
    """
    name = device.identity.device
    async with contextlib.AsyncExitStack() as stack:
        connection = await stack.enter_async_context(client(cluster, node, device))
        stack.push(lambda *_: True)  # what was cut cannot be closed in order
        await connection.subscribe(Topics.desired(name), 1)
        lost = asyncio.create_task(until_lost(connection))
        ordered = time.monotonic()
        await cluster.call("POST", f"devices/{name}/revoke", api=NODES.index(node) % len(cluster.urls))
        async with asyncio.timeout(LIMIT_SECONDS):
            ended = await lost
            for each in NODES:
                while await admitted(cluster, each, device):  # noqa: ASYNC110  # a node gives no event of what it has read
                    await asyncio.sleep(0.1)
    return ended - ordered, time.monotonic() - ordered


async def until_lost(connection: aiomqtt.Client) -> float:
    """Return when a connection ended."""
    with contextlib.suppress(aiomqtt.MqttError):
        async for _ in connection.messages:
            pass
    return time.monotonic()
