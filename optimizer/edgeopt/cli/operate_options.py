"""What the operator's commands share: the fleet they speak to, how values are written, and both ways to answer.

It decides nothing about the fleet. Example::

    @click.command()
    @fleet_options
    def bundles(fleet: Path | None, as_json: bool) -> None: ...
"""

from __future__ import annotations

import contextlib
import json
import re
import sys
from collections.abc import Callable, Iterator
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from edgeopt_contract.errors import MissingExtraError, UsageError
from edgeopt_contract.windows import DAYS, Window

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

    from edgeopt.fleet_client import FleetClient

__all__ = [
    "FLEET_VARIABLE",
    "ListByDefault",
    "connect",
    "console",
    "days",
    "duration",
    "example",
    "fleet_options",
    "moment",
    "print_json",
    "share",
    "show",
    "tag",
    "tag_option",
    "waves",
    "window",
]

F = TypeVar("F", bound=Callable[..., Any])
FLEET_VARIABLE = "EDGEOPT_FLEET"
_SECONDS = {"": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_WAVE = re.compile(r"[1-9]\d{0,6} devices?|tag:[^=]+=.+|hardware:.+")
_PIPED_WIDTH = 100  # of a table in a pipe, where there is no terminal to ask


def share(value: str) -> float:
    """Read ``10%`` or ``0.1`` as a number from 0 to 1."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)(%?)", value)
    number = float(match[1]) / (100 if match[2] else 1) if match else -1.0
    if not 0 <= number <= 1:
        raise click.BadParameter(f"expected a share like 10% or 0.1, got {value!r}")
    return number


def duration(value: str) -> float:
    """Read ``90``, ``90s``, ``5m``, ``2h`` or ``1d`` as seconds."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smhd]?)", value)
    if not match:
        raise click.BadParameter(f"expected a time span like 60s, 5m, 2h or 1d, got {value!r}")
    return float(match[1]) * _SECONDS[match[2]]


def waves(value: str) -> tuple[int | str, ...]:
    """Read ``tag:ring=canary,20%,100%`` as waves: shares (numbers) rise, the others go to the fleet as they are."""
    parts = [part.strip() for part in value.split(",")]
    numbers = [re.fullmatch(r"(\d{1,3})\s*%?", part) for part in parts]
    percents = [int(number[1]) for number in numbers if number]
    others = [part for part, number in zip(parts, numbers, strict=True) if not number]
    rising = all(before < after for before, after in pairwise((0, *percents)))
    if not rising or max(percents, default=0) > 100 or not all(map(_WAVE.fullmatch, others)):
        raise click.BadParameter(
            f"expected rising percents up to 100 like 20%,50%,100%, '5 devices', tag:KEY=VALUE or hardware:CLASS, "
            f"got {value!r}"
        )
    return tuple(int(number[1]) if number else part for part, number in zip(parts, numbers, strict=True))


def window(value: str) -> tuple[str, str]:
    """Read ``02:00-04:00`` as start and end of a maintenance window."""
    start, _, end = value.partition("-")
    try:
        Window(start=start.strip(), end=end.strip())
    except ValueError as error:
        raise click.BadParameter(f"expected a window like 02:00-04:00, got {value!r}") from error
    return start.strip(), end.strip()


def days(value: str) -> tuple[str, ...]:
    """Read ``sat,sun`` as days of a maintenance window."""
    found = tuple(part.strip().lower() for part in value.split(","))
    if len(set(found)) != len(found) or not set(found) <= set(DAYS):
        raise click.BadParameter(f"expected days among {','.join(DAYS)}, each once, got {value!r}")
    return found


def moment(value: str) -> int:
    """Read a time like ``2026-12-01T02:00+01:00`` as seconds since 1970; without a zone it is this computer's."""
    try:
        return int(datetime.fromisoformat(value).timestamp())
    except (ValueError, OverflowError, OSError) as error:
        raise click.BadParameter(f"expected a time like 2026-12-01T02:00 or …T02:00Z, got {value!r}") from error


def tag(value: str) -> tuple[str, str]:
    """Read ``key=value``."""
    key, separator, content = value.partition("=")
    if not (key and separator):
        raise click.BadParameter(f"expected key=value like site=oslo, got {value!r}")
    return key, content


def example(*lines: str) -> str:
    """Return the end of a command's help: lines to be copied, not to be wrapped."""
    return "\b\nExample:\n" + "\n".join(f"  {line}" for line in lines)


class ListByDefault(click.Group):
    """A group that lists when it is given no command: ``edgeopt devices --tag site=oslo``."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Put ``list`` in front when no command stands there."""
        if not args or (args[0].startswith("-") and args[0] not in ctx.help_option_names):
            args = ["list", *args]
        return super().parse_args(ctx, args)


def fleet_options(command: F) -> F:
    """Give ``command`` the options ``--fleet`` and ``--json``."""
    with_json = click.option("--json", "as_json", is_flag=True, help="Print the fleet's answer as JSON, for machines.")
    with_fleet = click.option(
        "--fleet",
        type=click.Path(path_type=Path),
        envvar=FLEET_VARIABLE,
        show_envvar=True,
        metavar="FILE",
        help="The operator.json that 'edgeopt-fleet init' wrote.",
    )
    return with_fleet(with_json(command))


def tag_option(help_text: str) -> Callable[[F], F]:
    """Give a command the option ``--tag``, to be used several times; it arrives as ``tags``."""
    return click.option("--tag", "tags", type=tag, metavar="KEY=VALUE", multiple=True, help=help_text)


def connect(fleet: Path | None) -> FleetClient:
    """Return a client of the fleet whose access lies in ``fleet``."""
    if fleet is None:
        raise UsageError(
            f"which fleet? give --fleet FILE, or set {FLEET_VARIABLE} to that file: the operator.json that "
            "'edgeopt-fleet init' wrote"
        )
    with _extra():
        from edgeopt.fleet_access import load_access
        from edgeopt.fleet_client import FleetClient
    return FleetClient(load_access(fleet))


def print_json(value: Any, *, lines: bool = False) -> None:
    """Print ``value`` as JSON; on one line when it is one of many."""
    click.echo(json.dumps(value, indent=None if lines else 2, ensure_ascii=False))


def console(*, stderr: bool = False) -> Console:
    """Return where to print for people; 100 columns wide when it is not a terminal."""
    with _extra():
        from rich.console import Console
    stream = sys.stderr if stderr else sys.stdout
    return Console(file=stream, width=None if stream.isatty() else _PIPED_WIDTH, highlight=False)


def show(renderable: RenderableType) -> None:
    """Print something for people on standard output."""
    console().print(renderable)


@contextlib.contextmanager
def _extra() -> Iterator[None]:
    """Name the extra when one of its modules is not installed."""
    try:
        yield
    except ModuleNotFoundError as error:
        raise MissingExtraError(error.name or "httpx", "optimizer") from error
