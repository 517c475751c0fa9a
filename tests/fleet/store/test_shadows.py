from __future__ import annotations

import pytest

from edgeopt_contract.messages import DeviceState, Shadow
from edgeopt_fleet.gate import Policy
from edgeopt_fleet.gate.shadow import Decision
from edgeopt_fleet.gate.shadow_evidence import ClassAgreement, ShadowPolicy
from edgeopt_fleet.problems import ConflictError, InvalidError, NotFoundError
from edgeopt_fleet.rollout import Event, Wave
from edgeopt_fleet.store.audit import AuditFilter
from edgeopt_fleet.store.rollouts import Plan
from edgeopt_fleet.store.shadow_rows import ShadowState
from edgeopt_fleet.store.shadows import LONGEST_SECONDS, ShadowPlan
from tests.fleet.conftest import Kit
from tests.fleet.shadow_world import World

CAMS = ("cam-1", "cam-2", "cam-3")


@pytest.fixture
def world(kit: Kit) -> World:
    """Three devices that run a champion."""
    made = World(kit)
    kit.enrol(*CAMS)
    made.champion(*CAMS)
    return made


# --- what is asked for ----------------------------------------------------------------------------------------------


def test_members_are_those_of_the_cohort_and_a_draft_tells_nobody(world: World) -> None:
    """A draft waits; started, each device is told job, bundle, share and end."""
    bundle = world.create(start=False)
    assert dict.fromkeys(CAMS) == world.states()
    assert {} == world.outbox.orders()
    assert set(CAMS) == world.shadows.start("next", world.kit.now)
    expected = Shadow(job="next", bundle=bundle, share=0.5, until=4600)
    assert dict.fromkeys(CAMS, expected) == world.outbox.orders()


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"bundle": "abcd"}, NotFoundError, "there is no bundle"),
        ({"cohort": "nowhere"}, NotFoundError, "there is no cohort"),
        ({"cohort": "empty"}, InvalidError, "has no device"),
        ({"until": 1000}, InvalidError, "within the next 90 days"),
        ({"until": 1001 + LONGEST_SECONDS}, InvalidError, "within the next 90 days"),
        ({"name": "taken"}, ConflictError, "never used twice"),
    ],
)
def test_what_cannot_be_is_refused(world: World, changes: dict[str, str], error: type[Exception], words: str) -> None:
    """Each refusal says what was expected, and writes nothing."""
    world.create("taken", start=False)
    world.kit.put_cohort("empty", site="nowhere")
    plan = {"name": "next", "bundle": world.kit.publish("challenger"), "cohort": "all", "share": 1.0, "until": 2000}
    with pytest.raises(error, match=words):
        world.shadows.create(ShadowPlan(**plan | changes), world.kit.now)
    with pytest.raises(NotFoundError):
        world.shadows.report("next")


@pytest.mark.parametrize(
    "wrong", [{"share": 0.0}, {"share": 1.1}, {"at_once": 0}, {"rows_each": 0}], ids=lambda wrong: next(iter(wrong))
)
def test_a_plan_out_of_range_cannot_be_made(wrong: dict[str, float]) -> None:
    """Wrong values do not exist."""
    plan = {"name": "next", "bundle": "abcd", "cohort": "all", "share": 0.5, "until": 2000}
    with pytest.raises(ValueError, match="expected"):
        ShadowPlan(**plan | wrong)  # type: ignore[arg-type]  # one is wrong


def test_a_draft_is_started_once_and_a_shadow_ends_once(world: World) -> None:
    """Orders that the state does not allow are conflicts; a draft whose time is over cannot start."""
    world.create(start=False)
    world.shadows.start("next", world.kit.now)
    with pytest.raises(ConflictError, match="only a draft"):
        world.shadows.start("next", world.kit.now)
    world.shadows.end("next", world.kit.now)
    with pytest.raises(ConflictError, match="has ended already"):
        world.shadows.end("next", world.kit.now)
    world.create("late", start=False)
    with pytest.raises(ConflictError, match="over"):
        world.shadows.start("late", world.kit.now + 3600)


def test_a_check_sees_the_shadow_in_the_transaction_that_ends_it(world: World) -> None:
    """What it refuses does not happen."""
    world.create()

    def refuse(report: object) -> None:
        raise ConflictError(f"no: {report.row.state}")  # type: ignore[attr-defined]  # a report

    with pytest.raises(ConflictError, match="no: running"):
        world.shadows.end("next", world.kit.now, refuse)
    assert ShadowState.RUNNING == world.shadows.report("next").row.state


def test_everything_stands_in_the_audit_log(world: World) -> None:
    """Creating, starting and ending, in the transactions that do it; also the end that nobody ordered."""
    world.create(until=1100)
    world.advance(seconds=100)
    entries = world.kit.audit.page(AuditFilter(subject="shadow/next"), 10)
    assert ["shadow.end", "shadow.start", "shadow.create"] == [entry.operation for entry in entries]
    assert "its time was over" == entries[0].detail["reason"]


