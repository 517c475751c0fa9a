"""How people see what the fleet answers: tables, pages, and lines about changes. No input, no output.

Text that comes from devices is shown without control characters and without markup: a device cannot paint the
operator's terminal. Example::

    console.print(rollout_page(read(RolloutView, fleet.rollout("v2"))))
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Group
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from edgeopt.cli.operate_cells import Fitted, age, coloured, detail, entry, facts, moment, plain, short, table, tags
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
    "alert_page",
    "alerts_table",
    "audit_log",
    "bundles_table",
    "changes",
    "cohorts_table",
    "device_line",
    "device_page",
    "devices_table",
    "rollout_page",
    "rollouts_table",
    "rows_table",
]

_LOG_WIDTH = 100


def devices_table(devices: Sequence[DeviceView], now: float) -> Fitted:
    """One line a device; ``now`` is the time on this machine."""
    columns = ("device", "health", "running", "update", "last seen", "tags")
    return table(columns, [
        (
            device.id,
            coloured(device.health or ("online" if device.online else "offline")),
            short(device.running),
            coloured(device.update.state) if device.update else "-",
            age(device.last_seen, now),
            tags(device.tags),
        )
        for device in devices
    ])  # fmt: skip


def device_page(device: DeviceView) -> Table:
    """Everything about one device, a line a fact."""
    can = device.capabilities
    update = device.update
    shown: list[tuple[str, Text]] = [
        ("device", plain(device.id)),
        ("tags", tags(device.tags)),
        ("online", Text("yes" if device.online else "no")),
        ("health", plain(device.health or "-")),
        ("hardware", plain(device.hardware or "-")),
        ("machine", plain(", ".join(f"{key} {value}" for key, value in sorted(device.machine.items())) or "-")),
        ("running", plain(device.running or "nothing")),
        ("agent", plain(device.agent_version or "-")),
        ("processor", plain(" ".join((can.arch, *can.features)) if can else "-")),
        ("runtimes", plain(" ".join(f"{k} {v}" for k, v in can.runtimes.items()) if can else "-")),
        ("enrolled", moment(device.enrolled_at, exact=True)),
        *([] if device.revoked_at is None else [("revoked", moment(device.revoked_at, exact=True))]),
        ("last seen", moment(device.last_seen, exact=True)),
        ("reported", Text(f"{device.telemetry.windows} windows, {device.telemetry.rows} rows, "
                          f"{device.telemetry.errors} errors, {device.telemetry.malformed} malformed")),
    ]  # fmt: skip  # one fact a line
    if update is not None:
        shown += [
            ("update", plain(f"{update.job}: {update.state}{f', {update.result}' if update.result else ''}")),
            ("to bundle", plain(update.bundle)),
            ("since", moment(update.at, exact=True)),
        ]
        shown += [("detail", plain(update.detail))] if update.detail else []
    if device.gauges:
        shown.append(("gauges", plain(", ".join(_gauge(*item) for item in sorted(device.gauges.items())))))
        shown.append(("measured", moment(device.gauges_at, exact=True)))
    shown += [("report" if not index else "", _report(report)) for index, report in enumerate(device.reports)]
    return facts(shown)


def _gauge(name: str, value: float) -> str:
    """Return a gauge as people read it: bytes as megabytes, the unit at the end of its name as a unit."""
    for suffix, factor, unit in (("_bytes", 1e-6, " MB"), ("_celsius", 1.0, " °C"), ("_seconds", 1.0, " s")):
        if name.endswith(suffix):
            return f"{name.removesuffix(suffix)} {value * factor:.1f}{unit}"
    return f"{name} {value:g}"


def _report(report: ReportView) -> Text:
    said = ": ".join(part for part in (report.state, report.result, report.detail) if part)
    return Text.assemble(moment(report.at, exact=True), " ", plain(f"{report.job} {said}"))


def cohorts_table(cohorts: Sequence[CohortView]) -> Fitted:
    """One line a cohort."""
    return table(("cohort", "tags", "hardware", "and"), [
        (cohort.name, tags(cohort.tags), " ".join(cohort.hardware) or "-", tags(_conditions(cohort)))
        for cohort in cohorts
    ])  # fmt: skip


def _conditions(cohort: CohortView) -> dict[str, str]:
    """Return what a cohort asks for beside tags and hardware."""
    found = {
        "running": cohort.running and cohort.running[:12],
        "agent": cohort.agent_version,
        "state": cohort.state,
        "online": None if cohort.online is None else "yes" if cohort.online else "no",
        "health": cohort.health,
    }
    return {name: value for name, value in found.items() if value}


def audit_log(entries: Sequence[Mapping[str, Any]]) -> Group:
    """An entry in a line, and its details below: who did what to which thing."""
    rows = [_told(one) for one in entries]
    rows.insert(0, (("number", "when", "who", "what", "which"), ""))
    widths = [max(len(head[index]) for head, _ in rows) for index in range(4)]
    room = _LOG_WIDTH - sum(widths) - len(widths)
    return Group(*(entry(head, widths, below, room) for head, below in rows))


def _told(one: Mapping[str, Any]) -> tuple[tuple[str, ...], str]:
    kind, _, name = one["subject"].partition("/")
    which = f"{kind}/{name[:12]}" if kind == "bundle" else one["subject"]
    who = kind if one["actor"] == one["subject"] else one["actor"]  # a device about itself
    return (str(one["number"]), moment(one["at"] / 1000).plain, who, one["operation"], which), detail(one["detail"])


def rows_table(columns: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> Fitted:
    """One line a row, with these members of it."""
    return table(columns, [[_member(column, row.get(column)) for column in columns] for row in rows])


def _member(column: str, value: Any) -> Text:
    if column in ("at", "end"):
        return moment(value, exact=True)
    if column == "bundle":
        return short(value)
    return plain("-" if value in (None, "") else value)


def device_line(device: DeviceView) -> str:
    """Return how a device is, on one line."""
    update = f", {device.update.job} {device.update.state}" if device.update else ""
    there = "online" if device.online else "offline"
    return plain(f"{device.id} {there}, runs {(device.running or 'nothing')[:12]}{update}").plain


def bundles_table(bundles: Sequence[BundleView]) -> Fitted:
    """One line a bundle."""
    return table(("bundle", "name", "version", "complete", "published"), [
        (
            short(bundle.digest),
            bundle.name,
            bundle.version,
            Text("yes") if bundle.complete else Text("no: publish it again", "yellow"),
            moment(bundle.created_at),
        )
        for bundle in bundles
    ])  # fmt: skip


def alerts_table(alerts: Sequence[AlertView]) -> Fitted:
    """One line an alert, with the fleet's own sentence."""
    return table(("number", "alert", "state", "since", "what happened"), [
        (
            str(alert.id),
            alert.kind,
            coloured(alert.state),
            moment(alert.opened_at),
            alert.message,
        )
        for alert in alerts
    ])  # fmt: skip


