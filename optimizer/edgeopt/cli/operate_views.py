"""How people see what the fleet answers: tables, pages, and lines about changes. No input, no output.

Text that comes from devices is shown without control characters and without markup: a device cannot paint the
operator's terminal. Example::

    console.print(rollout_page(read(RolloutView, fleet.rollout("v2"))))
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from rich.console import Group
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from edgeopt.cli.operate_records import (
    AlertView,
    BundleView,
    CohortView,
    DeviceView,
    ReportView,
    RolloutView,
    VerdictView,
)

__all__ = [
    "alerts_table",
    "bundles_table",
    "changes",
    "cohorts_table",
    "device_line",
    "device_page",
    "devices_table",
    "plain",
    "rollout_page",
    "rollouts_table",
    "rows_table",
]

_YEAR_3000 = 32_503_680_000
_COLOURS = {
    "succeeded": "green",
    "confirmed": "green",
    "passed": "green",
    "promote": "green",
    "running": "cyan",
    "paused": "yellow",
    "hold": "yellow",
    "failed": "red",
    "rejected": "red",
    "rolled_back": "red",
    "rolling_back": "red",
    "roll_back": "red",
    "cancelled": "red",
    "open": "red",
}


def plain(text: object) -> Text:
    """Return ``text`` as it is to be shown: no markup, no control characters."""
    return Text("".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in str(text)))


def _coloured(state: str) -> Text:
    shown = plain(state)
    shown.stylize(_COLOURS.get(state, ""))
    return shown


def _short(digest: str | None) -> Text:
    return plain(digest[:12] if digest else "-")


def _time(seconds: float | None) -> Text:
    if seconds is None:
        return Text("-")
    if not 0 <= seconds < _YEAR_3000:
        return Text(f"{seconds:g} s")  # a device's clock may say anything
    return Text(datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%SZ"))


def _tags(tags: Mapping[str, str]) -> Text:
    return plain(" ".join(f"{key}={value}" for key, value in sorted(tags.items())) or "-")


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, overflow="fold", justify="right" if column in _NUMBERS else "left")
    return table


_NUMBERS = {"rows", "errors", "devices", "executed", "confirmed", "failed", "PSI"}


def devices_table(devices: Sequence[DeviceView]) -> Table:
    """One line a device."""
    table = _table("device", "tags", "online", "running", "update", "rows", "errors", "last seen")
    for device in devices:
        table.add_row(
            plain(device.id),
            _tags(device.tags),
            Text("yes", "green") if device.online else Text("no", "red"),
            _short(device.running),
            _coloured(device.update.state) if device.update else Text("-"),
            str(device.telemetry.rows),
            str(device.telemetry.errors),
            _time(device.last_seen),
        )
    return table


def device_page(device: DeviceView) -> Table:
    """Everything about one device, a line a fact."""
    can = device.capabilities
    update = device.update
    facts: list[tuple[str, Text]] = [
        ("device", plain(device.id)),
        ("tags", _tags(device.tags)),
        ("online", Text("yes" if device.online else "no")),
        ("health", plain(device.health or "-")),
        ("hardware", plain(device.hardware or "-")),
        ("machine", plain(", ".join(f"{key} {value}" for key, value in sorted(device.machine.items())) or "-")),
        ("running", plain(device.running or "nothing")),
        ("agent", plain(device.agent_version or "-")),
        ("processor", plain(" ".join((can.arch, *can.features)) if can else "-")),
        ("runtimes", plain(" ".join(f"{k} {v}" for k, v in can.runtimes.items()) if can else "-")),
        ("enrolled", _time(device.enrolled_at)),
        *([] if device.revoked_at is None else [("revoked", _time(device.revoked_at))]),
        ("last seen", _time(device.last_seen)),
        ("reported", Text(f"{device.telemetry.windows} windows, {device.telemetry.rows} rows, "
                          f"{device.telemetry.errors} errors, {device.telemetry.malformed} malformed")),
    ]  # fmt: skip  # one fact a line
    if update is not None:
        facts += [
            ("update", plain(f"{update.job}: {update.state}{f', {update.result}' if update.result else ''}")),
            ("to bundle", plain(update.bundle)),
            ("since", _time(update.at)),
        ]
        facts += [("detail", plain(update.detail))] if update.detail else []
    if device.gauges:
        facts.append(("gauges", plain(", ".join(_gauge(*item) for item in sorted(device.gauges.items())))))
        facts.append(("measured", _time(device.gauges_at)))
    facts += [("report" if not index else "", _report(report)) for index, report in enumerate(device.reports)]
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    for name, fact in facts:
        table.add_row(name, fact)
    return table


def _gauge(name: str, value: float) -> str:
    """Return a gauge as people read it: bytes as megabytes, the unit at the end of its name as a unit."""
    for suffix, factor, unit in (("_bytes", 1e-6, " MB"), ("_celsius", 1.0, " °C"), ("_seconds", 1.0, " s")):
        if name.endswith(suffix):
            return f"{name.removesuffix(suffix)} {value * factor:.1f}{unit}"
    return f"{name} {value:g}"


def _report(report: ReportView) -> Text:
    said = ": ".join(part for part in (report.state, report.result, report.detail) if part)
    return Text.assemble(_time(report.at), " ", plain(f"{report.job} {said}"))


def cohorts_table(cohorts: Sequence[CohortView]) -> Table:
    """One line a cohort."""
    table = _table("cohort", "tags", "hardware", "and")
    for cohort in cohorts:
        others = {
            "running": cohort.running and cohort.running[:12],
            "agent": cohort.agent_version,
            "state": cohort.state,
            "online": None if cohort.online is None else "yes" if cohort.online else "no",
            "health": cohort.health,
        }
        table.add_row(
            plain(cohort.name),
            _tags(cohort.tags),
            plain(" ".join(cohort.hardware) or "-"),
            _tags({name: value for name, value in others.items() if value}),
        )
    return table


def rows_table(columns: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> Table:
    """One line a row, with these members of it."""
    table = _table(*columns)
    for row in rows:
        table.add_row(*(_member(column, row.get(column)) for column in columns))
    return table


def _member(column: str, value: Any) -> Text:
    if column in ("at", "end"):
        return _time(value)
    if column == "bundle":
        return _short(value)
    return plain("-" if value in (None, "") else value)


def device_line(device: DeviceView) -> str:
    """Return how a device is, on one line."""
    update = f", {device.update.job} {device.update.state}" if device.update else ""
    there = "online" if device.online else "offline"
    return plain(f"{device.id} {there}, runs {(device.running or 'nothing')[:12]}{update}").plain


def bundles_table(bundles: Sequence[BundleView]) -> Table:
    """One line a bundle."""
    table = _table("bundle", "name", "version", "complete", "published")
    for bundle in bundles:
        table.add_row(
            _short(bundle.digest),
            plain(bundle.name),
            plain(bundle.version),
            Text("yes") if bundle.complete else Text("no: publish it again", "yellow"),
            _time(bundle.created_at),
        )
    return table


def alerts_table(alerts: Sequence[AlertView]) -> Table:
    """One line an alert, with the fleet's own sentence."""
    table = _table("alert", "state", "cohort", "feature", "PSI", "since", "what")
    for alert in alerts:
        table.add_row(
            plain(alert.kind),
            _coloured(alert.state),
            plain(alert.cohort),
            plain(alert.feature),
            "-" if alert.psi is None else f"{alert.psi:.2f}",
            _time(alert.opened_at),
            plain(alert.message),
        )
    return table