# --- who runs it ----------------------------------------------------------------------------------------------------


def test_only_so_many_run_it_at_once_and_who_is_done_makes_room(world: World) -> None:
    """With one at a time, each is asked in turn: after its rows, or after its last report."""
    bundle = world.create(at_once=1, rows_each=100)
    asked = []
    for _ in range(2):
        (device,) = world.running()
        asked.append(device)
        world.compare(device, bundle, agreed=60)
        assert set() == world.advance()
        world.compare(device, bundle, agreed=60)
        assert device in world.advance()
    (device,) = world.running()
    world.say(device, DeviceState.FAILED, detail="out of memory")
    world.advance()
    assert set() == world.running()
    assert set(CAMS) == {*asked, device}
    assert ("ended", "every device is done") == (
        world.shadows.report("next").row.state, world.shadows.report("next").row.reason,
    )  # fmt: skip


def test_a_device_whose_update_is_not_over_keeps_it_first(world: World) -> None:
    """It is asked once the rollout has confirmed it there, and not before."""
    update = world.kit.publish("update")
    world.kit.put_cohort("first", site="oslo")
    world.kit.registry.put_tags("cam-1", {"site": "oslo"}, world.kit.now, lambda _tags: None)
    waves, policy = (Wave.parse("100%"),), Policy(bake_seconds=0)
    world.kit.rollouts.create(Plan(name="v2", bundle=update, cohort="first", waves=waves, policy=policy), world.kit.now)
    world.kit.rollouts.apply("v2", Event.STARTED, world.kit.now)
    world.create()
    assert {"cam-2", "cam-3"} == world.running()
    world.kit.report("cam-1", DeviceState.CONFIRMED, update)
    world.kit.rollouts.advance("v2", world.kit.now)
    assert {"cam-1"} == world.advance()


def test_a_device_shadows_one_challenger_at_a_time(world: World) -> None:
    """The second shadow gets a device when the first has let it go."""
    world.create("one")
    world.create("two", version="other")
    assert {"one"} == {order.job for order in world.outbox.orders().values() if order}
    assert set() == world.advance("two")
    world.shadows.end("one", world.kit.now)
    assert set(CAMS) == world.advance("two")
    assert {"two"} == {order.job for order in world.outbox.orders().values() if order}


def test_who_serves_it_is_away_or_has_left_is_not_asked(world: World) -> None:
    """One that answers with the challenger itself counts as done, one that is away waits, a revoked one is let go."""
    bundle = world.create(start=False)
    world.kit.status("cam-1", running=bundle, boot=3)
    world.kit.status("cam-2", online=False, running=None, boot=2)
    world.shadows.start("next", world.kit.now)
    assert {"cam-3"} == world.running()
    assert {"cam-1": "serves_it", "cam-2": None, "cam-3": None} == world.states()
    world.kit.identities.revoke("cam-3", int(world.kit.now))
    assert {"cam-3"} == world.advance()
    assert ShadowState.RUNNING == world.shadows.report("next").row.state  # cam-2 may come back


def test_it_ends_with_its_time_and_tells_every_device_that_runs_it(world: World) -> None:
    """Whoever runs it is told that it is over; those never asked are not."""
    world.create(at_once=2, until=1500)
    before = world.running()
    assert before == world.advance(seconds=500)
    assert dict.fromkeys(before) == world.outbox.orders()
    assert ["next"] == world.shadows.unsettled(world.kit.now)  # what devices still send is looked at
    assert [] == world.shadows.unsettled(world.kit.now + 86401)


def test_lists_come_newest_first_in_pages(world: World) -> None:
    """Each with its members counted by state."""
    for name in ("a", "b", "c"):
        world.create(name, start=name == "a")
        world.kit.now += 1
    first = world.shadows.reports(2)
    assert ["c", "b"] == [report.row.name for report in first]
    rest = world.shadows.reports(2, (first[-1].row.created_at, first[-1].row.name))
    assert [("a", {"waiting": 3})] == [(report.row.name, report.tally) for report in rest]
    assert ["a"] == [report.row.name for report in world.shadows.reports(9, states=[ShadowState.RUNNING])]


# --- what is published ----------------------------------------------------------------------------------------------


def test_an_order_is_published_until_it_was_and_again_when_it_changed(world: World) -> None:
    """A change between reading and clearing the mark is published once more."""
    world.create()
    waiting = world.outbox.waiting()
    assert dict.fromkeys((("next", cam) for cam in CAMS), True) == waiting
    world.say("cam-1", DeviceState.REJECTED)
    world.advance()
    world.outbox.done(waiting)
    assert {("next", "cam-1"): False} == world.outbox.waiting()
    world.outbox.done(world.outbox.waiting())
    assert {} == world.outbox.waiting()


