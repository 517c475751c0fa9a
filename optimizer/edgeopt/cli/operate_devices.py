"""``edgeopt devices`` and ``edgeopt cohorts``: which devices there are, how they are, and names for some of them.

Every command is one operation of the fleet's HTTP API. Example::

    edgeopt devices --tag site=oslo --health failing
    edgeopt cohorts create oslo-pi --tag site=oslo --hardware aarch64-dotprod
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from edgeopt.cli.operate_options import (
    ListByDefault,
    connect,
    example,
    fleet_options,
    print_json,
    show,
    tag_option,
)

__all__ = ["cohorts", "devices"]

F = TypeVar("F", bound=Callable[..., Any])
_STATES = (
    "idle", "offered", "downloading", "verifying", "staged", "self_test", "activating", "baking", "confirmed",
    "failed", "rolled_back", "superseded", "rejected",
)  # fmt: skip  # a line of words


def _filter_options(command: F) -> F:
    """Give ``command`` what devices are filtered by; all of it must hold."""
    for option in (
        click.option(
            "--health",
            type=click.Choice(["ok", "failing", "offline", "revoked"]),
            help="How they are, the worst first.",
        ),
        click.option("--online/--offline", default=None, help="Only those that are connected, or those that are not."),
        click.option("--state", type=click.Choice(_STATES), metavar="STATE", help="The state of their newest update."),
        click.option("--agent-version", help="Their agent's version."),
        click.option("--running", metavar="DIGEST", help="The bundle that they run, or its beginning; none: nothing."),
        click.option("--hardware", multiple=True, metavar="CLASS", help="Their hardware class; several: one of them."),
    ):
        command = option(command)
    return command


@click.group(cls=ListByDefault, epilog=example("edgeopt devices --tag site=oslo", "edgeopt devices show cam-7"))
def devices() -> None:
    """Show the devices of the fleet."""


@devices.command("list", epilog=example("edgeopt devices list --tag site=oslo --health failing --json"))
@tag_option("Only devices with this tag, like site=oslo; several must all match.")
@_filter_options
@click.option("--cohort", help="Only those that belong to this cohort now.")
@fleet_options
def devices_list(tags: tuple[tuple[str, str], ...], fleet: Path | None, *, as_json: bool, **wanted: Any) -> None:
    """List devices: how they are, what they run, how their newest update stands, and when they were last heard of."""
    with connect(fleet) as client:
        answer = client.devices(dict(tags), wanted)
    if as_json:
        print_json(answer)
        return
    _show_devices(answer)
    click.echo(f"{len(answer)} devices")


def _show_devices(answer: list[dict[str, Any]]) -> None:
    from edgeopt.cli.operate_records import DeviceView, read
    from edgeopt.cli.operate_views import devices_table

    show(devices_table([read(DeviceView, item) for item in answer], time.time()))


@devices.command("show", epilog=example("edgeopt devices show cam-7"))
@click.argument("device", metavar="ID")
@fleet_options
def devices_show(device: str, fleet: Path | None, *, as_json: bool) -> None:
    """Show everything about one device."""
    with connect(fleet) as client:
        answer = client.device(device)
    if as_json:
        print_json(answer)
        return
    from edgeopt.cli.operate_records import DeviceView, read
    from edgeopt.cli.operate_views import device_page

    show(device_page(read(DeviceView, answer)))


@devices.command("reports", epilog=example("edgeopt devices reports cam-7 --limit 20"))
@click.argument("device", metavar="ID")
@click.option("--limit", type=click.IntRange(1, 1000), default=50, show_default=True, help="At most so many.")
@fleet_options
def devices_reports(device: str, limit: int, fleet: Path | None, *, as_json: bool) -> None:
    """List what a device reported of its updates, newest first."""
    with connect(fleet) as client:
        answer = client.device_part(device, "reports", limit)
    _show_rows(answer, ("at", "job", "state", "result", "detail"), as_json=as_json)


@devices.command("windows", epilog=example("edgeopt devices windows cam-7"))
@click.argument("device", metavar="ID")
@click.option("--limit", type=click.IntRange(1, 1000), default=50, show_default=True, help="At most so many.")
@fleet_options
def devices_windows(device: str, limit: int, fleet: Path | None, *, as_json: bool) -> None:
    """List the profile windows that the fleet keeps of a device, newest first."""
    with connect(fleet) as client:
        answer = client.device_part(device, "windows", limit)
    _show_rows(answer, ("end", "bundle", "variant", "rows", "errors"), as_json=as_json)


@devices.command("messages", epilog=example("edgeopt devices messages cam-7"))
@click.argument("device", metavar="ID")
@fleet_options
def devices_messages(device: str, fleet: Path | None, *, as_json: bool) -> None:
    """Show which numbered messages of a device are stored."""
    with connect(fleet) as client:
        answer = client.device_part(device, "messages")
    _show_rows(answer, ("session", "stored", "upto", "rows", "errors"), as_json=as_json)


def _show_rows(answer: list[dict[str, Any]], columns: tuple[str, ...], *, as_json: bool) -> None:
    if as_json:
        print_json(answer)
        return
    from edgeopt.cli.operate_views import rows_table

    show(rows_table(columns, answer))


@devices.command("tags", epilog=example("edgeopt devices tags cam-7 --tag site=oslo --tag line=2"))
@click.argument("device", metavar="ID")
@tag_option("A tag that the device is to have; several are given one by one. Those it has and that are not given go.")
@click.option("--if-match", metavar="ETAG", help="Only if nobody changed them since they had this ETag.")
@fleet_options
def devices_tags(
    device: str, tags: tuple[tuple[str, str], ...], if_match: str | None, fleet: Path | None, *, as_json: bool
) -> None:
    """Give a device other tags. Rollouts that exist keep their members."""
    with connect(fleet) as client:
        answer = client.put_device_tags(device, dict(tags), if_match)
    if as_json:
        print_json(answer)
    else:
        shown = " ".join(f"{key}={value}" for key, value in sorted(answer["tags"].items()))
        click.echo(f"{device}: {shown or 'no tags'}")


@devices.command("revoke", epilog=example("edgeopt devices revoke cam-7"))
@click.argument("device", metavar="ID")
@fleet_options
def devices_revoke(device: str, fleet: Path | None, *, as_json: bool) -> None:
    """Take a device's identity away: it is cut off at once. A new token lets it, or another in its place, back in."""
    with connect(fleet) as client:
        answer = client.revoke_device(device)
    if as_json:
        print_json(answer)
    else:
        click.echo(f"{device} is revoked and cut off")


