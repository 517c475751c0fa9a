from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import Engine, event

from edgeopt_fleet.drift import DriftRules
from edgeopt_fleet.store.alerts import Alerts
from tests.fleet.conftest import Kit

OSLO, LIMA = ("o1", "o2"), ("l1", "l2")


def two_sites(kit: Kit) -> str:
    """Enrol two sites that run one bundle, and begin to watch them."""
    digest = kit.publish("1")
    kit.enrol(*OSLO, site="oslo")
    kit.enrol(*LIMA, site="lima")
    for site in ("oslo", "lima"):
        kit.put_cohort(site, site=site)
    for device in (*OSLO, *LIMA):
        kit.status(device, running=digest, boot=2)
    kit.alerts.look(kit.now)
    return digest


def serve(kit: Kit, digest: str, devices: tuple[str, ...], **values: float) -> None:
    """Let each device serve 240 rows."""
    for device in devices:
        for _ in range(4):
            kit.serve(device, digest, **values)


def move(kit: Kit, devices: tuple[str, ...], site: str) -> None:
    """Let devices change their cohort."""
    for device in devices:
        kit.registry.put_tags(device, {"site": site}, kit.now, lambda _present: None)


@contextlib.contextmanager
def listening(kit: Kit, asked: list[str]) -> Iterator[None]:
    """Note every statement."""

    def note(_connection: Any, _cursor: Any, statement: str, *_others: Any) -> None:
        asked.append(" ".join(statement.replace('"', "").split()))

    event.listen(Engine, "before_cursor_execute", note)
    try:
        yield
    finally:
        event.remove(Engine, "before_cursor_execute", note)


def test_one_site_s_world_changes(kit: Kit) -> None:
    """The alert names cohort and feature; the other site, and the cohort of everyone, stay quiet."""
    digest = two_sites(kit)
    for _ in range(3):
        serve(kit, digest, OSLO, brightness=0.8)
        serve(kit, digest, LIMA)
        kit.now += 1
        kit.alerts.look(kit.now)

    (alert,) = kit.alerts.list(state="open")
    assert ("drift", "oslo", "brightness", "input", digest) == (
        alert.kind,
        alert.cohort,
        alert.feature,
        alert.source,
        alert.bundle,
    )
    assert alert.message.startswith("oslo: brightness: PSI ")
    assert (1002, 1003) == (alert.opened_at, alert.last_seen)
    assert 480 == alert.rows


def test_an_alert_ends_when_the_world_is_back(kit: Kit) -> None:
    """Three quiet looks close it; it stays in the list."""
    digest = two_sites(kit)
    for brightness in (0.8, 0.8, 0.5, 0.5, 0.5):
        serve(kit, digest, OSLO, brightness=brightness)
        kit.alerts.look(kit.now)
    assert [] == list(kit.alerts.list(state="open"))
    assert ["closed"] == [alert.state for alert in kit.alerts.list()]


def test_rows_are_collected_until_there_are_enough(kit: Kit) -> None:
    """Sixty rows a look are no look; they are merged with the next ones."""
    digest = two_sites(kit)
    for _ in range(8):
        kit.serve("o1", digest, brightness=0.8)
        kit.alerts.look(kit.now)
    (alert,) = kit.alerts.list()
    assert 240 == alert.rows


def test_what_was_served_before_the_cohort_existed_is_not_held_against_it(kit: Kit) -> None:
    """A cohort is watched from the moment it is saved."""
    digest = two_sites(kit)
    serve(kit, digest, OSLO, brightness=0.8)
    kit.put_cohort("pair", site="oslo")
    for _ in range(3):
        kit.alerts.look(kit.now)
    assert [] == list(kit.alerts.list())


def test_an_alert_on_a_bundle_that_nobody_runs_any_more_ends(kit: Kit) -> None:
    """After an update the old bundle's alert is history."""
    digest = two_sites(kit)
    for _ in range(2):
        serve(kit, digest, OSLO, brightness=0.8)
        kit.alerts.look(kit.now)
    assert 1 == len(kit.alerts.list(state="open"))
    second = kit.publish("2")
    for device in OSLO:
        kit.status(device, running=second, boot=3)
    kit.alerts.look(kit.now)
    assert [] == list(kit.alerts.list(state="open"))


def test_a_fleet_without_devices_or_bundles_is_quiet(kit: Kit) -> None:
    """Nothing to look at is no error."""
    kit.alerts.look(kit.now)
    kit.enrol("x")
    kit.alerts.look(kit.now)
    kit.status("x", running="9" * 64, boot=2)
    kit.alerts.look(kit.now)
    assert [] == list(kit.alerts.list())


def test_who_joins_counts_from_then_on_and_who_leaves_until_then(kit: Kit) -> None:
    """What a device served elsewhere is nobody's drift: neither a newcomer's past nor a leaver's future counts."""
    digest = two_sites(kit)
    serve(kit, digest, LIMA, brightness=0.9)  # strange, but not Oslo's
    move(kit, LIMA, "oslo")
    kit.alerts.look(kit.now)
    for _ in range(2):
        serve(kit, digest, OSLO)
        kit.alerts.look(kit.now)
    assert [] == [alert for alert in kit.alerts.list() if alert.cohort == "oslo"]
    for _ in range(2):
        serve(kit, digest, LIMA, brightness=0.9)
        kit.alerts.look(kit.now)
    (alert,) = (alert for alert in kit.alerts.list() if alert.cohort == "oslo")
    assert 480 == alert.rows
    serve(kit, digest, LIMA, brightness=0.9)
    move(kit, LIMA, "lima")
    kit.alerts.look(kit.now)  # they served this while they belonged
    (alert,) = (alert for alert in kit.alerts.list() if alert.cohort == "oslo")
    assert (480, kit.now) == (alert.rows, alert.last_seen)


def test_rows_wait_for_others_while_members_come_and_go(kit: Kit) -> None:
    """Too few for a look, they are kept although the group changes before there are enough."""
    digest = two_sites(kit)
    serve(kit, digest, ("o1",), brightness=0.8)  # 240 rows: a look
    kit.alerts.look(kit.now)
    kit.serve("o1", digest, rows=150, brightness=0.8)
    kit.alerts.look(kit.now)
    move(kit, LIMA, "oslo")
    kit.alerts.look(kit.now)
    kit.serve("o1", digest, rows=150, brightness=0.8)
    kit.alerts.look(kit.now)
    (alert,) = (alert for alert in kit.alerts.list() if alert.cohort == "oslo")
    assert 300 == alert.rows


@pytest.mark.parametrize("changed", [False, True])
def test_a_restart_goes_on_where_the_last_look_was(kit: Kit, *, changed: bool) -> None:
    """Unless the members changed meanwhile: then nobody knows what each had served, and it begins anew."""
    digest = two_sites(kit)
    serve(kit, digest, OSLO, brightness=0.8)
    kit.alerts.look(kit.now)
    serve(kit, digest, OSLO, brightness=0.8)
    if changed:
        move(kit, LIMA, "oslo")
    Alerts(kit.database, DriftRules()).look(kit.now)
    assert [480] * (not changed) == [alert.rows for alert in kit.alerts.list() if alert.cohort == "oslo"]


def test_a_look_reads_no_window(kit: Kit) -> None:
    """It costs the same however much came: what is asked for are totals."""
    digest = two_sites(kit)
    serve(kit, digest, OSLO)
    asked: list[str] = []
    with listening(kit, asked):
        kit.alerts.look(kit.now)
    assert [] == [one for one in asked if "FROM window" in one and "max(" not in one]
    assert any("FROM served" in one for one in asked)
