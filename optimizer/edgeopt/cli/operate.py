"""The operator's commands: they speak to the fleet's HTTP API, and the fleet decides.

Bundles and alerts are here; devices and cohorts in :mod:`edgeopt.cli.operate_devices`, rollouts in
:mod:`edgeopt.cli.operate_rollout`, people, tokens and the audit log in :mod:`edgeopt.cli.operate_people`.
Heavy modules are imported inside the commands, so that ``--help`` answers at once. Example::

    EDGEOPT_FLEET=fleet/operator.json edgeopt bundles --name digits
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import click

from edgeopt.cli.operate_approval import approve, deny
from edgeopt.cli.operate_arms import compare, conclude
from edgeopt.cli.operate_gate import explain, replay
from edgeopt.cli.operate_options import (
    ListByDefault,
    connect,
    console,
    example,
    fleet_options,
    print_json,
    show,
)
from edgeopt.cli.operate_rollout import rollout
from edgeopt_contract.errors import UsageError

__all__ = ["alerts", "bundles", "publish", "rollout"]

rollout.add_command(approve)
rollout.add_command(compare)
rollout.add_command(conclude)
rollout.add_command(explain)
rollout.add_command(replay)
rollout.add_command(deny)


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

        from edgeopt.fleet_publishing import publish_bundle
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


@click.group(cls=ListByDefault, epilog=example("edgeopt bundles", "edgeopt bundles show 3fa94c"))
def bundles() -> None:
    """List and show the bundles that were published."""


@bundles.command("list", epilog=example("edgeopt bundles list --name digits --complete"))
@click.option("--name", help="Only bundles of this name.")
@click.option("--version", "version", help="Only bundles of this version.")
@click.option("--complete/--incomplete", default=None, help="Only those that can be rolled out, or those that cannot.")
@fleet_options
def bundles_list(
    name: str | None, version: str | None, fleet: Path | None, *, complete: bool | None, as_json: bool
) -> None:
    """List bundles, newest first."""
    with connect(fleet) as client:
        answer = client.bundles(name=name, version=version, complete=complete)
    if as_json:
        print_json(answer)
    elif answer:
        from edgeopt.cli.operate_records import BundleView, read
        from edgeopt.cli.operate_views import bundles_table

        show(bundles_table([read(BundleView, item) for item in answer]))
    else:
        click.echo("no bundles; publish one: edgeopt publish DIR")


@bundles.command("show", epilog=example("edgeopt bundles show 3fa94c"))
@click.argument("digest")
@fleet_options
def bundles_show(digest: str, fleet: Path | None, *, as_json: bool) -> None:
    """Show the bundle whose digest begins with DIGEST: its variants, who signed it, where it runs."""
    with connect(fleet) as client:
        answer = client.bundle(digest)
    if as_json:
        print_json(answer)
        return
    from edgeopt.cli.operate_bundle_page import bundle_page
    from edgeopt.cli.operate_records import BundlePageView, read

    show(bundle_page(read(BundlePageView, answer)))


@click.group(cls=ListByDefault, epilog=example("edgeopt alerts --all", "edgeopt alerts close 7"))
def alerts() -> None:
    """Show what wants attention: drift, and alarms about security."""


@alerts.command("list", epilog=example("edgeopt alerts list --kind drift --cohort oslo"))
@click.option("--all", "include_closed", is_flag=True, help="Also alerts that are over.")
@click.option("--kind", help="Only alerts of this kind, like drift or token_reuse.")
@click.option("--cohort", help="Only drift of this cohort.")
@fleet_options
def alerts_list(
    kind: str | None, cohort: str | None, fleet: Path | None, *, include_closed: bool, as_json: bool
) -> None:
    """List alerts, newest first: which cohort, which feature, how far from the calibration data."""
    with connect(fleet) as client:
        answer = client.alerts(include_closed=include_closed, kind=kind, cohort=cohort)
    if as_json:
        print_json(answer)
    elif answer:
        from edgeopt.cli.operate_records import AlertView, read
        from edgeopt.cli.operate_views import alerts_table

        show(alerts_table([read(AlertView, item) for item in answer]))
    else:
        click.echo("no alerts" if include_closed else "no open alerts")


@alerts.command("show", epilog=example("edgeopt alerts show 7"))
@click.argument("number", type=click.IntRange(min=1))
@fleet_options
def alerts_show(number: int, fleet: Path | None, *, as_json: bool) -> None:
    """Show the alert NUMBER."""
    with connect(fleet) as client:
        answer = client.alert(number)
    if as_json:
        print_json(answer)
        return
    from edgeopt.cli.operate_records import AlertView, read
    from edgeopt.cli.operate_views import alert_page

    show(alert_page(read(AlertView, answer)))


@alerts.command("close", epilog=example("edgeopt alerts close 7"))
@click.argument("number", type=click.IntRange(min=1))
@fleet_options
def alerts_close(number: int, fleet: Path | None, *, as_json: bool) -> None:
    """Close the alarm NUMBER, once it was looked into. Drift alerts close by themselves."""
    with connect(fleet) as client:
        answer = client.close_alert(number)
    if as_json:
        print_json(answer)
    else:
        click.echo(f"alert {number} is closed")
