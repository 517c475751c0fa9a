"""What users of other servers complained about at the API, at enrolment and in rights: none of it happens here."""

from __future__ import annotations

import asyncio
import contextlib
import re
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import event

from edgeopt_contract.messages import DeviceState, Status
from edgeopt_fleet.filters import DeviceFilter
from edgeopt_fleet.gate import Policy
from edgeopt_fleet.problems import ForbiddenError, NotFoundError
from edgeopt_fleet.rollout import Event, Execution, State, Wave
from edgeopt_fleet.store import rollouts
from edgeopt_fleet.store.audit import AuditFilter
from edgeopt_fleet.store.inbox import Incoming
from edgeopt_fleet.store.rollouts import Plan
from edgeopt_fleet.store.tokens import TokenGrant
from tests.fleet.conftest import CAPABILITIES, Api, Kit, api, enrol_body, kit

pytestmark = pytest.mark.complaints
assert api  # the fixtures
assert kit


async def at_once(api: Api, method: str, path: str, times: int = 8, **options: Any) -> list[int]:
    """Send the same request several times at once; return the sorted status codes."""
    answers = await asyncio.gather(*(api.client.request(method, f"/api/v1/{path}", **options) for _ in range(times)))
    return sorted(answer.status_code for answer in answers)


async def test_hawkbit_3010_who_creates_the_same_at_once_is_told_so(api: Api) -> None:
    """There, the database's own error for a duplicate key, and a server that did not recover. Here one is made.

    The others are told that it is there, and the next request is answered as if nothing had been.
    """
    user = {"name": "alice", "role": "viewer"}
    assert [201, *[409] * 7] == await at_once(api, "POST", "users", json=user)
    api.kit.enrol("cam-0")
    body = {"name": "v1", "bundle": api.kit.publish("1"), "start": False, "no_recall": True}
    assert [201, *[409] * 7] == await at_once(api, "POST", "rollouts", json=body)
    several = api.kit.tokens.create(TokenGrant(uses=8, expires_at=2**31), api.kit.now)
    bodies = [enrol_body(several, "cam-1") for _ in range(8)]
    answers = await asyncio.gather(*(api.client.post("/api/v1/devices/enrol", content=one) for one in bodies))
    assert [201, *[409] * 7] == sorted(answer.status_code for answer in answers)
    assert ["cam-0", "cam-1"] == [item["id"] for item in (await api.call("GET", "devices", 200))["items"]]
    assert [200] * 8 == await at_once(api, "PUT", "cohorts/oslo", json={"tags": {"site": "oslo"}})


