"""What is measured: each scenario drives devices against a running fleet and returns figures.

Example::

    figures = await telemetry(bench, per_second=5000, seconds=600)
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

import psutil  # type: ignore[import-untyped]  # it publishes no types

from benchmarks.fleet.devices import Swarm
from benchmarks.fleet.rig import Rig
from edgeopt_contract.codec import decode
from edgeopt_contract.errors import UnreachableError
from edgeopt_contract.manifest import Manifest
from edgeopt_contract.messages import DeviceState

__all__ = ["Bench", "connect", "raw_broker", "reads", "recall", "rollout", "storm", "telemetry"]

Figures = dict[str, float]
_POLICY = {"bake_seconds": 0, "minimum_rows": 0, "interval_seconds": 0.5, "failure_threshold": 0.1}
_SETTLE_SECONDS = 60.0
_FLOW_SECONDS = 5.0  # telemetry before and after what is measured beside it: a device's first window makes new rows


@dataclass(slots=True)
class Bench:
    """A running fleet and its devices."""

    rig: Rig
    swarm: Swarm


async def connect(bench: Bench, per_second: float) -> Figures:
    """Connect all devices; then all of them are online for the fleet, too."""
    before, began = bench.rig.usage(), time.monotonic()
    await bench.swarm.connect(per_second)
    seconds = time.monotonic() - began
    await _until("all devices online for the fleet", lambda: _online(bench, len(bench.swarm.devices)), 120)
    after = bench.rig.usage()
    count = len(bench.swarm.devices)
    return {
        "devices": count,
        "connect_seconds": seconds,
        "server_bytes": after.server_bytes,
        "server_bytes_a_device": (after.server_bytes - before.server_bytes) / count,
        "broker_bytes_a_device": (after.broker_bytes - before.broker_bytes) / count,
    }


async def telemetry(bench: Bench, per_second: float, seconds: float) -> Figures:
    """Send telemetry at a steady rate; every message is in the database before it is acknowledged."""
    rig, swarm = bench.rig, bench.swarm
    await swarm.settle(_SETTLE_SECONDS)
    swarm.tally.latencies.clear()
    resent, before = swarm.tally.resent, rig.usage()
    stored, _ = await asyncio.to_thread(rig.stored)
    size = await asyncio.to_thread(rig.database_bytes)
    began, cpu = time.monotonic(), time.process_time()
    sent = swarm.tally.sent
    peak = asyncio.create_task(_peak(rig))
    await swarm.send_telemetry(per_second, seconds)
    took = time.monotonic() - began
    unacknowledged = await swarm.settle(_SETTLE_SECONDS)
    peak.cancel()
    after = rig.usage()
    rows, told = await asyncio.to_thread(rig.stored)
    sent = swarm.tally.sent - sent
    return {
        "devices": len(swarm.devices),
        "seconds": took,
        "sent": sent,
        "per_second": len(swarm.tally.latencies) / took,
        "server_cpu_us_a_message": (after.server_cpu_seconds - before.server_cpu_seconds) / max(sent, 1) * 1e6,
        "database_bytes_a_message": (await asyncio.to_thread(rig.database_bytes) - size) / max(sent, 1),
        "unacknowledged": unacknowledged,
        "lost": sent - (rows - stored),
        "miscounted": rows - told,
        "resent": swarm.tally.resent - resent,
        **quantiles(swarm.tally.latencies),
        "server_peak_bytes": max(await _result(peak), after.server_bytes),
        "server_cores": (after.server_cpu_seconds - before.server_cpu_seconds) / took,
        "broker_cores": (after.broker_cpu_seconds - before.broker_cpu_seconds) / took,
        "simulator_cores": (time.process_time() - cpu) / took,
    }


async def raw_broker(bench: Bench, per_second: float, seconds: float) -> Figures:
    """The same messages through the same broker to somebody who acknowledges at once; the fleet's server is stopped."""
    swarm = bench.swarm
    await swarm.settle(_SETTLE_SECONDS)
    bench.rig.stop_server()
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "benchmarks.fleet.echo", str(bench.rig.broker_port), stdout=subprocess.PIPE
    )
    try:
        assert process.stdout is not None  # a pipe
        await asyncio.wait_for(process.stdout.readline(), _SETTLE_SECONDS)
        swarm.tally.latencies.clear()
        began = sum(psutil.Process(process.pid).cpu_times()[:2])
        await swarm.send_telemetry(per_second, seconds)
        left = await swarm.settle(_SETTLE_SECONDS)
        spent = sum(psutil.Process(process.pid).cpu_times()[:2]) - began
    finally:
        process.kill()
        await process.wait()
        await asyncio.to_thread(bench.rig.start_server)
    return {
        "per_second": len(swarm.tally.latencies) / seconds,
        "unacknowledged": left,
        **quantiles(swarm.tally.latencies),
        "echo_cores": spent / seconds,
    }


