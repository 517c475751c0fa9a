"""What all operations share: pages, ETags, answers that are given once, problems, and events."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from edgeopt_contract.messages import DeviceState
from edgeopt_fleet.filters import DeviceFilter
from edgeopt_fleet.store.feed import Feed, Position, Topic
from edgeopt_fleet.store.idempotency import KEPT_SECONDS, AnswerBook, Ticket
from tests.fleet.conftest import Api, Kit

COHORT = {"tags": {"site": "oslo"}}


async def events(api: Api, last: str | None = None, **query: Any) -> list[tuple[str, str, Any]]:
    """Return name, id and data of what there is to tell now."""
    headers = {} if last is None else {"Last-Event-ID": last}
    answer = await api.client.get("/api/v1/events", params={**query, "seconds": 0}, headers=headers)
    assert 200 == answer.status_code, answer.text
    assert answer.headers["content-type"].startswith("text/event-stream")
    found = []
    for block in answer.text.strip().split("\n\n"):
        lines = dict(line.split(": ", 1) for line in block.splitlines())
        found.append((lines["event"], lines["id"], json.loads(lines["data"])))
    return found


class TestPages:
    """Cursors."""

    async def test_all_pages_are_the_list(self, api: Api) -> None:
        """Also when devices come and go in between: nothing twice, nothing missing of what was there."""
        api.kit.enrol(*"bdfh")
        seen, cursor = [], ""
        for newcomer in "aceg":
            page = await api.call("GET", f"devices?limit=1{cursor}", 200)
            seen += [item["id"] for item in page["items"]]
            cursor = f"&cursor={page['next']}"
            api.kit.enrol(newcomer)
        assert ["b", "d", "f", "h"] == seen

    @pytest.mark.parametrize(
        "cursor", ["x", "bm9uZQ", "W10", "WyJsaXN0X2NvaG9ydHMiLCJhIl0", "é", "WyJsaXN0X2RldmljZXMiLDFd"]
    )
    async def test_what_is_no_cursor_of_this_list_is_refused(self, api: Api, cursor: str) -> None:
        """Also one of another list, or with a key of another type."""
        problem = await api.call("GET", "devices", 422, params={"cursor": cursor})
        assert "cursor" in problem["detail"]


class TestETags:
    """What was read is what is changed."""

    async def test_of_two_who_read_the_same_one_is_told(self, api: Api) -> None:
        """The second gets 412, and what the first saved stays."""
        await api.call("PUT", "cohorts/oslo", 200, json=COHORT)
        tag = (await api.client.get("/api/v1/cohorts/oslo")).headers["etag"]
        assert tag.startswith('"')
        headers = {"If-Match": tag}
        await api.call("PUT", "cohorts/oslo", 200, json={"tags": {"site": "lima"}}, headers=headers)
        problem = await api.call("PUT", "cohorts/oslo", 412, json=COHORT, headers=headers)
        assert "urn:edgeopt:problem:precondition-failed" == problem["type"]
        await api.call("DELETE", "cohorts/oslo", 412, headers=headers)
        assert {"site": "lima"} == (await api.call("GET", "cohorts/oslo", 200))["tags"]

    async def test_what_is_known_is_not_sent_again(self, api: Api) -> None:
        """304 without a body, by weak comparison; another tag gets the whole."""
        api.kit.enrol("a", site="oslo")
        first = await api.client.get("/api/v1/devices/a/tags")
        for known in (first.headers["etag"], f'"x", W/{first.headers["etag"]}', "*"):
            again = await api.client.get("/api/v1/devices/a/tags", headers={"If-None-Match": known})
            assert (304, b"", first.headers["etag"]) == (again.status_code, again.content, again.headers["etag"])
        other = await api.client.get("/api/v1/devices/a/tags", headers={"If-None-Match": '"x"'})
        assert first.json() == other.json()

    async def test_the_tag_of_a_change_is_that_of_what_is_there(self, api: Api) -> None:
        """So changes can follow each other without reading in between; If-Match of nothing is 412."""
        api.kit.enrol("a")
        put = await api.client.put("/api/v1/devices/a/tags", json=COHORT)
        assert put.headers["etag"] == (await api.client.get("/api/v1/devices/a/tags")).headers["etag"]
        await api.call("PUT", "cohorts/new", 412, json=COHORT, headers={"If-Match": "*"})


class TestIdempotency:
    """The same request twice."""

    async def test_a_token_is_made_once(self, api: Api) -> None:
        """The same answer, also from another process; another key makes another token."""
        headers = {"Idempotency-Key": "one"}
        first = await api.client.post("/api/v1/tokens", json={"uses": 2}, headers=headers)
        again = await api.client.post("/api/v1/tokens", json={"uses": 2}, headers=headers)
        assert (201, first.content, "true") == (again.status_code, again.content, again.headers["Idempotent-Replayed"])
        other = await api.call("POST", "tokens", 201, json={"uses": 2}, headers={"Idempotency-Key": "two"})
        assert first.json()["token"] != other["token"]
        assert 2 == len((await api.call("GET", "tokens", 200))["items"])

    async def test_another_request_with_the_same_key_is_refused(self, api: Api) -> None:
        """One of the two is not what was meant."""
        headers = {"Idempotency-Key": "one"}
        await api.call("POST", "tokens", 201, json={"uses": 1}, headers=headers)
        problem = await api.call("POST", "tokens", 422, json={"uses": 2}, headers=headers)
        assert "urn:edgeopt:problem:idempotency-key-reused" == problem["type"]

    async def test_a_refusal_is_no_answer_to_keep(self, api: Api) -> None:
        """What was wrong may be right later."""
        headers = {"Idempotency-Key": "one"}
        await api.call("POST", "tokens", 404, json={"cohort": "oslo"}, headers=headers)
        await api.call("PUT", "cohorts/oslo", 200, json=COHORT)
        await api.call("POST", "tokens", 201, json={"cohort": "oslo"}, headers=headers)

    async def test_two_at_once_are_carried_out_once(self, api: Api) -> None:
        """One is answered, the other one gets the same or is asked to come again."""
        headers = {"Idempotency-Key": "one"}
        answers = await asyncio.gather(*(api.client.post("/api/v1/tokens", json={}, headers=headers) for _ in range(5)))
        assert {answer.status_code for answer in answers} <= {201, 409}
        assert 1 == len({answer.content for answer in answers if answer.status_code == 201})
        assert 1 == len((await api.call("GET", "tokens", 200))["items"])

    async def test_secrets_that_were_answered_are_not_in_the_database(self, api: Api) -> None:
        """The database holds answers sealed under what only the client has, and for a day."""
        made = await api.call("POST", "tokens", 201, json={}, headers={"Idempotency-Key": "one"})
        with api.kit.database.reading() as session:
            rows = session.connection().exec_driver_sql("SELECT sealed FROM answer").all()
        assert 1 == len(rows)
        assert made["token"].encode() not in bytes(rows[0][0])
        book = AnswerBook(api.kit.database)
        ticket = Ticket(bearer="b", key="k", request_sha256="r")
        assert book.begin(ticket, api.kit.now + KEPT_SECONDS + 1) is None
        with api.kit.database.reading() as session:
            assert 1 == len(session.connection().exec_driver_sql("SELECT key FROM answer").all())


class TestEvents:
    """Live views."""

    async def test_what_changes_is_told_once_and_in_order(self, api: Api) -> None:
        """The first event is the present; what comes after it goes on from there, by topic."""
        api.kit.enrol("a")
        ((name, position, _),) = await events(api)
        assert "ready" == name
        api.kit.enrol("b", "c")
        api.kit.report("b", DeviceState.DOWNLOADING, None)
        told = await events(api, position)
        assert ["c", "b"] == [data["id"] for name, _, data in told if name == "device"], "as they are now"
        assert "downloading" == told[-1][2]["update"]["state"]
        assert ["ready"] == [name for name, _, _ in await events(api, told[-1][1])]
        assert ["ready"] == [name for name, _, _ in await events(api, position, topic="alerts")]
        assert ["b"] == [data["id"] for name, _, data in await events(api, told[-2][1]) if name == "device"]

    async def test_a_rollout_is_told_as_lists_show_it(self, api: Api) -> None:
        """Without members; each step is news."""
        api.kit.enrol("a")
        body = {"name": "v1", "bundle": api.kit.publish("1"), "start": False}
        ((_, position, _),) = await events(api)
        await api.call("POST", "rollouts", 201, json=body)
        await api.call("POST", "rollouts/v1/start", 200)
        ((_, _, data),) = [event for event in await events(api, position, topic="rollouts") if event[0] == "rollout"]
        assert ("v1", "running", []) == (data["name"], data["state"], data["members"])

    async def test_what_a_member_says_is_news_of_its_rollout(self, api: Api) -> None:
        """Also when nothing counts otherwise for it; another look at the same is none."""
        api.kit.enrol("a")
        await api.call("POST", "rollouts", 201, json={"name": "v1", "bundle": api.kit.publish("1")})
        ((_, position, _),) = await events(api)
        for state in (DeviceState.DOWNLOADING, DeviceState.VERIFYING):
            api.kit.report("a", state, None)
            api.kit.rollouts.advance("v1", api.kit.now)
            ((_, _, _), (name, position, _)) = await events(api, position, topic="rollouts")
            assert "rollout" == name
            assert str(state) == (await api.call("GET", "rollouts/v1", 200))["members"][0]["state"]
        api.kit.rollouts.advance("v1", api.kit.now)
        assert ["ready"] == [name for name, _, _ in await events(api, position, topic="rollouts")]

    @pytest.mark.parametrize("wrong", ["x", "-1", "1.devices.", "1.shadows.", "1.tokens.a", "99999999999999999"])
    async def test_what_is_no_id_is_refused(self, api: Api, wrong: str) -> None:
        """An id that was made up would miss something."""
        await api.call("GET", "events?seconds=0", 422, headers={"Last-Event-ID": wrong})


def test_a_page_of_the_feed_ends_anywhere(kit: Kit) -> None:
    """Many things that changed in one transaction are told over several pages, each once, after any of them."""
    kit.enrol(*(f"cam-{number}" for number in range(7)))
    kit.registry.mark_all_offline()
    feed, position, seen = Feed(kit.database), Position(0), []
    while changes := feed.since(position, tuple(Topic), 2):
        seen += [change.position.key for change in changes]
        position = Position.parse(str(changes[-1].position))
    assert [f"cam-{number}" for number in range(7)] == seen
    assert 7 == len(kit.registry.devices(DeviceFilter(online=False), None, 9))