def rollouts_table(rollouts: Sequence[RolloutView]) -> Table:
    """One line a rollout."""
    table = _table("rollout", "bundle", "cohort", "state", "wave", "confirmed", "failed", "devices", "created")
    for rollout in rollouts:
        table.add_row(
            plain(rollout.name),
            _short(rollout.bundle),
            plain(rollout.cohort),
            _coloured(rollout.state),
            f"{min(rollout.wave + 1, len(rollout.waves))} of {len(rollout.waves)}",
            str(sum(wave.confirmed for wave in rollout.waves)),
            str(sum(wave.failed for wave in rollout.waves)),
            str(sum(wave.members for wave in rollout.waves)),
            _time(rollout.created_at),
        )
    return table


def rollout_page(rollout: RolloutView) -> Group:
    """A rollout with its waves, devices and the gate's last verdict."""
    title = Text.assemble(
        plain(rollout.name), ": ", plain(rollout.bundle_name or "bundle"), " ", _short(rollout.bundle), " to cohort ",
        plain(rollout.cohort), ", ", _coloured(rollout.state),
    )  # fmt: skip  # one sentence
    waves = _table("wave", "state", "", "confirmed", "failed", "devices")
    for wave in rollout.waves:
        bar = ProgressBar(total=max(wave.members, 1), completed=wave.confirmed, width=24)
        waves.add_row(
            plain(wave.wave),
            _coloured(wave.state),
            bar,
            str(wave.confirmed),
            str(wave.failed),
            str(wave.members),
        )
    members = _table("device", "wave", "state", "runs", "detail")
    for member in rollout.members:
        members.add_row(
            plain(member.device),
            str(member.wave + 1),
            _coloured(member.state),
            _short(member.running),
            plain(member.failure or member.detail or ""),
        )
    parts: list[Text | Table] = [title, *_times(rollout.policy), Text(), waves, Text(), members]
    if rollout.verdicts:
        parts += [Text(), _verdict(rollout.verdicts[-1])]
    return Group(*parts)


def _times(policy: Mapping[str, Any]) -> list[Text]:
    """Return when devices may switch; nothing when they may at any time."""
    window, not_before = policy.get("window"), policy.get("not_before")
    lines = []
    if window:
        days = " ".join(window.get("days") or ()) or "daily"
        lines.append(plain(f"devices switch {days} {window.get('start')}-{window.get('end')}, by their local time"))
    if not_before is not None:
        lines.append(Text.assemble("devices switch not before ", _time(not_before)))
    return lines


def _verdict(verdict: VerdictView) -> Text:
    reasons = plain("; ".join(verdict.reasons) or "no reason given")
    return Text.assemble(f"gate on wave {verdict.wave + 1}: ", _coloured(verdict.verdict), ": ", reasons)


def changes(before: RolloutView | None, after: RolloutView) -> list[str]:
    """Return what happened between two looks at a rollout, a line each; all of it at the first look."""
    lines = []
    old = {member.device: member for member in before.members} if before else {}
    for member in after.members:
        previous = old.get(member.device)
        if (previous.state if previous else "waiting") != member.state:
            why = member.failure or member.detail
            detail = f" ({why})" if why else ""
            lines.append(f"wave {member.wave + 1}: {member.device} {member.state}{detail}")
    seen = len(before.verdicts) if before else 0
    lines += [_verdict(verdict).plain for verdict in after.verdicts[seen:]]
    for index, wave in enumerate(after.waves):
        known = before.waves[index].state if before and index < len(before.waves) else "waiting"
        if known != wave.state:
            lines.append(
                f"wave {index + 1} ({wave.wave}) {wave.state}: "
                f"{wave.confirmed} of {wave.members} confirmed, {wave.failed} failed"
            )
    if before is None or before.state != after.state:
        lines.append(f"rollout {after.name} {after.state}")
    return [plain(line).plain for line in lines]
