"""The fleet's benchmark: thousands of simulated devices against a real server and broker on this machine.

Prints a table and writes JSON. With ``--check`` it exits with 1 when a claim is missed. Example::

    python -m benchmarks.fleet --devices 5000 --rate 5000 --seconds 600 --output build/fleet.json
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import click

from benchmarks.fleet import scenarios
from benchmarks.fleet.claims import CLAIMS, PEERS
from benchmarks.fleet.devices import Setting, Swarm
from benchmarks.fleet.rig import Rig, raise_file_limit, window_of
from benchmarks.fleet.scenarios import Bench, Figures

__all__ = ["main"]

_ALL = ("connect", "raw", "telemetry", "reads", "rollout", "recall", "storm")


@click.command()
@click.option("--devices", default=500, help="Simulated devices.")
@click.option("--rate", default=500.0, help="Telemetry messages a second, of all devices together.")
@click.option("--seconds", default=5.0, help="How long telemetry is measured.")
@click.option("--reads", "reads_a_second", default=100.0, help="Reads of devices a second.")
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
    only = options["only"] or _ALL
    assert isinstance(only, tuple)
    with Rig.make(
        Path(str(options["directory"])),
        devices=int(str(options["devices"])),
        database=str(options["database"]),
        apart=bool(options["apart"]),
    ) as rig:
        figures = asyncio.run(_measure(rig, only, options))
    figures["machine"] = {"cores": os.cpu_count() or 0, "load_1_minute": os.getloadavg()[0]}
    missed = _show(figures)
    output = options["output"]
    if isinstance(output, Path):
        output.parent.mkdir(parents=True, exist_ok=True)
        output.write_text(json.dumps(figures, indent=2) + "\n")
    if options["check"] and missed:
        sys.exit(1)


async def _measure(rig: Rig, only: tuple[str, ...], options: dict[str, object]) -> dict[str, Figures]:
    devices, rate, seconds = (float(str(options[name])) for name in ("devices", "rate", "seconds"))
    window = float(str(options["window"])) or min(max(1.0, devices / 65), 90.0)
    setting = Setting(port=rig.broker_port, window=window_of(rig.bundles[0]), bundle=rig.bundles[0])
    bench = Bench(rig, Swarm(setting, int(devices)))
    gc.freeze()
    gc.disable()  # the simulator's own pauses are not the fleet's
    repeating = asyncio.create_task(bench.swarm.repeat_lost())
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
    repeating.cancel()
    bench.swarm.close()
    await asyncio.sleep(0)
    return figures


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
                f"  {'held  ' if holds else 'MISSED'} {claim.text}: {figures[claim.scenario][claim.figure]:,.2f}"
            )
        if holds is False:
            missed.append(claim.text)
    click.echo("\npublished by others, for other work on other machines")
    for peer, figure, caveat in PEERS:
        click.echo(f"  {peer}: {figure} ({caveat})")
    return missed


if __name__ == "__main__":
    main()
