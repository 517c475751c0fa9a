"""Shadows over HTTP: orders, lists, agreement, looks; carried out once, in pages, with tags."""

from __future__ import annotations

from typing import Any

import pytest

from edgeopt_contract.messages import DeviceState
from tests.fleet.api.test_conventions import events
from tests.fleet.conftest import Api
from tests.fleet.shadow_world import World

CAMS = ("cam-1", "cam-2")


@pytest.fixture
def world(api: Api) -> World:
    """Two devices that run a champion."""
    made = World(api.kit)
    api.kit.enrol(*CAMS)
    made.champion(*CAMS)
    return made


def body(world: World, **changes: Any) -> dict[str, Any]:
    """Return a request for a shadow of a published challenger."""
    digest = world.kit.publish("challenger")
    return {"name": "next", "bundle": digest[:12], "share": 0.5, "until": 4000} | changes


async def test_a_shadow_is_created_started_shown_and_ended(api: Api, world: World) -> None:
    """Devices are told at once; the answer is the shadow as it stands."""
    draft = await api.call("POST", "shadows", 201, json=body(world, start=False))
    assert ("draft", {"waiting": 2}, None) == (draft["state"], draft["tally"], draft["verdict"])
    assert [] == api.announced
    started = await api.call("POST", "shadows/next/start", 200)
    assert [("asked", True), ("asked", True)] == [(one["state"], one["running"]) for one in started["members"]]
    assert [set(CAMS)] == api.announced
    world.say("cam-1", DeviceState.SHADOWING)
    shown = await api.call("GET", "shadows/next", 200)
    assert {"cam-1": "shadowing", "cam-2": "asked"} == {one["device"]: one["state"] for one in shown["members"]}
    ended = await api.call("POST", "shadows/next/end", 200)
    assert ("ended", "ended by test") == (ended["state"], ended["reason"])
    await api.call("POST", "shadows/next/end", 409)


async def test_the_same_request_is_carried_out_once(api: Api, world: World) -> None:
    """With its key it gets the same answer; with another the name is taken."""
    wanted, key = body(world), {"Idempotency-Key": "once"}
    first = await api.call("POST", "shadows", 201, json=wanted, headers=key)
    assert first == await api.call("POST", "shadows", 201, json=wanted, headers=key)
    await api.call("POST", "shadows", 409, json=wanted, headers={"Idempotency-Key": "other"})


async def test_under_another_condition_it_is_another_request(api: Api, world: World) -> None:
    """A key that came with one If-Match is refused with another: nobody is told that a stale order was carried out."""
    await api.call("POST", "shadows", 201, json=body(world))
    once = {"Idempotency-Key": "once"}
    ended = await api.call("POST", "shadows/next/end", 200, headers=once)
    assert ended == await api.call("POST", "shadows/next/end", 200, headers=once)
    await api.call("POST", "shadows/next/end", 422, headers=once | {"If-Match": '"stale"'})


async def test_of_two_who_read_the_same_one_ends_it(api: Api, world: World) -> None:
    """What was read is named by its tag; read again, it is not sent again."""
    await api.call("POST", "shadows", 201, json=body(world))
    answer = await api.client.get("/api/v1/shadows/next")
    tag = answer.headers["etag"]
    assert 304 == (await api.client.get("/api/v1/shadows/next", headers={"If-None-Match": tag})).status_code
    world.say("cam-1", DeviceState.SHADOWING)
    await api.call("POST", "shadows/next/end", 412, headers={"If-Match": tag})
    fresh = (await api.client.get("/api/v1/shadows/next")).headers["etag"]
    await api.call("POST", "shadows/next/end", 200, headers={"If-Match": fresh})


async def test_a_live_view_is_told_of_each_step(api: Api, world: World) -> None:
    """States, what devices say and looks; as lists show it, once for whoever goes on after it, and not of its rows."""
    ((_, position, _),) = await events(api)
    await api.call("POST", "shadows", 201, json=body(world, start=False))
    ((name, position, told),) = (await events(api, position, topic="shadows"))[1:]
    assert ("shadow", "next", "draft", []) == (name, told["name"], told["state"], told["members"])
    await api.call("POST", "shadows/next/start", 200)
    world.advance()
    ((_, position, told),) = (await events(api, position, topic="shadows"))[1:]
    assert ("running", {"waiting": 2}) == (told["state"], told["tally"])
    world.say("cam-1", DeviceState.SHADOWING)
    world.advance()
    ((_, position, told),) = (await events(api, position, topic="shadows"))[1:]
    assert {"shadowing": 1, "waiting": 1} == told["tally"]
    world.compare("cam-1", told["bundle"], agreed=30)
    world.advance()
    assert [] == (await events(api, position, topic="shadows"))[1:], "compared, and nothing to say of it yet"
    world.compare("cam-1", told["bundle"], agreed=300)
    world.advance()
    ((_, position, told),) = (await events(api, position, topic="shadows"))[1:]
    assert ("not_enough", 1) == (told["verdict"]["decision"], told["verdict"]["number"])
    world.advance()
    assert [] == (await events(api, position))[1:], "a look of the worker alone is no news"
    await api.call("POST", "shadows/next/end", 200)
    ((_, _, told),) = (await events(api, position, topic="shadows"))[1:]
    assert "ended" == told["state"]


