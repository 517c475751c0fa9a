"""Devices whose clock is wrong: nothing expired is accepted silently, and a clock that is mended is enough."""

from __future__ import annotations

import pytest

from edgeopt_agent.trust.floor import RELEASED, Floor, Reading, advanced, raised, time_at_least
from edgeopt_agent.trust.question import Outcome
from edgeopt_agent.trust.state import load_state
from tests.attack.conftest import NEW, OLD, Attack, Victim
from tests.metadata import DAY, MetadataFleet

pytestmark = pytest.mark.attack
TEN_YEARS = 10 * 365 * DAY


def test_clock_at_1970_with_good_metadata(fleet: MetadataFleet, victim: Victim) -> None:
    """The fleet's own statement of the time is enough to work with."""
    victim.reboot(wall=12.0)
    assert Outcome.TRUSTED == victim.ask(NEW, fleet.message()).outcome


def test_clock_at_1970_and_a_recording(attack: Attack) -> None:
    """Metadata that expired before the time that the device has been told are refused, whatever its clock says."""
    recording = attack.fleet.message()
    attack.fleet.now += 30 * DAY
    attack.fleet.publish()
    attack.victim.reboot(wall=attack.fleet.now)
    assert Outcome.TRUSTED == attack.victim.ask(NEW, attack.fleet.message()).outcome
    attack.victim.reboot(wall=12.0)
    floor = load_state(attack.victim.directory, attack.victim.root).floor
    assert attack.fleet.now <= floor.at + 1
    attack.refused(recording, "older")


def test_clock_at_1970_and_metadata_that_expired_meanwhile(attack: Attack) -> None:
    """The newest that it knows expire by the time since boot, although the clock never reaches that date."""
    recording = attack.fleet.message()
    assert Outcome.TRUSTED == attack.victim.ask(NEW, recording).outcome
    attack.victim.reboot(wall=12.0)
    assert Outcome.TRUSTED == attack.victim.ask(NEW, recording).outcome
    attack.victim.wait(8 * DAY)
    attack.fleet.now += 8 * DAY
    attack.fleet.tick()
    attack.refused(recording, "expired")


def test_new_device_at_1970_and_metadata_of_an_earlier_age(attack: Attack) -> None:
    """Not even a device that knows nothing accepts what expired before its software was released."""
    old = MetadataFleet(now=RELEASED - 400 * DAY)
    old.add(NEW)
    victim = Victim(attack.victim.directory / "new", old.root_text, Reading(wall=5.0, boot="b", uptime=5.0), None)
    answer = victim.ask(NEW, old.message())
    assert Outcome.WAITING == answer.outcome
    assert "expired" in answer.reason
    attack.held(answer.reason, "broker")


def test_clock_ten_years_ahead(attack: Attack) -> None:
    """Everything looks expired: refused with the reason; once the clock is right, accepted, for it left no trace."""
    attack.victim.reboot(wall=attack.fleet.now + TEN_YEARS)
    answer = attack.refused(attack.fleet.message(), "expired", by="clock", recovers=False)
    assert "is its clock right" in answer.reason
    attack.victim.reboot(wall=attack.fleet.now)
    assert Outcome.TRUSTED == attack.victim.ask(NEW, attack.fleet.message()).outcome


def test_clock_ten_years_ahead_while_metadata_are_accepted(fleet: MetadataFleet, victim: Victim) -> None:
    """A clock that ran ahead within the metadata's validity does not raise the floor either."""
    victim.wait(0.0, wall=fleet.now + 5 * DAY)
    assert Outcome.TRUSTED == victim.ask(NEW, fleet.message()).outcome
    assert load_state(victim.directory, victim.root).floor.at < fleet.now + DAY


def test_offline_for_a_month_then_resumed(attack: Attack) -> None:
    """Without a network the verified metadata decide until they expire; an update that is resumed later waits."""
    assert Outcome.TRUSTED == attack.victim.ask(NEW, attack.fleet.message()).outcome
    attack.victim.wait(DAY)
    assert Outcome.TRUSTED == attack.victim.ask(NEW, b"").outcome
    attack.victim.wait(30 * DAY)
    attack.fleet.now += 31 * DAY
    attack.fleet.publish()
    attack.refused(b"", "expired", by="network")


def test_floor_goes_on_with_the_time_since_boot() -> None:
    """Within one boot by the uptime, after another boot by nothing, and never backwards."""
    floor = raised(Floor(), Reading(wall=0.0, boot="a", uptime=10.0), stated=RELEASED + 100.0, keys=("k",))
    assert RELEASED + 150.0 == time_at_least(floor, Reading(wall=0.0, boot="a", uptime=60.0))
    assert RELEASED + 100.0 == time_at_least(floor, Reading(wall=0.0, boot="b", uptime=60.0))
    assert RELEASED + 999.0 == time_at_least(floor, Reading(wall=RELEASED + 999.0, boot="b", uptime=60.0))
    later = raised(floor, Reading(wall=0.0, boot="a", uptime=60.0), stated=5.0, keys=("k",))
    assert (RELEASED + 150.0, ("k",)) == (later.at, later.keys)
    unknown_boot = Reading(wall=0.0, boot="", uptime=99.0)
    assert floor.at == advanced(advanced(floor, unknown_boot), unknown_boot).at


def test_running_bundle_needs_no_metadata(fleet: MetadataFleet, victim: Victim) -> None:
    """OLD was accepted once; a question about it is answered by what is on the disk, at any clock in its validity."""
    victim.reboot(wall=0.0)
    assert Outcome.TRUSTED == victim.ask(OLD, b"").outcome
