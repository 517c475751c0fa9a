"""The operator's commands: they speak to the fleet's HTTP API, and the fleet decides.

Tokens, devices, cohorts, bundles and alerts are here; rollouts in :mod:`edgeopt.cli.operate_rollout`.
Heavy modules are imported inside the commands, so that ``--help`` answers at once. Example::

    EDGEOPT_FLEET=fleet/operator.json edgeopt devices --tag site=oslo
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import click

from edgeopt.cli.operate_options import (
    ListByDefault,
    connect,
    console,
    duration,
    example,
    fleet_options,
    print_json,
    show,
    tag_option,
)
from edgeopt.cli.operate_rollout import rollout
from edgeopt_contract.errors import UsageError

__all__ = ["alerts", "bundles", "cohort", "devices", "publish", "rollout", "token"]


@click.group(epilog=example("edgeopt token create --uses 5 --tag site=oslo"))
def token() -> None:
    """Make one-time tokens with which devices enrol."""


@token.command(
    "create",
    epilog=example(
        "edgeopt token create --uses 5 --expires 2h --tag site=oslo",
        'TOKEN="$(edgeopt token create)"',
    ),
)
@click.option("--uses", type=click.IntRange(min=1), default=1, show_default=True, help="How many devices may use it.")
@click.option("--expires", type=duration, default="1d", show_default=True, help="For how long it may be used.")
@tag_option("A tag that devices get when they enrol with it, like site=oslo; may be given several times.")
@fleet_options
def token_create(
    uses: int, expires: float, tags: tuple[tuple[str, str], ...], fleet: Path | None, *, as_json: bool
) -> None:
    """Make a token and print it. It is shown once."""
    with connect(fleet) as client:
        answer = client.create_token(uses, int(expires), dict(tags))
    if as_json:
        print_json(answer)
    else:
        click.echo(answer["token"])


@click.group(cls=ListByDefault, epilog=example("edgeopt devices --tag site=oslo", "edgeopt devices show cam-7"))
def devices() -> None:
    """Show the devices of the fleet."""


@devices.command("list", epilog=example("edgeopt devices list --tag site=oslo --json"))
@tag_option("Only devices with this tag, like site=oslo; several must all match.")
@fleet_options
def devices_list(tags: tuple[tuple[str, str], ...], fleet: Path | None, *, as_json: bool) -> None:
    """List devices: what they run, whether they are there, how much they served."""
    with connect(fleet) as client:
        answer = client.devices(dict(tags))
    if as_json:
        print_json(answer)
        return
    from edgeopt.cli.operate_records import DeviceView, read
    from edgeopt.cli.operate_views import devices_table

    show(devices_table([read(DeviceView, item) for item in answer]))
    click.echo(f"{len(answer)} devices")


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


@click.group(cls=ListByDefault, epilog=example("edgeopt cohort create oslo --tag site=oslo"))
def cohort() -> None:
    """Save filters over tags under a name, as targets of rollouts."""


@cohort.command("create", epilog=example("edgeopt cohort create oslo-line-2 --tag site=oslo --tag line=2"))
@click.argument("name")
@tag_option("A tag that members have, like site=oslo; several must all match. None means all devices.")
@fleet_options
def cohort_create(name: str, tags: tuple[tuple[str, str], ...], fleet: Path | None, *, as_json: bool) -> None:
    """Save a cohort, or change what it means. Rollouts that exist keep their members."""
    with connect(fleet) as client:
        _show_cohorts([client.save_cohort(name, dict(tags))], as_json=as_json, one=True)


@cohort.command("list", epilog=example("edgeopt cohort list"))
@fleet_options
def cohort_list(fleet: Path | None, *, as_json: bool) -> None:
    """List cohorts; 'all' always exists."""
    with connect(fleet) as client:
        _show_cohorts(client.cohorts(), as_json=as_json)


@cohort.command("show", epilog=example("edgeopt cohort show oslo --json"))
@click.argument("name")
@fleet_options
def cohort_show(name: str, fleet: Path | None, *, as_json: bool) -> None:
    """Show one cohort and the devices in it now."""
    with connect(fleet) as client:
        _show_cohorts([client.cohort(name)], as_json=as_json, one=True)


def _show_cohorts(answer: list[dict[str, object]], *, as_json: bool, one: bool = False) -> None:
    if as_json:
        print_json(answer[0] if one else answer)
        return
    from edgeopt.cli.operate_records import CohortView, read
    from edgeopt.cli.operate_views import cohorts_table

    show(cohorts_table([read(CohortView, item) for item in answer]))


@click.command(epilog=example("edgeopt publish digits-bundle", "edgeopt publish digits-bundle --signed signed.json"))
@click.argument("directory", type=click.Path(path_type=Path), metavar="DIR")
@click.option(
    "--signed", type=click.Path(path_type=Path), metavar="FILE",
    help="Signed metadata to hand in with it: what 'edgeopt sign --output' wrote.",
)  # fmt: skip
@fleet_options
def publish(directory: Path, signed: Path | None, fleet: Path | None, *, as_json: bool) -> None:
    """Verify the bundle in DIR and upload what the fleet lacks of it. Prints the bundle's digest.

    An interrupted upload goes on where it stopped when the command is given again.
    """
    metadata = _signed_metadata(signed)
    with connect(fleet) as client:
        from rich.progress import Progress

        from edgeopt.fleet_client import publish_bundle
        from edgeopt_contract.bundle import open_bundle

        bundle = open_bundle(directory)
        with Progress(console=console(stderr=True), transient=True) as progress:
            task = progress.add_task("blocks", total=None)
            digest = publish_bundle(
                client, bundle, lambda sent, total: progress.update(task, completed=sent, total=total)
            )
        for role, text in metadata.items():
            standing = client.put_metadata(role, text)
            state = "in force" if standing.get("in_force") else "waits for more signatures"
            click.echo(f"{role} version {standing.get('version')}: {state}", err=True)
    if as_json:
        print_json({"digest": digest, "name": bundle.manifest.name, "version": bundle.manifest.version})
    else:
        click.echo(digest)


def _signed_metadata(path: Path | None) -> dict[str, str]:
    """Return signed metadata by role, root first: it says whose signatures under the others count."""
    if path is None:
        return {}
    import msgspec

    try:
        signed = msgspec.json.decode(path.read_bytes(), type=dict[Literal["root", "targets"], str])
    except (OSError, msgspec.MsgspecError) as error:
        raise UsageError(f"{path}: expected the file that 'edgeopt sign --output' wrote: {error}") from error
    return dict(sorted(signed.items()))


@click.command(epilog=example("edgeopt bundles"))
@fleet_options
def bundles(fleet: Path | None, *, as_json: bool) -> None:
    """List the bundles that were published."""
    with connect(fleet) as client:
        answer = client.bundles()
    if as_json:
        print_json(answer)
        return
    from edgeopt.cli.operate_records import BundleView, read
    from edgeopt.cli.operate_views import bundles_table

    show(bundles_table([read(BundleView, item) for item in answer]))


@click.command(epilog=example("edgeopt alerts --all"))
@click.option("--all", "include_closed", is_flag=True, help="Also alerts that are over.")
@fleet_options
def alerts(fleet: Path | None, *, include_closed: bool, as_json: bool) -> None:
    """Show drift alerts: which cohort, which feature, how far from the calibration data."""
    with connect(fleet) as client:
        answer = client.alerts(include_closed=include_closed)
    if as_json:
        print_json(answer)
        return
    from edgeopt.cli.operate_records import AlertView, read
    from edgeopt.cli.operate_views import alerts_table

    if answer:
        show(alerts_table([read(AlertView, item) for item in answer]))
    else:
        click.echo("no alerts" if include_closed else "no open alerts")
