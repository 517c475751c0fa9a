"""How people see shadows: one line each, and a page with how the challenger agrees. No input, no output.

Example::

    for line in shadow_lines(view, agreement): click.echo(line)
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from edgeopt.cli.operate_cells import Fitted, moment, plain, short, table

__all__ = ["ShadowVerdict", "ShadowView", "shadow_lines", "shadows_table", "state_line"]

_WIDTH = 100
_MOST_DEVICES = 20
_DEVICE_WIDTH = 40


@dataclass(frozen=True, slots=True, kw_only=True)
class ShadowVerdict:
    """What was said of a challenger at the newest look."""

    at: float
    number: int
    decision: str
    reasons: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ShadowView:
    """A shadow."""

    name: str
    bundle: str
    bundle_name: str
    cohort: str
    share: float
    until: int
    state: str
    tally: dict[str, int]
    reason: str = ""
    verdict: ShadowVerdict | None = None


def shadows_table(shadows: Sequence[ShadowView]) -> Fitted:
    """One line a shadow."""
    rows = [
        (
            one.name,
            short(one.bundle),
            one.cohort,
            one.state,
            str(sum(one.tally.values())),
            moment(one.until),
            _decision(one),
        )
        for one in shadows
    ]
    return table(("shadow", "bundle", "cohort", "state", "devices", "until", "verdict"), rows)


def state_line(view: ShadowView) -> str:
    """Return what is new about a shadow that is watched."""
    counted = ", ".join(f"{number} {state}" for state, number in view.tally.items())
    return str(plain(f"{view.name}: {view.state}; {counted}; {_decision(view)}"))


def shadow_lines(view: ShadowView, agreement: Mapping[str, Any] | None) -> Iterator[str]:
    """Yield a page about one shadow, at most 100 columns wide."""
    ended = f" ({view.reason})" if view.reason else ""
    yield from _wrapped(
        f"{view.name}: {view.bundle_name} beside the champion of cohort {view.cohort}, {view.state}{ended}"
    )
    yield f"  bundle  {view.bundle}"
    yield f"  share   {view.share:.2%} of the requests, until {moment(view.until)}"
    yield from _wrapped("  devices " + ", ".join(f"{number} {state}" for state, number in view.tally.items()))
    if agreement is None:
        return
    look = agreement["look"]
    yield f"  verdict {_words(look['decision'])}{'' if agreement['at'] is not None else ' (no look yet)'}"
    for reason in look["reasons"]:
        yield from _wrapped(f"    - {reason}")
    devices = agreement["devices"]
    if devices:
        yield f"  {'device':<{_DEVICE_WIDTH}} {'compared':>9} {'agreed':>8} {'errors':>7} {'time':>6}"
    for one in sorted(devices, key=_agreed)[:_MOST_DEVICES]:
        yield _device(one)
    if len(devices) > _MOST_DEVICES:
        yield f"  … and {len(devices) - _MOST_DEVICES} devices that agree more"
    for one in agreement["classes"][:_MOST_DEVICES] if len(agreement["classes"]) <= _MOST_DEVICES else ():
        rows = one["agreed"] + one["disagreed"]
        yield str(plain(f"  class {one['label'][:40]}: {one['agreed'] / rows:.2%} of {rows} rows"))


def _device(one: Mapping[str, Any]) -> str:
    compared, errors, champion, challenger = (
        one[name] for name in ("compared", "errors", "champion_us", "challenger_us")
    )
    share = f"{_agreed(one):.2%}" if compared else "-"
    ratio = f"{challenger / champion:.2f}x" if champion and challenger is not None else "-"
    name = textwrap.shorten(str(plain(one["device"])), _DEVICE_WIDTH, placeholder="…")
    return f"  {name:<{_DEVICE_WIDTH}} {compared:>9} {share:>8} {errors:>7} {ratio:>6}"


def _agreed(one: Mapping[str, Any]) -> float:
    return float(one["agreed"]) / one["compared"] if one["compared"] else 1.0


def _decision(view: ShadowView) -> str:
    return "no look yet" if view.verdict is None else _words(view.verdict.decision)


def _words(decision: str) -> str:
    return {"recommend": "recommended", "do_not_recommend": "not recommended", "not_enough": "not enough yet"}.get(
        decision, decision
    )


def _wrapped(text: str) -> list[str]:
    lead = " " * (len(text) - len(text.lstrip()) + 2)
    return textwrap.wrap(str(plain(text)), _WIDTH, subsequent_indent=lead)