def alert_page(alert: AlertView) -> Table:
    """Everything about one alert, a line a fact; what only drift has is left out of an alarm."""
    drift = [
        ("cohort", plain(alert.cohort)),
        ("feature", plain(f"{alert.feature} ({alert.source})")),
        ("bundle", plain(alert.bundle)),
        ("PSI", plain("-" if alert.psi is None else f"{alert.psi:.2f} (p {alert.p_value or 0:.1e})")),
        ("rows", plain(alert.rows or 0)),
    ]
    return facts([
        ("alert", plain(f"{alert.id}: {alert.kind}")),
        ("state", coloured(alert.state)),
        ("what", plain(alert.message)),
        *(drift if alert.feature else [("about", plain(alert.source))]),
        ("since", moment(alert.opened_at, exact=True)),
        ("last seen", moment(alert.last_seen, exact=True)),
    ])  # fmt: skip


def rollouts_table(rollouts: Sequence[RolloutView]) -> Fitted:
    """One line a rollout."""
    columns = ("rollout", "bundle", "cohort", "state", "wave", "confirmed", "failed", "devices", "created")
    return table(columns, [
        (
            rollout.name,
            short(rollout.bundle),
            rollout.cohort,
            coloured(rollout.state),
            f"{min(rollout.wave + 1, len(rollout.waves))} of {len(rollout.waves)}",
            str(sum(wave.confirmed for wave in rollout.waves)),
            str(sum(wave.failed for wave in rollout.waves)),
            str(sum(wave.members for wave in rollout.waves)),
            moment(rollout.created_at),
        )
        for rollout in rollouts
    ])  # fmt: skip


