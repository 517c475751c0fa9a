"""``edgeopt rollout``: create rollouts, give them orders, and watch them.

The fleet decides what happens to a rollout; here it is asked for and shown. Example::

    edgeopt rollout create v2 --bundle 3fa94c --cohort oslo --waves 20%,50%,100%
    edgeopt rollout watch v2
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgeopt.cli.operate_arms import arm_options, arms_of
from edgeopt.cli.operate_gate import gate_option, rules
from edgeopt.cli.operate_options import (
    ListByDefault,
    connect,
    console,
    days,
    duration,
    example,
    fleet_options,
    moment,
    print_json,
    share,
    show,
    waves,
    window,
)
from edgeopt.cli.operate_watch import follow
from edgeopt.cli.rollout_options import execution_of, execution_options
from edgeopt_contract.errors import ExitCode, UsageError

if TYPE_CHECKING:
    from edgeopt.cli.operate_records import RolloutView

__all__ = ["rollout"]


@click.group(
    cls=ListByDefault,
    epilog=example(
        "edgeopt rollout create v2 --bundle 3fa94c --cohort oslo --waves 20%,50%,100%", "edgeopt rollout watch v2"
    ),
)
def rollout() -> None:
    """Bring a bundle to a cohort in waves, and watch it."""


@rollout.command(
    "create",
    epilog=example(
        "edgeopt rollout create v2 --bundle 3fa94c --cohort oslo --waves 20%,50%,100% \\",
        "    --failure-threshold 10% --bake 60s --minimum-rows 200 --max-confidence-drop 0.1 \\",
        "    --window 02:00-04:00 --window-days sat,sun",
        "edgeopt rollout create ab --arm 3fa94c=50 --arm 77b1de=50 --observe 24h",
    ),
)
@click.argument("name")
@click.option("--bundle", metavar="DIGEST", help="What 'edgeopt publish' printed, or its beginning; or two --arm.")
@arm_options
@click.option("--cohort", default="all", show_default=True, help="To which devices.")
@click.option(
    "--waves",
    type=waves,
    default="20%,50%,100%",
    show_default=True,
    help="Shares of the cohort, rising; or '5 devices', tag:KEY=VALUE, hardware:CLASS.",
)
@click.option("--failure-threshold", type=share, help="Share of executed devices that may fail.  [fleet: 10%]")
@click.option("--bake", "bake_seconds", type=duration, help="How long a device tries it out.  [fleet: 60s]")
@click.option("--minimum-executed", type=click.IntRange(min=1), help="Devices that must have ended.  [fleet: 1]")
@click.option("--minimum-rows", type=click.IntRange(min=0), help="Inferences that each must serve.  [fleet: 50]")
@click.option("--max-confidence-drop", type=share, help="How far mean confidence may fall.  [fleet: 0.1]")
@click.option(
    "--step-timeout", "step_timeout_seconds", type=duration, help="After how long a wave is paused.  [fleet: 1h]"
)
@click.option("--window", type=window, metavar="HH:MM-HH:MM", help="Devices switch only between, by their local time.")
@click.option("--window-days", type=days, metavar="DAY,...", help="On which days the window opens, like sat,sun.")
@click.option("--not-before", type=moment, metavar="TIME", help="Devices switch no sooner, like 2026-12-01T02:00.")
@click.option("--no-recall", is_flag=True, help="Also when devices could not be ordered back to what they run now.")
@gate_option
@execution_options
@click.option("--approval", is_flag=True, help="Somebody else must approve it before it starts.")
@click.option("--draft", is_flag=True, help="Create it without starting it.")
@click.option("--dry-run", is_flag=True, help="Show what would happen; nothing is written, no device hears of it.")
@fleet_options
def rollout_create(  # noqa: PLR0913  # one parameter an option
    name: str,
    fleet: Path | None,
    *,
    bundle: str | None,
    cohort: str,
    waves: tuple[int | str, ...],
    window: tuple[str, str] | None,
    window_days: tuple[str, ...] | None,
    no_recall: bool,
    approval: bool,
    draft: bool,
    dry_run: bool,
    gate: tuple[str, ...],
    as_json: bool,
    **policy: Any,
) -> None:
    """Create a rollout and start it. What is not given, the fleet sets."""
    if window is not None:
        policy["window"] = {"start": window[0], "end": window[1], "days": list(window_days or ())}
    elif window_days is not None:
        raise UsageError("--window-days needs --window, like --window 02:00-04:00")
    execution = execution_of(policy)
    body: dict[str, Any] = {
        "name": name,
        **arms_of(bundle, policy),
        "cohort": cohort,
        "waves": list(waves),
        "policy": {key: value for key, value in policy.items() if value is not None} | rules(gate),
        "start": not draft,
        **({"execution": execution} if execution else {}),
        **({"no_recall": True} if no_recall else {}),
        **({"approval": True} if approval else {}),
    }
    with connect(fleet) as client:
        if dry_run:
            _show_plan(client.plan_rollout(body), as_json=as_json)
            return
        answer = client.create_rollout(body)
    _show_rollout(answer, as_json=as_json)


def _devices(number: int) -> str:
    return "1 device" if number == 1 else f"{number} devices"


def _show_plan(plan: dict[str, Any], *, as_json: bool) -> None:
    """Show what a rollout would do."""
    if as_json:
        print_json(plan)
        return
    from edgeopt.cli.operate_cells import plain

    rollout, offline = plan["rollout"], set(plan["offline"])
    lines = [f"{rollout['name']}: {rollout['bundle_name']} to cohort {rollout['cohort']}, starts {plan['starts']}"]
    for wave, seconds in zip(rollout["waves"], plan["notified_after_seconds"], strict=True):
        away = sum(device in offline for device in wave["devices"])
        paced = f", all offered it after {seconds:.0f} s at the earliest" if seconds else ""
        lines.append(f"  {wave['wave']}: {_devices(wave['members'])}, {away} offline{paced}")
        lines.append(f"    {' '.join(wave['devices'][:8])}{' …' if len(wave['devices']) > 8 else ''}")
    lines += [f"arm {a['arm']}: {a['bundle_name']}, {_devices(a['members'])}" for a in rollout.get("arms", ())]
    lines += [f"takes {_devices(number)} from {other}" for other, number in plan["superseded"].items()]
    lines += [f"would be refused: {problem}" for problem in plan["problems"]]
    for line in lines:
        show(plain(line))


@rollout.command("list", epilog=example("edgeopt rollout list"))
@fleet_options
def rollout_list(fleet: Path | None, *, as_json: bool) -> None:
    """List rollouts."""
    with connect(fleet) as client:
        answer = client.rollouts()
    if as_json:
        print_json(answer)
        return
    from edgeopt.cli.operate_records import RolloutView, read
    from edgeopt.cli.operate_views import rollouts_table

    show(rollouts_table([read(RolloutView, item) for item in answer]))


@rollout.command("show", epilog=example("edgeopt rollout show v2"))
@click.argument("name")
@fleet_options
def rollout_show(name: str, fleet: Path | None, *, as_json: bool) -> None:
    """Show one rollout: waves, devices, the gate's last verdict."""
    with connect(fleet) as client:
        answer = client.rollout(name)
    _show_rollout(answer, as_json=as_json)


