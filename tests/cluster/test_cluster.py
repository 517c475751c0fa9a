"""Two API processes, two workers, three broker nodes: any of them may go, and nothing is lost or counted twice."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest
from sqlmodel import col, select

from edgeopt_fleet.config import Home, read_config
from edgeopt_fleet.store.database import Database
from edgeopt_fleet.store.tables import LeaseRow, ServedRow, SpoolRow
from tests.cluster.conftest import Cluster, Device
from tests.fleet.conftest import eventually

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(280)]

DEVICES = int(os.environ.get("EDGEOPT_TEST_CLUSTER_DEVICES", "6"))
NAME = "v1"


async def rollout(cluster: Cluster, *, api: int | None = None) -> dict[str, Any]:
    """Return the rollout as it stands."""
    view: dict[str, Any] = await cluster.call("GET", f"rollouts/{NAME}", api=api)
    return view


async def until_wave(cluster: Cluster, wave: int) -> None:
    """Wait until the rollout has come so far."""

    async def probe() -> bool:
        view = await rollout(cluster)
        assert view["state"] in ("running", "succeeded"), view
        return bool(view["wave"] >= wave or view["state"] == "succeeded")

    await eventually(probe, f"wave {wave}")


async def until_stored(cluster: Cluster, more: int) -> None:
    """Wait until every device that serves has ``more`` numbers stored than now: the flow goes on."""
    goal = {device.identity.device: device.number + more for device in cluster.devices if device.running}

    async def probe() -> bool:
        stored = await asyncio.to_thread(numbers, cluster)
        return all(stored.get(device, (0, 0))[0] >= number for device, number in goal.items())

    await eventually(probe, f"what devices send to be stored, up to {goal}")


def numbers(cluster: Cluster) -> dict[str, tuple[int, int, int]]:
    """Return of every device: up to which number everything is stored, rows by its numbers, and rows as served."""
    home = Home(cluster.home)
    database = Database.open(home.address(read_config(home.config)))
    try:
        with database.reading() as session:
            served: dict[str, int] = {}
            for row in session.exec(select(ServedRow)):
                served[row.device] = served.get(row.device, 0) + row.rows
            spools = session.exec(select(SpoolRow).order_by(col(SpoolRow.id))).all()
            assert len({spool.device for spool in spools}) == len(spools), "a device has one session here"
            return {spool.device: (spool.upto, spool.rows, served.get(spool.device, 0)) for spool in spools}
    finally:
        database.close()


def epochs(cluster: Cluster) -> dict[str, int]:
    """Return how often each role has changed hands."""
    home = Home(cluster.home)
    database = Database.open(home.address(read_config(home.config)))
    try:
        with database.reading() as session:
            return {row.role: row.epoch for row in session.exec(select(LeaseRow))}
    finally:
        database.close()


async def begin(cluster: Cluster, directory: Path) -> str:
    """Enrol the devices and start a rollout over three waves."""
    await cluster.timed("the broker's nodes found each other and the fleet heard them in", cluster.until_heard())
    for number in range(DEVICES):
        await cluster.enrol(f"cam-{number}")

    async def online() -> bool:
        items = (await cluster.call("GET", "devices"))["items"]
        return len(items) == DEVICES and all(item["online"] for item in items)

    await cluster.timed("all devices online after", eventually(online, "all devices online"))
    digest = await cluster.publish(directory / "b1", "1")
    body = {
        "name": NAME,
        "bundle": digest,
        "waves": [34, 67, 100],
        "policy": {"minimum_rows": 300, "bake_seconds": 0},
    }
    await cluster.call("POST", "rollouts", api=0, json=body)
    return digest


def settled(device: Device, stored: dict[str, tuple[int, int, int]]) -> bool:
    """Say whether all that a device ever sent is stored, each number once, and counted once."""
    windows = device.number - len(device.jobs)
    upto, rows, served = stored.get(device.identity.device, (0, 0, 0))
    assert upto <= device.number, "a number that was never sent"
    assert served <= 60 * windows, "counted twice"
    return (device.number, 60 * windows, 60 * windows) == (upto, rows, served)


async def test_kill_9_of_one_of_each_during_a_rollout(cluster: Cluster, tmp_path: Path) -> None:
    """Worker, API and broker node are killed in turn, a worker is paused, with telemetry flowing: nothing is lost.

    Every number that a device sent is stored once, what was served is counted once, no job is given twice, the rollout
    succeeds, and a worker that wakes up after it was replaced has written nothing.
    """
    digest = await begin(cluster, tmp_path)
    await until_wave(cluster, 0)
    await until_stored(cluster, 2)

    first = await cluster.until_held("ingest")
    first.send(signal.SIGKILL)
    second = await cluster.timed("a standby held the role after", cluster.until_held("ingest", instead_of=first))
    await cluster.timed("and heard the devices after", until_stored(cluster, 2))
    first.start()
    await cluster.call("POST", f"rollouts/{NAME}/pause", api=1)
    cluster.processes["api 0"].send(signal.SIGKILL)
    assert "paused" == (await rollout(cluster, api=1))["state"]
    await cluster.call("POST", f"rollouts/{NAME}/resume", api=1)
    await until_wave(cluster, 1)

    cluster.processes["node a"].send(signal.SIGKILL)
    await cluster.timed("after a broker's node was killed the flow went on in", until_stored(cluster, 2))
    cluster.processes["node a"].start()
    cluster.processes["api 0"].start()

    before = epochs(cluster)
    second.send(signal.SIGSTOP)
    third = await cluster.timed(
        "a standby replaced a stopped worker in", cluster.until_held("rollouts", instead_of=second)
    )
    await until_stored(cluster, 2)
    second.send(signal.SIGCONT)
    assert third is first
    await eventually(lambda: lost_its_roles(cluster, second), "the worker that woke up to give up its roles")
    assert all(after > before[role] for role, after in epochs(cluster).items() if role in ("ingest", "rollouts"))

    async def ended() -> bool:
        view = await rollout(cluster)
        assert view["state"] in ("running", "succeeded"), view
        return bool(view["state"] == "succeeded")

    await eventually(ended, "the rollout to succeed")
    for device in cluster.devices:
        device.stopped = True  # no more windows; what is not acknowledged is sent until it is

    async def counted() -> bool:
        stored = await asyncio.to_thread(numbers, cluster)
        return all(settled(device, stored) for device in cluster.devices)

    await cluster.timed("everything was stored after", eventually(counted, "the counts to agree"))
    assert {digest} == {device.running for device in cluster.devices}
    assert all(1 == len(device.jobs) for device in cluster.devices), "a job was given twice"
    report(cluster)


async def test_workers_that_are_told_to_end_hand_over_in_the_midst_of_messages(
    cluster: Cluster, tmp_path: Path
) -> None:
    """Each ends with exit code 0; all that was acknowledged is stored by then, and a standby goes on."""
    await begin(cluster, tmp_path)
    await until_stored(cluster, 2)
    for _ in range(2):
        await eventually(lambda: workers_are_ready(cluster), "both workers to be ready, one as a standby")
        holder = await cluster.until_held("ingest")
        assert 0 == await asyncio.to_thread(holder.end)
        acknowledged = {d.identity.device: min(d.spool, default=d.number + 1) - 1 for d in cluster.devices}
        stored = await asyncio.to_thread(numbers, cluster)
        assert all(stored.get(device, (0,))[0] >= number for device, number in acknowledged.items())
        holder.start()
        await cluster.timed("a standby heard the devices after", until_stored(cluster, 2))
    for device in cluster.devices:
        device.stopped = True

    async def counted() -> bool:
        found = await asyncio.to_thread(numbers, cluster)
        return all(settled(device, found) for device in cluster.devices)

    await eventually(counted, "the counts to agree")
    report(cluster)


async def workers_are_ready(cluster: Cluster) -> bool:
    """Say whether each worker says of itself that it is."""
    return all([(await cluster.readiness(url)).get("ready") for url in cluster.probes.values()])


async def lost_its_roles(cluster: Cluster, process: Any) -> bool:
    """Say whether a worker's own probe says that it holds nothing."""
    name = next(name for name, one in cluster.processes.items() if one is process)
    lines = [json.loads(line) for line in process.log.read_text().splitlines() if line.startswith("{")]
    lost = {line["role"] for line in lines if line["event"] == "role.lost"}
    return {"ingest", "rollouts"} <= lost and bool(await cluster.readiness(cluster.probes[name]))


def report(cluster: Cluster) -> None:
    """Print what was measured."""
    sent = sum(device.sent for device in cluster.devices)
    distinct = sum(device.number for device in cluster.devices)
    print(f"\n{DEVICES} devices, {distinct} messages, sent {sent} times, each stored once")
    for what, seconds in cluster.figures.items():
        print(f"{what} {seconds}")
