"""``edgeopt rollout compare`` and ``conclude``, and the options of ``rollout create`` that make two arms.

The fleet draws the arms, observes and compares; here it is asked for and shown. Example::

    edgeopt rollout create ab --arm 3fa94c=50 --arm 77b1de=50 --observe 24h
    edgeopt rollout compare ab
    edgeopt rollout conclude ab --keep B
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from edgeopt.cli.operate_options import connect, duration, example, fleet_options, print_json, show, waves
from edgeopt_contract.errors import ExitCode, UsageError

if TYPE_CHECKING:
    from edgeopt.cli.gate_charts import ComparedView

__all__ = ["arm", "arm_options", "arms_of", "compare", "conclude", "margin", "tell_comparison"]

F = TypeVar("F", bound=Callable[..., Any])
_MARGINS = ("errors", "latency", "confidence_points", "class_mix", "drift", "divergence")
_WAITS = ExitCode.GATE_INCONCLUSIVE


def arm(value: str) -> dict[str, Any]:
    """Read ``3fa94c=50``: a bundle and the percent of the devices that get it."""
    match = re.fullmatch(r"([0-9a-f]{1,64})=(\d{1,2})%?", value)
    if not match or match[2].strip("0") == "":
        raise click.BadParameter(f"expected BUNDLE=PERCENT like 3fa94c=50, from 1 to 99, got {value!r}")
    return {"bundle": match[1], "percent": int(match[2])}


def margin(value: str) -> tuple[str, float]:
    """Read ``latency=0.02``: a metric and the difference that does not matter."""
    match = re.fullmatch(r"([a-z_]+)=(\d+(?:\.\d+)?)", value)
    if not match or match[1] not in _MARGINS:
        raise click.BadParameter(f"expected METRIC=NUMBER with a metric of {', '.join(_MARGINS)}, got {value!r}")
    return match[1], float(match[2])


_OPTIONS = (
    click.option(
        "--arm",
        "arms",
        type=arm,
        multiple=True,
        metavar="BUNDLE=PERCENT",
        help="Instead of --bundle, twice: two bundles side by side, A and B.",
    ),
    click.option(
        "--observe", "observe", type=duration, help="How long both arms are watched at the end.  [fleet: 24h]"
    ),
    click.option("--observe-rows", type=click.IntRange(min=0), help="Rows that each arm must serve.  [fleet: 1000]"),
    click.option("--confidence", type=float, help="Of the comparison as a whole.  [fleet: 0.95]"),
    click.option(
        "--margin",
        "margins",
        type=margin,
        multiple=True,
        metavar="METRIC=NUMBER",
        help=f"Differences up to that count as none: {', '.join(_MARGINS)}.",
    ),
)


def arm_options(command: F) -> F:
    """Give ``command`` the options of two arms."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def arms_of(bundle: str | None, values: dict[str, Any]) -> dict[str, Any]:
    """Take the options out of ``values`` and return bundle, or arms and observation, as the fleet reads them."""
    arms = list(values.pop("arms"))
    plain = {"seconds": "observe", "minimum_rows": "observe_rows", "confidence": "confidence"}
    given = {theirs: values.pop(ours) for theirs, ours in plain.items()}
    observation = {name: value for name, value in given.items() if value is not None} | dict(values.pop("margins"))
    if not arms:
        if bundle is None:
            raise UsageError("give --bundle DIGEST, or --arm BUNDLE=PERCENT twice")
        if observation:
            raise UsageError("--observe and what goes with it need two --arm BUNDLE=PERCENT")
        return {"bundle": bundle}
    if bundle is not None or len(arms) != 2:  # A and B
        raise UsageError(f"give --arm BUNDLE=PERCENT twice and no --bundle, got {len(arms)} arms")
    if sum(one["percent"] for one in arms) > 100:
        raise UsageError("expected arms of 100 percent together at most")
    return {"arms": arms, **({"observation": observation} if observation else {})}


@click.command(epilog=example("edgeopt rollout compare ab"))
@click.argument("name")
@fleet_options
def compare(name: str, fleet: Path | None, *, as_json: bool) -> int:
    """Show how the two arms of a rollout compare: which is better, in what, and how sure that is.

    Exit code 0 when something was found, 4 while they are observed and when there was not enough data.
    """
    with connect(fleet) as client:
        answer = client.compare_rollout(name)
    found = answer.get("compared")
    if as_json:
        print_json(answer)
    elif found is None:
        click.echo(_progress(answer))
    else:
        from edgeopt.cli.gate_charts import ComparedView, arm_charts
        from edgeopt.cli.operate_records import read

        view = read(ComparedView, found)
        tell_comparison([view])
        for chart in arm_charts([view]):
            click.echo(f"\n{chart}")
        if answer.get("kept"):
            click.echo(f"\nkept: {answer['kept']}")
    unknown = found is None or found.get("result") == "not_enough_data"
    return int(_WAITS if unknown else ExitCode.GOOD)


def tell_comparison(found: Sequence[ComparedView]) -> None:
    """Print comparisons in words."""
    from edgeopt.cli.operate_cells import plain

    for one in found:
        first, *others = one.reasons
        click.echo(plain(f"comparison {one.number}: {first}").plain)
        for reason in others:
            click.echo(f"  - {plain(reason)}")
        if not one.same:
            click.echo("  ! not the verdict that was stored")


def _progress(answer: dict[str, Any]) -> str:
    """Say how far the observation is."""
    rows = ", ".join(f"{name} {number}" for name, number in sorted(answer["rows"].items()))
    hours, whole = answer["observed_seconds"] / 3600, answer["observe_seconds"] / 3600
    return (
        f"{answer['name']} is {answer['state']}: observed for {hours:.1f} of {whole:.1f} h\n"
        f"rows served: {rows or 'none'}; each arm needs {answer['minimum_rows']}\n"
        "the arms are compared once the observation is over"
    )


@click.command(epilog=example("edgeopt rollout conclude ab --keep B", "edgeopt rollout conclude ab --keep both"))
@click.argument("name")
@click.option("--keep", required=True, type=click.Choice(["A", "B", "both"]), help="The arm that wins; both: all stay.")
@click.option("--rollout", "rest", metavar="NAME", help="Name of the rollout to the rest.  [NAME-rest]")
@click.option("--waves", type=waves, help="Of the devices that change.  [fleet: 20%,50%,100%]")
@click.option("--draft", is_flag=True, help="Create it without starting it.")
@fleet_options
def conclude(  # noqa: PLR0913  # one parameter an option
    name: str, keep: str, rest: str | None, waves: tuple[int | str, ...] | None, fleet: Path | None, *, draft: bool,
    as_json: bool,
) -> None:  # fmt: skip
    """Decide between the arms of a rollout that ended.

    The bundle of the arm that is kept goes to the devices of the cohort that run something else, as an ordinary rollout
    with the same rules and approval.
    """
    body: dict[str, Any] = {"keep": keep, "rollout": rest or f"{name}-rest"}
    body |= {"waves": list(waves)} if waves else {}
    body |= {"start": False} if draft else {}
    with connect(fleet) as client:
        answer = client.conclude_rollout(name, body)
    if as_json:
        print_json(answer)
        return
    if answer["rollout"] is None:
        click.echo(f"{name}: kept {keep}; every device stays as it is")
        return
    from edgeopt.cli.operate_records import RolloutView, read
    from edgeopt.cli.operate_views import rollout_page

    click.echo(f"{name}: kept {keep}")
    show(rollout_page(read(RolloutView, answer["rollout"])))