@devices.command("watch", epilog=example("edgeopt devices watch", "edgeopt devices watch --seconds 60 --json"))
@click.option("--seconds", type=click.IntRange(min=0), help="End after so long.  [default: when it is interrupted]")
@fleet_options
def devices_watch(seconds: int | None, fleet: Path | None, *, as_json: bool) -> None:
    """Show each device that changes, as it changes: a line for each, or with --json the device on a line."""
    from edgeopt.cli.operate_records import DeviceView, read
    from edgeopt.cli.operate_views import device_line
    from edgeopt.cli.operate_watch import say_lost

    with connect(fleet) as client:
        for event in client.events("devices", seconds, say_lost):
            if event is None or event.name != "device":
                continue
            if as_json:
                print_json(event.data, lines=True)
            else:
                click.echo(device_line(read(DeviceView, event.data)))


@click.group(cls=ListByDefault, epilog=example("edgeopt cohorts create oslo --tag site=oslo", "edgeopt cohorts"))
def cohorts() -> None:
    """Save filters over devices under a name, as targets of rollouts."""


@cohorts.command(
    "create", epilog=example("edgeopt cohorts create oslo-pi --tag site=oslo --hardware aarch64-dotprod --health ok")
)
@click.argument("name")
@tag_option("A tag that members have, like site=oslo; several must all match.")
@_filter_options
@click.option("--if-match", metavar="ETAG", help="Only if nobody changed it since it had this ETag.")
@fleet_options
def cohorts_create(
    name: str,
    tags: tuple[tuple[str, str], ...],
    if_match: str | None,
    fleet: Path | None,
    *,
    as_json: bool,
    **wanted: Any,
) -> None:
    """Save a cohort, or change what it means; without a filter it means all devices."""
    body = {
        key: list(value) if key == "hardware" else value for key, value in wanted.items() if value not in (None, ())
    }
    with connect(fleet) as client:
        _show_cohorts([client.save_cohort(name, dict(tags), body, if_match)], as_json=as_json, one=True)


@cohorts.command("list", epilog=example("edgeopt cohorts list"))
@fleet_options
def cohorts_list(fleet: Path | None, *, as_json: bool) -> None:
    """List cohorts; 'all' always exists."""
    with connect(fleet) as client:
        _show_cohorts(client.cohorts(), as_json=as_json)


@cohorts.command("show", epilog=example("edgeopt cohorts show oslo --json", "edgeopt devices --cohort oslo"))
@click.argument("name")
@fleet_options
def cohorts_show(name: str, fleet: Path | None, *, as_json: bool) -> None:
    """Show one cohort. Who is in it now: edgeopt devices --cohort NAME."""
    with connect(fleet) as client:
        _show_cohorts([client.cohort(name)], as_json=as_json, one=True)


@cohorts.command("delete", epilog=example("edgeopt cohorts delete oslo"))
@click.argument("name")
@fleet_options
def cohorts_delete(name: str, fleet: Path | None, *, as_json: bool) -> None:
    """Forget a cohort that no rollout and no token uses."""
    with connect(fleet) as client:
        client.delete_cohort(name)
    if as_json:
        print_json({"deleted": name})
    else:
        click.echo(f"the cohort {name} is deleted")


def _show_cohorts(answer: list[dict[str, Any]], *, as_json: bool, one: bool = False) -> None:
    if as_json:
        print_json(answer[0] if one else answer)
        return
    from edgeopt.cli.operate_records import CohortView, read
    from edgeopt.cli.operate_views import cohorts_table

    show(cohorts_table([read(CohortView, item) for item in answer]))