def test_a_device_that_was_away_at_the_end_is_told_when_it_returns(world: World) -> None:
    """Until it has said that it is over: a retained message that was cleared is not there any more."""
    world.create()
    world.say("cam-1", DeviceState.SHADOWING)
    world.shadows.end("next", world.kit.now)
    world.outbox.done(world.outbox.waiting())
    world.kit.status("cam-1", boot=9)
    assert {("next", "cam-1"): False} == world.outbox.waiting()
    world.outbox.done(world.outbox.waiting())
    world.say("cam-1", DeviceState.SUPERSEDED)
    world.kit.status("cam-1", boot=10)
    assert {} == world.outbox.waiting()


# --- what is said of it ---------------------------------------------------------------------------------------------


def test_a_look_is_kept_and_judged_again_to_the_same_bytes(world: World) -> None:
    """Also long after; under another policy it may come to something else, and then says so."""
    policy = ShadowPolicy(minimum_agreement=0.5, minimum_class_agreement=0.5, minimum_rows=50)
    bundle = world.create(policy=policy)
    for device in CAMS:
        for _ in range(20):
            world.compare(device, bundle, agreed=9, disagreed=1, classes=((5, 4, 0), (0, 1, 0)))
    world.advance()
    (look,) = world.looks.explain("next", 10)
    assert (Decision.RECOMMEND, True, 1) == (look.verdict.decision, look.same, look.number)
    figures = look.verdict.agreement
    assert (3, 600) == (figures.devices, figures.rows)
    assert 60 == pytest.approx(figures.windows)
    assert 0.9 == (figures.over_all and figures.over_all.share)
    hardware = world.kit.registry.device("cam-1").hardware
    assert [hardware] == list(figures.latency)
    ratio, apart = figures.latency[hardware], pytest.approx(10 ** (2 / 8), rel=1e-4)  # two cells of 1/8 of a decade
    assert [apart] * 3 == [ratio.lower, ratio.median, ratio.upper], "every device of it was asked"
    assert ClassAgreement(label="1", agreed=240, disagreed=60, windows=30.0) == figures.worst
    assert {hardware: 3} == look.evidence.hardware
    (strict,) = world.looks.explain("next", 10, {"minimum_class_agreement": "0.8"})
    assert Decision.NOT_ENOUGH is strict.verdict.decision, "80% of 300 rows is not surely 80%"
    (other,) = world.looks.explain("next", 10, {"minimum_agreement": "0.99"})
    assert (Decision.DO_NOT_RECOMMEND, False) == (other.verdict.decision, other.same)
    with pytest.raises(InvalidError, match="expected a field of the policy"):
        world.looks.explain("next", 10, {"nonsense": "1"})


def test_looks_come_as_a_quarter_more_was_compared(world: World) -> None:
    """Few looks, however often the worker comes by; after the end everything that arrives is looked at."""
    bundle = world.create()
    world.compare("cam-1", bundle, agreed=100)
    world.advance()
    for _ in range(4):
        world.compare("cam-1", bundle, agreed=6)
        world.advance()
    assert [1] == [look.number for look in world.looks.explain("next", 10)]
    world.compare("cam-1", bundle, agreed=1)
    world.advance()
    assert [1, 2] == [look.number for look in world.looks.explain("next", 10)]
    world.shadows.end("next", world.kit.now)
    world.compare("cam-1", bundle, agreed=1)
    world.advance()
    assert [1, 2, 3] == [look.number for look in world.looks.explain("next", 10)]


def test_without_rows_nothing_is_known_and_no_look_is_spent(world: World) -> None:
    """No data is no recommendation; it says how many rows are missing."""
    bundle = world.create(policy=ShadowPolicy(minimum_rows=80))
    world.advance()
    world.compare("cam-1", bundle, agreed=50)
    world.advance()
    found = world.looks.agreement("next")
    assert (Decision.NOT_ENOUGH, None) == (found.verdict.decision, found.at)
    assert "30 more rows needed" in found.verdict.reasons[0]
    assert [] == world.looks.explain("next", 10)


def test_devices_that_fail_at_it_speak_against_it(world: World) -> None:
    """Without a single row, too; the look is kept."""
    world.create()
    for device in CAMS:
        world.say(device, DeviceState.FAILED, detail="the runner was killed")
    world.advance()
    (look,) = world.looks.explain("next", 10)
    assert Decision.DO_NOT_RECOMMEND is look.verdict.decision
    assert "3 of 3 devices failed" in look.verdict.reasons[0]


def test_devices_that_refuse_it_are_none_that_it_is_about(world: World) -> None:
    """A platform that has no variant of it will never run it."""
    bundle = world.create()
    world.say("cam-3", DeviceState.REJECTED, detail="no variant fits")
    world.compare("cam-1", bundle, agreed=60)
    world.advance()
    assert 2 == world.looks.agreement("next").evidence.members
