"""How often somebody may ask, keys that replace each other, and what four eyes must see."""

from __future__ import annotations

import json
from itertools import count
from typing import Any

import pytest

from edgeopt_fleet.rates import Limits
from edgeopt_fleet.rights import Role
from tests.rights.conftest import People

pytestmark = [pytest.mark.rights, pytest.mark.parametrize("backend", ["sqlite"], indirect=True)]


def limited(people: People, now: list[float], **rates: float) -> People:
    """Return the same people before an API with limits, whose clock is ``now[0]``."""
    wanted = {"per_user": 0.0, "per_address": 0.0, "enrolments": 0.0, **rates}
    return people.with_services(limits=Limits.of(**wanted, clock=lambda: now[0]))


async def asked_until_refused(people: People, who: str, method: str, path: str, **options: Any) -> int:
    """Return how many requests pass before 429, which must say when to come again."""
    for passed in count():
        answer = await people.ask(who, method, path, b"{}", **options)
        if answer.status == 429:
            assert "application/problem+json" == answer.headers["content-type"]
            wait = int(answer.headers["retry-after"])
            assert wait >= 1
            policy, quota, window = answer.headers["ratelimit-policy"].split(";")
            assert f"{policy};r=0;t={wait}" == answer.headers["ratelimit"]
            assert f"q={passed}" == quota, "as many as it says"
            assert int(window.removeprefix("w=")) >= 1
            assert "wait" in json.loads(answer.body)["detail"]
            return passed
    raise AssertionError


async def test_a_user_who_asks_too_often_waits_and_the_others_do_not(people: People) -> None:
    """The limit is a user's, over all keys and addresses; after Retry-After it goes on."""
    now = [0.0]
    limited_ = limited(people, now, per_user=2)
    assert 4 == await asked_until_refused(limited_, "viewer", "GET", "/api/v1/me")
    assert 429 == (await limited_.ask("viewer", "GET", "/api/v1/me", address="198.51.100.1")).status
    assert 200 == (await limited_.ask("operator", "GET", "/api/v1/me")).status
    now[0] += 1
    assert 200 == (await limited_.ask("viewer", "GET", "/api/v1/me")).status


async def test_who_guesses_keys_is_stopped_by_the_address(people: People) -> None:
    """Wrong keys use up the address; whoever has a right one there uses the key's limit instead, and keeps on."""
    now = [0.0]
    limited_ = limited(people, now, per_address=3)
    for _ in range(20):
        assert 200 == (await limited_.ask("viewer", "GET", "/api/v1/me")).status
    assert 6 == await asked_until_refused(limited_, "cut short", "GET", "/api/v1/me")
    assert 401 == (await limited_.ask("cut short", "GET", "/api/v1/me", address="198.51.100.1")).status


async def test_enrolment_is_stricter(people: People) -> None:
    """An address enrols a third of a minute's worth at once, while other requests go on; renewals count, too."""
    now = [0.0]
    limited_ = limited(people, now, per_address=1000, enrolments=30)
    passed = await asked_until_refused(limited_, "no key", "POST", "/api/v1/devices/enrol")
    assert 10 == passed
    assert 429 == (await limited_.ask("no key", "POST", "/api/v1/devices/renew", b"{}")).status
    assert 200 == (await limited_.ask("no key", "GET", "/api/v1/ca")).status
    now[0] += 2
    assert 422 == (await limited_.ask("no key", "POST", "/api/v1/devices/renew", b"{}")).status


async def test_a_rotated_key_goes_on_for_the_overlap_only(people: People) -> None:
    """Old and new work side by side until the overlap ends; whoever rotated never had no key."""
    kit = people.kit
    answer = await people.ask("viewer", "POST", "/api/v1/me/rotate", b'{"overlap_seconds": 600}')
    assert 201 == answer.status
    people.keys["new"] = json.loads(answer.body)["key"]
    for seconds, old in ((0, 200), (599, 200), (600, 401), (10**6, 401)):
        kit.now = 1000.0 + seconds
        assert old == (await people.ask("viewer", "GET", "/api/v1/me")).status, seconds
        assert 200 == (await people.ask("new", "GET", "/api/v1/me")).status, seconds


async def test_a_key_is_shown_once(people: People) -> None:
    """Lists show beginnings only; nothing that is read later opens the API."""
    answer = await people.ask("admin", "POST", "/api/v1/users", b'{"name": "alice", "role": "operator"}')
    key = json.loads(answer.body)["key"]
    people.keys["alice"] = key
    assert 200 == (await people.ask("alice", "GET", "/api/v1/me")).status
    for path in ("/api/v1/users", "/api/v1/users/alice", "/api/v1/audit", "/api/v1/audit/export"):
        text = (await people.ask("admin", "GET", path)).body.decode()
        assert key not in text
        assert key[len("eok_") + 8 :] not in text
    assert json.loads((await people.ask("alice", "GET", "/api/v1/me")).body)["prefix"] == key[:12]