async def reads(bench: Bench, per_second: float, seconds: float, beside: float) -> Figures:
    """Device-facing reads over HTTP at a steady rate, with ``beside`` telemetry messages a second flowing."""
    rig, tally = bench.rig, bench.swarm.tally
    await bench.swarm.settle(_SETTLE_SECONDS)
    digest = rig.bundles[0]
    manifest = decode(Manifest, (rig.directory / "bundle-1" / "manifest.json").read_bytes())
    blocks = [block.sha256 for entry in manifest.files for block in entry.blocks][:8]
    command = [rig.url, digest, ",".join(blocks), str(per_second), str(seconds), str(len(bench.swarm.devices))]
    flowing = asyncio.create_task(bench.swarm.send_telemetry(beside, seconds + 2 * _FLOW_SECONDS))
    await asyncio.sleep(_FLOW_SECONDS)
    tally.latencies.clear()
    before, began = rig.usage(), time.monotonic()
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "benchmarks.fleet.readers", *command, stdout=subprocess.PIPE
    )
    output, _ = await process.communicate()
    after, took = rig.usage(), time.monotonic() - began
    told = len(tally.latencies)
    await flowing
    figures: Figures = json.loads(output)
    return {
        **figures,
        "kept_up": figures["answered_in_time"] / (per_second * seconds),
        "telemetry_per_second": told / took,
        "telemetry_p99_ms": quantiles(tally.latencies)["p99_ms"],
        "server_cores": (after.server_cpu_seconds - before.server_cpu_seconds) / took,
        "server_bytes": after.server_bytes,
    }


async def rollout(bench: Bench, beside: float, *, kill: bool) -> Figures:
    """Roll a new bundle of a megabyte out to all in four waves, with telemetry, and the broker killed once."""
    rig, swarm = bench.rig, bench.swarm
    flowing = asyncio.create_task(swarm.send_telemetry(beside, 10_000)) if beside else None
    began = time.monotonic()
    request = {
        "name": "bench-2", "bundle": rig.bundles[1], "waves": [5, 25, 60, 100], "policy": _POLICY, "no_recall": True,
    }  # fmt: skip
    await _call(rig, "POST", "rollouts", json=request)

    async def ready(share: float) -> bool:
        return sum(device.running == rig.bundles[1] for device in swarm.devices) >= len(swarm.devices) * share

    if kill:
        await _until("the new bundle on a tenth of the devices", lambda: ready(0.1), 300)
        await asyncio.to_thread(rig.kill_broker)
    await _until("the new bundle on all devices", lambda: ready(1.0), 600)
    on_devices = time.monotonic() - began
    state = await _until(
        "the end of the rollout", lambda: _state(rig, "bench-2", ("succeeded", "rolled_back", "cancelled")), 300
    )
    took = time.monotonic() - began
    if flowing is not None:
        flowing.cancel()
    return {
        "devices": len(swarm.devices),
        "on_devices_seconds": on_devices,
        "seconds": took,
        "succeeded": float(state == "succeeded"),
        "blocks": swarm.tally.blocks,
        "bytes": swarm.tally.block_bytes,
        "bad_blocks": swarm.tally.bad_blocks,
        "server_bytes": rig.usage().server_bytes,
    }