async def test_hawkbit_1770_a_rollout_is_created_whole_or_not_at_all(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """There, one stayed in ``creating`` with groups of no targets. Here the answer to the request has all members.

    When the work breaks off in the middle nothing is left, and the name is free.
    """
    api.kit.enrol(*(f"cam-{number}" for number in range(10)))
    body = {"name": "v1", "bundle": api.kit.publish("1"), "waves": [20, 100], "no_recall": True}

    def broken(*_arguments: object) -> None:
        raise NotFoundError("the power went")

    with monkeypatch.context() as patched:
        patched.setattr(rollouts, "add_members", broken)
        await api.call("POST", "rollouts", 404, json=body)
    assert [] == (await api.call("GET", "rollouts", 200))["items"]
    made = await api.call("POST", "rollouts", 201, json=body)
    assert ([2, 8], 10, "running") == (
        [wave["members"] for wave in made["waves"]],
        len(made["members"]),
        made["state"],
    )


def test_hawkbit_pr_144_creating_and_looking_do_not_lock_each_other(kit: Kit) -> None:
    """There, making a large rollout and checking those that run ended in a deadlock. Here both go on."""
    kit.enrol(*(f"cam-{number}" for number in range(30)), site="oslo")
    kit.put_cohort("oslo", site="oslo")
    digest, failures = kit.publish("1"), []

    def work(what: Any) -> None:
        try:
            for number in range(6):
                what(number)
        except BaseException as error:
            failures.append(error)

    def create(number: int) -> None:
        plan = Plan(
            name=f"r{number}",
            bundle=digest,
            cohort="oslo",
            waves=(Wave.parse("100%"),),
            policy=Policy(),
            execution=Execution(),
            allow_no_recall=True,
        )
        kit.rollouts.create(plan, kit.now)
        kit.rollouts.apply(plan.name, None, kit.now)
        kit.rollouts.apply(plan.name, Event.CANCELLED, kit.now)

    def look(_number: int) -> None:
        for name in kit.rollouts.unsettled():
            kit.rollouts.advance(name, kit.now)

    threads = [threading.Thread(target=work, args=(what,)) for what in (create, look, look)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert [] == failures
    assert {State.CANCELLED} == {kit.rollouts.report(name).rollout.state for name in kit.rollouts.names()}
    assert 6 == len(kit.rollouts.names())


@contextlib.contextmanager
def statements(kit: Kit) -> Iterator[list[tuple[str, Any]]]:
    """Note what is asked of the database meanwhile."""
    asked: list[tuple[str, Any]] = []

    def note(_connection: Any, _cursor: Any, statement: str, parameters: Any, *_rest: Any) -> None:
        asked.append((statement, parameters))

    engine = kit.database._reading
    event.listen(engine, "before_cursor_execute", note)
    try:
        yield asked
    finally:
        event.remove(engine, "before_cursor_execute", note)


@pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
@pytest.mark.parametrize("what", ["devices", "reports", "windows", "audit"])
def test_hawkbit_983_a_late_page_of_a_large_fleet_costs_one_page(kit: Kit, what: str) -> None:
    """There, lists of a million targets took ever longer. Here a page begins at its cursor, by an index.

    The plan of the database sorts nothing and looks at no row before the page. A device's windows are a chain, so
    theirs is one search for each row of the page.
    """
    kit.enrol("cam-1")
    with statements(kit) as asked:
        {
            "devices": lambda: kit.registry.devices(DeviceFilter(), "cam-0", 101),
            "reports": lambda: kit.registry.reports("cam-1", 500, 101),
            "windows": lambda: kit.registry.windows("cam-1", 500, 101),
            "audit": lambda: kit.audit.page(AuditFilter(), 101, 500),
        }[what]()
    lists = [(statement, parameters) for statement, parameters in asked if re.search("LIMIT|RECURSIVE", statement)]
    assert 1 == len(lists)
    assert 101 in lists[0][1]  # rows and no more
    with kit.database.reading() as session:
        rows = session.connection().exec_driver_sql(f"EXPLAIN QUERY PLAN {lists[0][0]}", lists[0][1]).all()
    plan = [str(row[-1]) for row in rows]
    touched = [step for step in plan if step.startswith(("SEARCH", "SCAN")) and step != "SCAN chain"]
    assert touched
    for step in touched:
        assert re.match(r"SEARCH \w+ USING (INTEGER PRIMARY KEY|(COVERING )?INDEX)", step), plan
    assert not any("TEMP B-TREE" in step for step in plan), plan


async def test_goosebit_175_nobody_is_registered_by_asking(api: Api) -> None:
    """There, whoever polled was a device from then on. Here neither a request nor a message makes one, only a token."""
    kit = api.kit
    for path in ("blocks/" + "0" * 64, "bundles/" + "0" * 64 + "/files/int8.onnx"):
        await api.call("GET", path, 401, headers={"Authorization": "Bearer made-up"})
    await api.call("POST", "devices/enrol", 403, content=enrol_body("made-up", "cam-9"))
    record = Status(device="cam-9", boot=1, online=True, agent_version="0", running=None, capabilities=CAPABILITIES)
    kit.inbox.store([Incoming(device="cam-9", record=record)], kit.now)
    assert [] == (await api.call("GET", "devices", 200))["items"]


async def test_goosebit_277_how_many_devices_stand_where_is_in_the_answer(api: Api) -> None:
    """There, nobody saw how far a rollout was. Here each wave counts, and devices are listed by how they are."""
    api.kit.enrol("a", "b", "c", "d")
    digest = api.kit.publish("1")
    body = {"name": "v1", "bundle": digest, "waves": [100], "no_recall": True}
    await api.call("POST", "rollouts", 201, json=body)
    api.kit.report("a", DeviceState.FAILED, None)
    api.kit.report("b", DeviceState.CONFIRMED, digest)
    api.kit.status("c", online=False)
    api.kit.rollouts.advance("v1", api.kit.now)
    ((wave,),) = [item["waves"] for item in (await api.call("GET", "rollouts", 200))["items"]]
    assert (4, 1, 1) == (wave["members"], wave["confirmed"], wave["failed"])
    offline = await api.call("GET", "devices", 200, params={"online": "false", "health": "offline"})
    assert ["c"] == [item["id"] for item in offline["items"]]


@pytest.mark.parametrize(
    "wrong",
    [
        {"execution": {"thresholds": [{"failure": "failed", "share": "30 %"}]}},
        {"execution": {"thresholds": [{"failure": "faild", "share": 0.3}]}},
        {"policy": {"failure_threshold": "a third"}},
        {"policy": {"failure_threshold": 30}},
        {"policy": {"failure_treshold": 0.3}},
    ],
    ids=str,
)
async def test_hawkbit_a_threshold_that_cannot_be_read_is_refused(api: Api, wrong: dict[str, Any]) -> None:
    """There, a malformed threshold never fired, and nobody was told. Here the rollout is not made."""
    api.kit.enrol("a")
    body = {"name": "v1", "bundle": api.kit.publish("1"), "no_recall": True, **wrong}
    problem = await api.call("POST", "rollouts", 422, json=body)
    assert problem["detail"].startswith(next(iter(wrong)))
    assert [] == (await api.call("GET", "rollouts", 200))["items"]


async def test_nerves_hub_failure_threshold_does_what_it_says(api: Api) -> None:
    """There, the field was stored and read by nothing. Here one device of four that fails is more than a fifth."""
    api.kit.enrol("a", "b", "c", "d")
    digest = api.kit.publish("1")
    for name, threshold, expected in (("strict", 0.2, {"rolling_back", "rolled_back"}), ("mild", 0.3, {"running"})):
        body = {"name": name, "bundle": digest, "no_recall": True, "waves": [100]}
        body["policy"] = {"failure_threshold": threshold, "minimum_executed": 1}
        await api.call("POST", "rollouts", 201, json=body)
        api.kit.report("a", DeviceState.FAILED, None)
        for device in "bcd":
            api.kit.report(device, DeviceState.CONFIRMED, digest)
        api.kit.rollouts.advance(name, api.kit.now)
        assert (await api.call("GET", f"rollouts/{name}", 200))["state"] in expected, name
        if name == "strict":
            for device in "abcd":
                api.kit.report(device, DeviceState.CONFIRMED, None)
            for _ in range(3):
                api.kit.rollouts.advance(name, api.kit.now)


@pytest.mark.parametrize("state", [state for state in DeviceState if state is not DeviceState.CONFIRMED])
async def test_goosebit_what_is_no_end_is_no_success(api: Api, state: DeviceState) -> None:
    """GooseBit took ``finished: none`` for success, zephyr#37272 a download at 5.75 %. Only CONFIRMED is one here."""
    api.kit.enrol("a")
    digest = api.kit.publish("1")
    await api.call("POST", "rollouts", 201, json={"name": "v1", "bundle": digest, "waves": [100], "no_recall": True})
    api.kit.report("a", state, digest)
    api.kit.rollouts.advance("v1", api.kit.now)
    shown = await api.call("GET", "rollouts/v1", 200)
    assert 0 == shown["waves"][0]["confirmed"]
    assert "succeeded" != shown["state"]


async def test_hawkbit_gateway_token_is_no_key_to_all_devices(api: Api) -> None:
    """There, one shared token opened every target. Here a device's bearer opens downloads, and ends with the device."""
    kit = api.kit
    for device in ("cam-1", "cam-2"):
        token = kit.tokens.create(TokenGrant(uses=1, expires_at=2**31), kit.now)
        kit.identities.enrol(token, kit.enrolment(device, bearer=f"bearer of {device}"), int(kit.now))
        with pytest.raises(ForbiddenError):
            kit.identities.enrol(token, kit.enrolment("cam-3"), int(kit.now))
    theirs = {"Authorization": "Bearer bearer of cam-1"}
    for path in ("devices", "devices/cam-2", "rollouts", "tokens", "users", "audit"):
        await api.call("GET", path, 401, headers=theirs)
    await api.call("GET", "blocks/" + "0" * 64, 404, headers=theirs)
    await api.call("POST", "devices/cam-1/revoke", 200)
    await api.call("GET", "blocks/" + "0" * 64, 401, headers=theirs)
    await api.call("GET", "blocks/" + "0" * 64, 404, headers={"Authorization": "Bearer bearer of cam-2"})


async def test_aws_jobs_who_cancels_knows_what_they_saw(api: Api) -> None:
    """AWS asks for ``expectedVersion`` so that two operators do not undo each other; here an order takes If-Match."""
    api.kit.enrol("a")
    await api.call(
        "POST", "rollouts", 201, json={"name": "v1", "bundle": api.kit.publish("1"), "start": False, "no_recall": True}
    )
    seen = {"If-Match": (await api.client.get("/api/v1/rollouts/v1")).headers["etag"]}
    await api.call("POST", "rollouts/v1/start", 200, headers=seen)
    await api.call("POST", "rollouts/v1/cancel", 412, headers=seen)
    assert "running" == (await api.call("GET", "rollouts/v1", 200))["state"]
