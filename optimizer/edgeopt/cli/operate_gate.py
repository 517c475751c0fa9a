"""``edgeopt rollout explain`` and ``replay``: what the gate found, and whether it would say so again.

The fleet judges; here it is asked and shown. Example::

    edgeopt rollout explain v2 --plot v2.svg
    edgeopt rollout replay v2 --what-if max_latency_increase=0.02
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from edgeopt.cli.operate_arms import tell_comparison
from edgeopt.cli.operate_options import connect, example, fleet_options, print_json
from edgeopt_contract.errors import ExitCode, StorageError, UsageError

if TYPE_CHECKING:
    from edgeopt.cli.gate_charts import ComparedView, LookView

__all__ = ["explain", "gate_option", "replay", "rules"]

F = TypeVar("F", bound=Callable[..., Any])


def gate_option(command: F) -> F:
    """Give ``command`` the option ``--gate``, which may be repeated; what it holds is read by :func:`rules`."""
    words = "Any other rule of the gate, like max_latency_increase=0.05, count=3 or dry_run=drift,class_mix."
    return click.option("--gate", "gate", multiple=True, metavar="FIELD=VALUE", help=words)(command)


def rules(given: Sequence[str]) -> dict[str, Any]:
    """Return ``FIELD=VALUE`` as fields of a policy; the fleet checks them. Raises :class:`UsageError`."""
    found: dict[str, Any] = {}
    for text in given:
        name, separator, value = text.partition("=")
        try:
            found[name] = value.split(",") if name == "dry_run" else json.loads(value)
        except ValueError as error:
            raise UsageError(f"expected --gate FIELD=NUMBER like count=3, got {text!r}") from error
        if not separator or not isinstance(found[name], int | float | list):
            raise UsageError(f"expected --gate FIELD=NUMBER like count=3, got {text!r}")
    return found


@click.command(epilog=example("edgeopt rollout explain v2", "edgeopt rollout explain v2 --plot v2.svg"))
@click.argument("name")
@click.option("--looks", type=click.IntRange(1, 500), default=50, show_default=True, help="The newest so many looks.")
@click.option("--plot", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE", help="Also draw it, as SVG.")
@fleet_options
def explain(name: str, looks: int, plot: Path | None, fleet: Path | None, *, as_json: bool) -> None:
    """Show what the gate found at each look of a rollout, and why it decided as it did."""
    with connect(fleet) as client:
        answer = client.explain_rollout(name, looks)
    found, compared = _read(answer), _compared(answer)
    if plot is not None:
        from edgeopt.cli.gate_charts import svg

        try:
            plot.write_text(svg(found, compared), encoding="utf-8")
        except OSError as error:
            raise StorageError(f"{plot} cannot be written: {error}") from error
    if as_json:
        print_json(answer)
        return
    from edgeopt.cli.gate_charts import arm_charts, charts

    _tell(found)
    tell_comparison(compared)
    for chart in (*charts(found), *arm_charts(compared)):
        click.echo(f"\n{chart}")


@click.command(epilog=example("edgeopt rollout replay v2", "edgeopt rollout replay v2 --what-if max_drift=0.2"))
@click.argument("name")
@click.option(
    "--what-if", "changes", multiple=True, metavar="FIELD=VALUE", help="Judge under a policy with this changed."
)
@fleet_options
def replay(name: str, changes: tuple[str, ...], fleet: Path | None, *, as_json: bool) -> int:
    """Compute every verdict of a rollout again from the stored evidence, and say whether any differs.

    Exit code 0 when all are the same, byte for byte, 3 when one differs; with --what-if always 0.
    """
    with connect(fleet) as client:
        answer = client.replay_rollout(name, changes)
    found, compared = _read(answer), _compared(answer)
    different = [look for look in found if not look.same]
    altered = [one for one in compared if not one.same]
    if as_json:
        print_json(answer)
    elif changes:
        _tell(found)
        click.echo(f"{len(different)} of {len(found)} looks would have been judged otherwise")
    else:
        _tell(different)
        tell_comparison(altered)
        click.echo(f"{len(found)} looks judged again: {len(different) or 'none'} differ")
        if compared:
            click.echo(f"arms compared again {len(compared)} times: {len(altered) or 'none'} differ")
    return int(ExitCode.GATE_FAIL if (different or altered) and not changes else ExitCode.GOOD)


def _read(answer: dict[str, Any]) -> list[LookView]:
    from edgeopt.cli.gate_charts import LookView
    from edgeopt.cli.operate_records import read

    return [read(LookView, item) for item in answer.get("items", ())]


def _compared(answer: dict[str, Any]) -> list[ComparedView]:
    from edgeopt.cli.gate_charts import ComparedView
    from edgeopt.cli.operate_records import read

    return [read(ComparedView, item) for item in answer.get("comparisons", ())]


def _tell(looks: Sequence[LookView]) -> None:
    from edgeopt.cli.operate_cells import plain

    for look in looks:
        when = datetime.fromtimestamp(look.at, UTC).strftime("%Y-%m-%d %H:%M:%S")
        came_to = "nothing to compare" if look.look is None else f"look {look.number} ({look.look})"
        whose = f", arm {look.arm}" if look.arm else ""
        click.echo(f"{when}  wave {look.wave + 1}{whose}, {came_to}: {look.decision}")
        for reason in look.reasons:
            click.echo(f"  - {plain(reason)}")  # devices' own words may be in it
        if not look.same:
            click.echo("  ! not the verdict that was stored")