def rollout_page(rollout: RolloutView) -> Group:
    """A rollout with its waves, devices and the gate's last verdict."""
    title = Text.assemble(
        plain(rollout.name), ": ", plain(rollout.bundle_name or "bundle"),
        Text() if rollout.arms else Text.assemble(" ", short(rollout.bundle)),
        " to cohort ", plain(rollout.cohort), ", ", coloured(rollout.state), plain(_decided(rollout)),
    )  # fmt: skip  # one sentence
    waves = Table(box=None, pad_edge=False, collapse_padding=True, header_style="bold")
    for column in ("wave", "state", "", "confirmed", "failed", "returned", "devices"):
        waves.add_column(column, justify="left" if column in ("wave", "state", "") else "right")
    for wave in rollout.waves:
        bar = ProgressBar(total=max(wave.members, 1), completed=wave.confirmed, width=24)
        figures = (wave.confirmed, wave.failed, wave.returned, wave.members)
        waves.add_row(plain(wave.wave), coloured(wave.state), bar, *map(str, figures))
    with_arm = ("arm",) if rollout.arms else ()
    members = table(("device", "wave", *with_arm, "state", "runs", "detail"), [
        (
            member.device,
            str(member.wave + 1),
            *(member.arm for _ in with_arm),
            coloured(member.state),
            short(member.running),
            member.failure or member.detail or "",
        )
        for member in rollout.members
    ])  # fmt: skip
    parts: list[Text | Table | Fitted] = [
        title,
        *_times(rollout.policy),
        *_arms(rollout),
        Text(),
        waves,
        Text(),
        members,
    ]
    newest = {verdict.arm: verdict for verdict in rollout.verdicts}
    parts += [part for arm in sorted(newest) for part in (Text(), _verdict(newest[arm]))]
    return Group(*parts)


def _decided(rollout: RolloutView) -> str:
    """Return what became of two arms, to be said after the state."""
    said = f" ({rollout.reason})" if rollout.arms and rollout.state == "succeeded" and rollout.reason else ""
    fault = f", at fault: arm {' and '.join(rollout.fault)}" if rollout.fault else ""
    return said + fault + (f", kept: {rollout.kept}" if rollout.kept else "")


def _arms(rollout: RolloutView) -> list[Text | Table | Fitted]:
    """Return a line an arm."""
    if not rollout.arms:
        return []
    columns = ("arm", "bundle", "digest", "share", "confirmed", "failed", "returned", "devices")
    return [Text(), table(columns, [
        (
            arm.arm, arm.bundle_name or "bundle", short(arm.bundle), f"{arm.percent}%", str(arm.confirmed),
            str(arm.failed), str(arm.returned), str(arm.members),
        )
        for arm in rollout.arms
    ])]  # fmt: skip


def _times(policy: Mapping[str, Any]) -> list[Text]:
    """Return when devices may switch; nothing when they may at any time."""
    window, not_before = policy.get("window"), policy.get("not_before")
    lines = []
    if window:
        days = " ".join(window.get("days") or ()) or "daily"
        lines.append(plain(f"devices switch {days} {window.get('start')}-{window.get('end')}, by their local time"))
    if not_before is not None:
        lines.append(Text.assemble("devices switch not before ", moment(not_before, exact=True)))
    return lines


def _verdict(verdict: VerdictView) -> Text:
    reasons = plain("; ".join(verdict.reasons) or "no reason given")
    whose = f", arm {plain(verdict.arm)}" if verdict.arm else ""
    return Text.assemble(f"gate on wave {verdict.wave + 1}{whose}: ", coloured(verdict.verdict), ": ", reasons)


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