async def test_there_is_always_an_admin_left(people: People) -> None:
    """Neither revoking, nor another role, nor revoking the last key takes the last admin away."""
    kit = people.kit
    for name in ("test", "careful", "late"):
        kit.users.revoke(name, kit.now)
    prefix = str(people.keys["admin"])[:12]
    for method, path, body in (
        ("POST", "revoke", {}),
        ("POST", "revoke", {"prefix": prefix}),
        ("PUT", "role", {"role": "viewer"}),
    ):
        answer = await people.ask("admin", method, f"/api/v1/users/admin/{path}", json.dumps(body).encode())
        assert 409 == answer.status
        assert "no admin" in json.loads(answer.body)["detail"]
    assert 200 == (await people.ask("admin", "GET", "/api/v1/users")).status
    body = json.dumps({"role": "admin"}).encode()
    assert 200 == (await people.ask("admin", "PUT", "/api/v1/users/approver/role", body)).status
    assert 200 == (await people.ask("admin", "PUT", "/api/v1/users/admin/role", b'{"role": "viewer"}')).status
    assert 403 == (await people.ask("admin", "GET", "/api/v1/users")).status


async def test_a_role_counts_from_the_next_request_on(people: People) -> None:
    """Nothing remembers the role that a user had."""
    assert 200 == (await people.ask("operator", "GET", "/api/v1/tokens")).status
    people.kit.users.change_role("operator", Role.VIEWER, people.kit.now)
    assert 403 == (await people.ask("operator", "GET", "/api/v1/tokens")).status
    people.kit.users.revoke("operator", people.kit.now)
    assert 401 == (await people.ask("operator", "GET", "/api/v1/me")).status


async def create(people: People, who: str, name: str) -> Any:
    """Create a rollout as one of them and return it."""
    kit = people.kit
    bundle = kit.publish(name)
    kit.enrol(f"device-of-{name}", for_=name)
    kit.put_cohort(name, for_=name)
    body = {"name": name, "bundle": bundle, "cohort": name, "waves": [100], "no_recall": True}
    answer = await people.ask(who, "POST", "/api/v1/rollouts", json.dumps(body).encode())
    assert 201 == answer.status, answer.body
    return json.loads(answer.body)


async def test_with_four_eyes_a_rollout_waits_for_somebody_else(people: People) -> None:
    """Not the creator, whatever the role; not an operator; not by starting it again. An approver lets it go."""
    strict = people.with_services(four_eyes=True)
    view = await create(strict, "approver", "v1")
    assert ("awaiting_approval", "approver") == (view["state"], view["created_by"])
    assert people.kit.registry.device("device-of-v1").desired_job is None
    for who, order, body, status in (
        ("approver", "approve", b"{}", 403),
        ("approver", "deny", b'{"reason": "changed my mind"}', 403),
        ("operator", "approve", b"{}", 403),
        ("operator", "start", b"{}", 409),
        ("admin", "resume", b"{}", 409),
        ("admin", "deny", b'{"reason": ""}', 422),
    ):
        answer = await strict.ask(who, "POST", f"/api/v1/rollouts/v1/{order}", body)
        assert status == answer.status, (who, order, answer.body)
    answer = await strict.ask("admin", "POST", "/api/v1/rollouts/v1/approve", b'{"reason": "tested in Oslo"}')
    view = json.loads(answer.body)
    assert (200, "running", "admin", "tested in Oslo") == (
        answer.status, view["state"], view["approved_by"], view["approval_reason"],
    )  # fmt: skip
    assert 409 == (await strict.ask("admin", "POST", "/api/v1/rollouts/v1/approve", b"{}")).status


async def test_who_denies_says_why(people: People) -> None:
    """The rollout ends, the words stay, no device heard of it."""
    strict = people.with_services(four_eyes=True)
    await create(strict, "operator", "v1")
    answer = await strict.ask("approver", "POST", "/api/v1/rollouts/v1/deny", b'{"reason": "the shop is open"}')
    view = json.loads(answer.body)
    assert ("cancelled", "approver", "the shop is open") == (
        view["state"],
        view["approved_by"],
        view["approval_reason"],
    )
    assert people.kit.registry.device("device-of-v1").desired_job is None


async def test_four_eyes_cannot_be_asked_away(people: People) -> None:
    """The fleet's setting holds, whatever the request says; without it a request may still ask for approval."""
    kit = people.kit
    bundle = kit.publish("v1")
    kit.enrol("cam-9")
    body = {"name": "v1", "bundle": bundle, "cohort": "all", "waves": [100], "no_recall": True, "approval": False}
    answer = await people.with_services(four_eyes=True).ask(
        "admin", "POST", "/api/v1/rollouts", json.dumps(body).encode()
    )
    assert "awaiting_approval" == json.loads(answer.body)["state"]
    assert 200 == (await people.ask("admin", "POST", "/api/v1/rollouts/v1/cancel", b"{}")).status
    answer = await people.ask("admin", "POST", "/api/v1/rollouts", json.dumps({**body, "name": "v2"}).encode())
    assert "running" == json.loads(answer.body)["state"]
