"""The fleet's benchmark: thousands of simulated devices against a real server and broker on this machine.

Prints a table and a line for each claim, and writes JSON. With ``--check`` it exits with 1 when one falls short.
``--full`` is the size of the claims, about half an hour; the default is minutes on a busy machine. Example::

    python -m benchmarks.fleet --full --output build/fleet.json
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import click

from benchmarks.fleet import scenarios
from benchmarks.fleet.claims import CLAIMS, PEERS
from benchmarks.fleet.devices import Setting, Swarm
from benchmarks.fleet.rig import Rig, raise_file_limit, window_of
from benchmarks.fleet.scale import scale
from benchmarks.fleet.scenarios import Bench, Figures

__all__ = ["main"]

_ALL = ("connect", "raw", "telemetry", "reads", "rollout", "recall", "storm", "scale")
_FULL: dict[str, object] = {
    "devices": 5000, "rate": 5000.0, "seconds": 600.0, "reads_a_second": 500.0, "sizes": (1000, 5000, 15_000),
    "scale_seconds": 60.0,
}  # fmt: skip


@click.command()
@click.option("--devices", default=500, help="Simulated devices.")
@click.option("--rate", default=500.0, help="Telemetry messages a second, of all devices together.")
@click.option("--seconds", default=5.0, help="How long telemetry is measured.")
@click.option("--reads", "reads_a_second", default=100.0, help="Reads of devices a second.")
@click.option("--size", "sizes", multiple=True, type=int, default=(100, 500), help="A fleet's size for scale.")
@click.option("--scale-seconds", default=5.0, help="How long each size is measured.")
@click.option("--full", is_flag=True, help="The size of the claims, whatever the other options say: half an hour.")
@click.option("--window", default=0.0, help="Seconds from which first reconnects are drawn; 0: as the fleet would say.")
@click.option("--only", multiple=True, type=click.Choice(_ALL), help="Only these scenarios; may be repeated.")
@click.option("--database", default="", help="postgresql://…, an empty database; by default SQLite.")
@click.option("--apart", is_flag=True, help="API and worker as processes of their own.")
@click.option("--directory", type=click.Path(path_type=Path), default=Path("build/fleet-bench"), help="Is emptied.")
@click.option("--output", type=click.Path(path_type=Path), help="Write the figures here, as JSON.")
@click.option("--check", is_flag=True, help="Exit with 1 when a claim is missed.")
def main(**options: object) -> None:
    """Measure a fleet of simulated devices."""
    raise_file_limit(65_536)
    if options["full"]:
        options |= _FULL
    only = options["only"] or _ALL
    assert isinstance(only, tuple)
    figures: dict[str, Figures] = {}
    if set(only) != {"scale"}:
        with _rig(options, int(str(options["devices"]))) as rig:
            figures |= asyncio.run(_measure(rig, only, options))
    if "scale" in only:
        figures["scale"] = asyncio.run(_scale(options))
    _compare(figures)
    figures["machine"] = {"cores": os.cpu_count() or 0, "load_1_minute": os.getloadavg()[0]}
    missed = _show(figures)
    output = options["output"]
    if isinstance(output, Path):
        output.parent.mkdir(parents=True, exist_ok=True)
        output.write_text(json.dumps(figures, indent=2) + "\n")
    if options["check"] and missed:
        sys.exit(1)


def _rig(options: dict[str, object], devices: int) -> contextlib.AbstractContextManager[Rig]:
    """Return a fleet of so many devices; on PostgreSQL all of one run take the same database, emptied each time."""
    directory, database = Path(str(options["directory"])), str(options["database"])
    return Rig.make(directory, devices=devices, database=database, apart=bool(options["apart"]))


@contextlib.asynccontextmanager
async def _bench(rig: Rig, devices: int) -> AsyncIterator[Bench]:
    """Give the devices of a fleet, which send again what nobody acknowledges."""
    setting = Setting(port=rig.broker_port, window=window_of(rig.bundles[0]), bundle=rig.bundles[0])
    bench = Bench(rig, Swarm(setting, devices))
    repeating = asyncio.create_task(bench.swarm.repeat_lost())
    try:
        yield bench
    finally:
        repeating.cancel()
        bench.swarm.close()
        await asyncio.sleep(0)


async def _scale(options: dict[str, object]) -> Figures:
    sizes = options["sizes"]
    assert isinstance(sizes, tuple)

    @contextlib.asynccontextmanager
    async def make(size: int) -> AsyncIterator[Bench]:
        click.echo(f"scale, {size} devices …", err=True)
        with _rig(options, size) as rig:
            async with _bench(rig, size) as bench:
                yield bench

    return await scale(make, sizes, float(str(options["rate"])), float(str(options["scale_seconds"])))


async def _measure(rig: Rig, only: tuple[str, ...], options: dict[str, object]) -> dict[str, Figures]:
    devices = int(str(options["devices"]))
    async with _bench(rig, devices) as bench:
        return await _scenarios(bench, only, options)


async def _scenarios(bench: Bench, only: tuple[str, ...], options: dict[str, object]) -> dict[str, Figures]:
    devices, rate, seconds = (float(str(options[name])) for name in ("devices", "rate", "seconds"))
    window = float(str(options["window"])) or min(max(1.0, devices / 65), 90.0)
    gc.freeze()
    gc.disable()  # the simulator's own pauses are not the fleet's
    beside = rate / 2
    runs: dict[str, Callable[[], Awaitable[Figures]]] = {
        "connect": lambda: scenarios.connect(bench, 1000),
        "raw": lambda: scenarios.raw_broker(bench, rate, min(seconds, 20)),
        "telemetry": lambda: scenarios.telemetry(bench, rate, seconds),
        "reads": lambda: scenarios.reads(bench, float(str(options["reads_a_second"])), min(seconds, 30), rate),
        "rollout": lambda: scenarios.rollout(bench, beside, kill=True),
        "recall": lambda: scenarios.recall(bench, 20, int(devices) // 50),
        "storm": lambda: scenarios.storm(bench, window),
    }
    figures: dict[str, Figures] = {}
    for name, run in runs.items():
        if name in only or name == "connect":
            click.echo(f"{name} …", err=True)
            figures[name] = await run()
            click.echo(json.dumps(figures[name]), err=True)
            await bench.swarm.settle(60.0)
    return figures


def _compare(figures: dict[str, Figures]) -> None:
    """Add what the fleet takes of time and processor over somebody who only echoes, in the same run."""
    raw = figures.get("raw")
    for name, cores, p99 in (("telemetry", "server_cores", "p99_ms"), ("reads", "", "telemetry_p99_ms")):
        if raw and name in figures:
            figures[name]["p99_times_raw"] = figures[name][p99] / raw["p99_ms"]
            if cores:
                figures[name]["cores_times_raw"] = figures[name][cores] / max(raw["echo_cores"], 1e-3)


def _show(figures: dict[str, Figures]) -> list[str]:
    """Print all figures and claims; return the claims that are missed."""
    for scenario, values in figures.items():
        click.echo(f"\n{scenario}")
        for name, value in values.items():
            click.echo(f"  {name:<26} {value:>16,.{0 if float(value).is_integer() else 2}f}")
    click.echo("\nclaims")
    missed = []
    for claim in CLAIMS:
        holds = claim.holds(figures)
        if holds is not None:
            click.echo(
                f"  {'PASS       ' if holds else 'FALLS SHORT'} {claim.text}: "
                f"{figures[claim.scenario][claim.figure]:,.2f}"
            )
        if holds is False:
            missed.append(claim.text)
    click.echo("\npublished by others, for other work on other machines")
    for peer, figure, caveat in PEERS:
        click.echo(f"  {peer}: {figure} ({caveat})")
    return missed


if __name__ == "__main__":
    main()
