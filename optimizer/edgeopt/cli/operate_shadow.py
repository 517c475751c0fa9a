"""``edgeopt shadow``: let a challenger run beside what serves, see how it agrees, and promote it.

The fleet decides and judges; here it is asked and shown. Example::

    edgeopt shadow create next --bundle 3fa94c --share 10% --for 7d
    edgeopt shadow watch next && edgeopt shadow promote next
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgeopt.cli.operate_options import (
    ListByDefault,
    connect,
    duration,
    example,
    fleet_options,
    print_json,
    share,
    show,
    waves,
)
from edgeopt.cli.operate_watch import follow
from edgeopt_contract.errors import ExitCode, UsageError

if TYPE_CHECKING:
    from edgeopt.cli.shadow_pages import ShadowView

__all__ = ["shadow"]

_EXITS = {"recommend": ExitCode.GOOD, "do_not_recommend": ExitCode.GATE_FAIL}


@click.group(
    cls=ListByDefault,
    epilog=example("edgeopt shadow create next --bundle 3fa94c --share 10% --for 7d", "edgeopt shadow watch next"),
)
def shadow() -> None:
    """Let a challenger run beside what serves; it never answers anybody."""


@shadow.command(
    "create",
    epilog=example(
        "edgeopt shadow create next --bundle 3fa94c --cohort oslo --share 10% --for 7d \\",
        "    --minimum-agreement 97% --rule minimum_class_agreement=0.9",
    ),
)
@click.argument("name")
@click.option("--bundle", required=True, metavar="DIGEST", help="The challenger: what 'edgeopt publish' printed.")
@click.option("--cohort", default="all", show_default=True, help="On which devices.")
@click.option("--share", type=share, default="10%", show_default=True, help="Of the requests that it runs, too.")
@click.option("--for", "seconds", type=duration, default="7d", show_default=True, help="How long, at most 90d.")
@click.option("--at-once", type=click.IntRange(min=1), help="Devices that run it at a time.  [fleet: 100]")
@click.option("--rows-each", type=click.IntRange(min=1), help="A device that compared so many makes room for the next.")
@click.option("--minimum-agreement", type=share, help="What must surely be reached.  [fleet: 95%]")
@click.option("--rule", "given", multiple=True, metavar="FIELD=VALUE", help="Another rule, like minimum_rows=200.")
@click.option("--draft", is_flag=True, help="Create it without starting it.")
@fleet_options
def shadow_create(  # noqa: PLR0913  # one parameter an option
    name: str,
    fleet: Path | None,
    *,
    bundle: str,
    cohort: str,
    share: float,
    seconds: float,
    at_once: int | None,
    rows_each: int | None,
    minimum_agreement: float | None,
    given: tuple[str, ...],
    draft: bool,
    as_json: bool,
) -> None:
    """Create a shadow and start it. What is not given, the fleet sets."""
    policy = _rules(given) | ({} if minimum_agreement is None else {"minimum_agreement": minimum_agreement})
    optional = {"at_once": at_once, "rows_each": rows_each, "policy": policy or None}
    body = {
        "name": name,
        "bundle": bundle,
        "cohort": cohort,
        "share": share,
        "until": int(time.time() + seconds),
        "start": not draft,
        **{key: value for key, value in optional.items() if value is not None},
    }
    with connect(fleet) as client:
        answer = client.create_shadow(body)
    _show(answer, None, as_json=as_json)


@shadow.command("list", epilog=example("edgeopt shadow list"))
@fleet_options
def shadow_list(fleet: Path | None, *, as_json: bool) -> None:
    """List shadows."""
    with connect(fleet) as client:
        answer = client.shadows()
    if as_json:
        print_json(answer)
        return
    from edgeopt.cli.shadow_pages import shadows_table

    show(shadows_table([_read(item) for item in answer]))


@shadow.command("show", epilog=example("edgeopt shadow show next"))
@click.argument("name")
@fleet_options
def shadow_show(name: str, fleet: Path | None, *, as_json: bool) -> None:
    """Show one shadow: how the challenger agrees by device and class, and what is said of it."""
    with connect(fleet) as client:
        _show(client.shadow(name), client.shadow_agreement(name), as_json=as_json)


def _order_command(order: str, summary: str) -> click.Command:
    """Return the command that gives the fleet one order."""

    @click.argument("name")
    @fleet_options
    def give(name: str, fleet: Path | None, *, as_json: bool) -> None:
        with connect(fleet) as client:
            _show(client.order_shadow(name, order), None, as_json=as_json)

    return click.command(order, help=summary, epilog=example(f"edgeopt shadow {order} next"))(give)


shadow.add_command(_order_command("start", "Start a draft."))
shadow.add_command(_order_command("end", "End a shadow before its time; what was compared stays."))


@shadow.command("watch", epilog=example("edgeopt shadow watch next && edgeopt shadow promote next"))
@click.argument("name")
@fleet_options
def shadow_watch(name: str, fleet: Path | None, *, as_json: bool) -> int:
    """Watch a shadow until the challenger is recommended or refused, or the shadow has ended.

    Exit code 0 when it is recommended, 3 when it is not, 4 when it ended without enough. It follows the fleet's events,
    over restarts of the fleet: a line for each change.
    """
    from edgeopt.cli.shadow_pages import state_line

    said = ""
    with connect(fleet) as client:
        for answer in follow(client, "shadows", name, client.shadow, _is_said):
            line = json.dumps(answer, ensure_ascii=False) if as_json else state_line(_read(answer))
            if line != said:
                click.echo(line)
            said = line
    decision = (answer.get("verdict") or {}).get("decision", "")
    return int(_EXITS.get(decision, ExitCode.GATE_INCONCLUSIVE))


@shadow.command("replay", epilog=example("edgeopt shadow replay next --what-if minimum_agreement=0.97"))
@click.argument("name")
@click.option("--what-if", "changes", multiple=True, metavar="FIELD=VALUE", help="Judge with this rule changed.")
@fleet_options
def shadow_replay(name: str, changes: tuple[str, ...], fleet: Path | None, *, as_json: bool) -> int:
    """Compute every verdict on a shadow again from the stored evidence, and say whether any differs.

    Exit code 0 when all are the same, byte for byte, 3 when one differs; with --what-if always 0.
    """
    with connect(fleet) as client:
        answer = client.replay_shadow(name, changes)
    if as_json:
        print_json(answer)
    else:
        for look in answer["items"]:
            click.echo(f"look {look['number']}: {look['figures']['decision']}{'' if look['same'] else ' (it was not)'}")
        different = sum(not look["same"] for look in answer["items"])
        click.echo(f"{len(answer['items'])} looks judged again: {different or 'none'} differ")
    return int(ExitCode.GOOD if changes or answer["same"] else ExitCode.GATE_FAIL)


@shadow.command("promote", epilog=example("edgeopt shadow promote next --waves 20%,100%"))
@click.argument("name")
@click.option("--rollout", "rollout_name", metavar="NAME", help="Of the rollout.  [default: the shadow's]")
@click.option("--cohort", help="To which devices.  [default: the shadow's]")
@click.option("--waves", type=waves, default="20%,50%,100%", show_default=True, help="As for 'edgeopt rollout create'.")
@click.option("--anyway", is_flag=True, help="Also when the challenger is not recommended.")
@click.option("--draft", is_flag=True, help="Create the rollout without starting it.")
@fleet_options
def shadow_promote(  # noqa: PLR0913  # one parameter an option
    name: str,
    fleet: Path | None,
    *,
    rollout_name: str | None,
    cohort: str | None,
    waves: tuple[int | str, ...],
    anyway: bool,
    draft: bool,
    as_json: bool,
) -> None:
    """Create an ordinary rollout of the challenger; the shadow goes on until its device switches."""
    with connect(fleet) as client:
        answer = client.shadow(name)
        verdict = answer.get("verdict") or {"decision": "not_enough", "reasons": ["nothing was compared yet"]}
        if verdict["decision"] != "recommend" and not anyway:
            raise UsageError(
                f"the challenger of {name} is not recommended: {'; '.join(verdict['reasons'])}. Wait for more, or "
                "give --anyway"
            )
        body = {
            "name": rollout_name or name,
            "bundle": answer["bundle"],
            "cohort": cohort or answer["cohort"],
            "waves": list(waves),
            "start": not draft,
        }
        made = client.create_rollout(body)
    if as_json:
        print_json(made)
    else:
        click.echo(f"rollout {made['name']} is {made['state']}; see: edgeopt rollout watch {made['name']}")


def _rules(given: Sequence[str]) -> dict[str, float]:
    """Return ``FIELD=NUMBER`` as fields of a policy; the fleet checks them. Raises :class:`UsageError`."""
    found: dict[str, float] = {}
    for text in given:
        name, _, value = text.partition("=")
        try:
            found[name] = json.loads(value)
        except ValueError as error:
            raise UsageError(f"expected --rule FIELD=NUMBER like minimum_rows=200, got {text!r}") from error
    return found


def _is_said(answer: dict[str, Any]) -> bool:
    """Say whether it is known what to do, or nothing more will come."""
    return answer["state"] == "ended" or (answer.get("verdict") or {}).get("decision") in _EXITS


def _read(answer: dict[str, Any]) -> ShadowView:
    from edgeopt.cli.operate_records import read
    from edgeopt.cli.shadow_pages import ShadowView

    return read(ShadowView, answer)


def _show(answer: dict[str, Any], agreement: dict[str, Any] | None, *, as_json: bool) -> None:
    if as_json:
        print_json(answer if agreement is None else {**answer, "agreement": agreement})
        return
    from edgeopt.cli.shadow_pages import shadow_lines

    for line in shadow_lines(_read(answer), agreement):
        click.echo(line)