def _order_command(order: str, summary: str) -> click.Command:
    """Return the command that gives the fleet one order."""

    @click.argument("name")
    @fleet_options
    def give(name: str, fleet: Path | None, *, as_json: bool) -> None:
        with connect(fleet) as client:
            answer = client.order_rollout(name, order)
        _show_rollout(answer, as_json=as_json)

    return click.command(order, help=summary, epilog=example(f"edgeopt rollout {order} v2"))(give)


for _order, _summary in (
    ("start", "Start a draft."),
    ("pause", "Offer the bundle to no further device; the current wave is still judged."),
    ("resume", "Go on with a paused rollout."),
    ("cancel", "End a rollout: devices that confirmed keep the bundle, the others keep or get back the old one."),
    ("roll-back", "Bring every device that was offered the bundle back to what it ran before."),
):
    rollout.add_command(_order_command(_order, _summary))


def _show_rollout(answer: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        print_json(answer)
        return
    from edgeopt.cli.operate_records import RolloutView, read
    from edgeopt.cli.operate_views import rollout_page

    show(rollout_page(read(RolloutView, answer)))


@rollout.command("watch", epilog=example('edgeopt rollout watch v2 && echo "v2 is everywhere"'))
@click.argument("name")
@fleet_options
def rollout_watch(name: str, fleet: Path | None, *, as_json: bool) -> int:
    """Watch a rollout until it has ended. Exit code 0 when it succeeded, 3 when it was rolled back or cancelled.

    It follows the fleet's events, over restarts of the fleet. A line for each change when the output is not a terminal;
    with --json, the whole rollout on a line for each.
    """
    with connect(fleet) as client:
        answers = follow(client, "rollouts", name, client.rollout, _has_ended)
        if as_json:
            last = _watch_as_json(answers)
        elif sys.stdout.isatty():
            last = _watch_live(answers)
        else:
            last = _watch_as_lines(answers)
    return int(ExitCode.GOOD if last == "succeeded" else ExitCode.GATE_FAIL)


def _has_ended(answer: dict[str, Any]) -> bool:
    from edgeopt.cli.operate_records import FINAL_STATES

    return answer.get("state") in FINAL_STATES


def _watch_as_json(answers: Iterator[dict[str, Any]]) -> str:
    shown: dict[str, Any] = {}
    for answer in answers:
        if answer != shown:
            print_json(answer, lines=True)
        shown = answer
    return str(shown["state"])


def _watch_as_lines(answers: Iterator[dict[str, Any]]) -> str:
    from edgeopt.cli.operate_records import RolloutView, read
    from edgeopt.cli.operate_views import changes

    view: RolloutView | None = None
    for answer in answers:
        now = read(RolloutView, answer)
        for line in changes(view, now):
            click.echo(line)
        view = now
    return view.state if view else ""


def _watch_live(answers: Iterator[dict[str, Any]]) -> str:
    from rich.live import Live

    from edgeopt.cli.operate_records import RolloutView, read
    from edgeopt.cli.operate_views import rollout_page

    state = ""
    with Live(console=console(), auto_refresh=False) as live:
        for answer in answers:
            view = read(RolloutView, answer)
            live.update(rollout_page(view), refresh=True)
            state = view.state
    return state