async def test_lists_come_in_pages(api: Api, world: World) -> None:
    """Newest first, without members, each once."""
    for name in ("a", "b", "c"):
        await api.call("POST", "shadows", 201, json=body(world, name=name, start=name == "b"))
        api.kit.now += 1
    first = await api.call("GET", "shadows", 200, params={"limit": 2})
    rest = await api.call("GET", "shadows", 200, params={"limit": 2, "cursor": first["next"]})
    assert [["c", "b"], ["a"]] == [[one["name"] for one in page["items"]] for page in (first, rest)]
    assert rest["next"] is None
    assert [] == first["items"][0]["members"]
    running = await api.call("GET", "shadows", 200, params={"state": "running"})
    assert ["b"] == [one["name"] for one in running["items"]]


async def test_agreement_is_that_of_the_newest_look(api: Api, world: World) -> None:
    """By device, class and hardware, with reasons in words; every look is judged again to the same bytes."""
    policy = {"minimum_agreement": 0.5, "minimum_class_agreement": 0.4}
    created = await api.call("POST", "shadows", 201, json=body(world, policy=policy))
    assert 0.5 == created["policy"]["minimum_agreement"]
    nothing = await api.call("GET", "shadows/next/agreement", 200)
    assert (None, "not_enough", []) == (nothing["at"], nothing["look"]["decision"], nothing["classes"])
    for _ in range(20):
        world.compare("cam-1", created["bundle"], agreed=8, disagreed=2, classes=((4, 4, 0), (0, 2, 0)))
        world.compare("cam-2", created["bundle"], agreed=10, classes=((5, 5, 0), (0, 0, 0)))
    world.advance()
    found = await api.call("GET", "shadows/next/agreement", 200)
    assert ("recommend", 0.9, 400) == (
        found["look"]["decision"], found["look"]["over_all"]["share"], found["look"]["rows"],
    )  # fmt: skip
    assert [160, 200] == [one["agreed"] for one in found["devices"]]
    assert [("0", 180, 0), ("1", 180, 40)] == [(c["label"], c["agreed"], c["disagreed"]) for c in found["classes"]]
    assert "agrees on 90.00% of requests" in found["look"]["reasons"][0]
    looks = await api.call("GET", "shadows/next/looks", 200)
    assert (True, ["recommend"]) == (looks["same"], [one["figures"]["decision"] for one in looks["items"]])
    other = await api.call("GET", "shadows/next/looks", 200, params={"what_if": "minimum_agreement=0.99"})
    assert (False, ["do_not_recommend"]) == (other["same"], [one["figures"]["decision"] for one in other["items"]])
    await api.call("GET", "shadows/next/looks", 422, params={"what_if": "nonsense=1"})
    shown = await api.call("GET", "shadows/next", 200)
    assert ("recommend", 1) == (shown["verdict"]["decision"], shown["verdict"]["number"])


@pytest.mark.parametrize(
    "wrong",
    [
        {"share": 0.0}, {"share": 1.5}, {"until": 0}, {"until": 500}, {"until": 10**12}, {"at_once": 0},
        {"rows_each": 0}, {"name": "-"}, {"policy": {"minimum_agreement": 2.0}}, {"policy": {"unknown": 1}},
        {"share": "half"}, {"unknown": 1},
    ],
    ids=str,
)  # fmt: skip
async def test_what_cannot_be_is_refused_in_words(api: Api, world: World, wrong: dict[str, Any]) -> None:
    """Naming the field; nothing is written."""
    answer = await api.call("POST", "shadows", 422, json=body(world) | wrong)
    assert answer["detail"]
    await api.call("GET", "shadows/next", 404)


async def test_what_is_not_there_is_not_found(api: Api) -> None:
    """Every path about one shadow says so."""
    for method, path in (("GET", ""), ("GET", "/agreement"), ("GET", "/looks"), ("POST", "/start"), ("POST", "/end")):
        await api.call(method, f"shadows/nothing{path}", 404)
