from __future__ import annotations

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