async def recall(bench: Bench, share: int, offline: int) -> Figures:
    """Update ``share`` percent, then let the new bundle fail: all exposed devices go back, some when they return."""
    rig, swarm = bench.rig, bench.swarm
    old, new = {device.device: device.running for device in swarm.devices}, rig.bundles[2]
    policy = {**_POLICY, "minimum_rows": 10**9}  # the wave is held: nothing can be promoted
    request = {
        "name": "bench-3", "bundle": new, "waves": [share, 100], "policy": policy, "no_recall": True,
    }  # fmt: skip
    await _call(rig, "POST", "rollouts", json=request)
    count = len(swarm.devices) * share // 100
    await _until(
        "the share that is updated", lambda: _true(sum(device.running == new for device in swarm.devices) >= count), 300
    )
    exposed = [device for device in swarm.devices if device.running == new]
    away, here = exposed[:offline], exposed[offline:]
    for device in away:
        device.drop()
    for device in here[: len(here) // 2]:  # the gate's failure threshold is a tenth
        device.report(DeviceState.ROLLED_BACK)
    began = time.monotonic()
    back: list[float] = []
    while time.monotonic() - began < 120:
        back = [time.monotonic() - began for device in here if device.running == old[device.device]]
        if len(back) == len(here):
            break
        await asyncio.sleep(0.1)
    took = time.monotonic() - began
    for device in away:
        device.enabled = True
    await swarm.connect(200)
    returned = time.monotonic()
    await _until(
        "the recall of those that were away",
        lambda: _true(all(device.running == old[device.device] for device in away)),
        120,
    )
    await _until("the end of the recall", lambda: _state(rig, "bench-3", ("rolled_back",)), 120)
    return {
        "exposed": len(exposed),
        "back_share": len(back) / len(here),
        "back_seconds": took,
        "offline": len(away),
        "offline_back": sum(device.running == old[device.device] for device in away),
        "offline_back_seconds": time.monotonic() - returned,
    }


async def storm(bench: Bench, window_seconds: float) -> Figures:
    """Kill the broker under all devices; the first reconnect of each is drawn from the fleet's window."""
    swarm = bench.swarm
    swarm.setting.reconnect_window_seconds = window_seconds
    swarm.tally.connects.clear()
    swarm.tally.attempts.clear()
    began = time.monotonic()
    await asyncio.to_thread(bench.rig.kill_broker)
    await _until(
        "all devices back", lambda: _true(swarm.online == len(swarm.devices) and bool(swarm.tally.connects)), 300
    )
    seconds = Counter(int(at - began) for at in swarm.tally.attempts)
    return {
        "devices": len(swarm.devices),
        "window_seconds": window_seconds,
        "back_seconds": max(swarm.tally.connects) - began,
        "most_connects_a_second": max(seconds.values()),
        "stuck": len(swarm.devices) - swarm.online,
    }


def quantiles(latencies: Sequence[float]) -> Figures:
    """Return the usual quantiles in milliseconds."""
    ordered = sorted(latencies) or [float("nan")]
    last = len(ordered) - 1
    return {f"p{share}_ms": ordered[int(last * share / 100)] * 1e3 for share in (50, 90, 99, 100)}


async def _peak(rig: Rig) -> int:
    """Return the most memory that the server had until this was cancelled."""
    most = 0
    try:
        while True:
            most = max(most, rig.usage().server_bytes)
            await asyncio.sleep(1.0)
    except asyncio.CancelledError:
        return most


async def _result(task: asyncio.Task[int]) -> int:
    return await task


async def _call(rig: Rig, method: str, path: str, **options: Any) -> Any:
    return await asyncio.to_thread(lambda: rig.call(method, path, **options))


async def _until(what: str, probe: Callable[[], Awaitable[Any]], seconds: float) -> Any:
    """Return the first truthy answer. Raises :class:`UnreachableError` that says ``what`` did not come."""
    try:
        async with asyncio.timeout(seconds):
            while not (answer := await probe()):  # noqa: ASYNC110 - what is waited for is in another process
                await asyncio.sleep(0.1)
            return answer
    except TimeoutError as error:
        raise UnreachableError(f"{what}: not within {seconds:.0f} s") from error


async def _true(value: bool) -> bool:  # noqa: FBT001 - it is the answer itself
    return value


async def _online(bench: Bench, count: int) -> bool:
    return await asyncio.to_thread(bench.rig.online) >= count


async def _state(rig: Rig, name: str, wanted: tuple[str, ...]) -> str:
    state: str = (await _call(rig, "GET", f"rollouts/{name}"))["state"]
    return state if state in wanted else ""
