"""Every operation that changes something leaves one entry in the audit log, in the transaction of the change.

The operations are those of the OpenAPI: a new one without a case here fails :func:`test_every_change_has_a_case`.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlmodel import SQLModel

from edgeopt.signing.drafts import read_metadata
from edgeopt.signing.keys import OfflineKey
from edgeopt_contract.codec import decode, encode
from edgeopt_contract.enrolment import EnrolResponse
from edgeopt_contract.errors import StorageError
from edgeopt_contract.values import digest_of
from edgeopt_fleet.api.app import create_app
from edgeopt_fleet.rights import Role
from edgeopt_fleet.store import audit, rollout_turns
from edgeopt_fleet.store.alarms import Alarm, raise_alarm
from edgeopt_fleet.store.audit import AuditFilter
from edgeopt_fleet.store.tables import AuditRow, BlockRow
from edgeopt_fleet.store.tokens import TokenGrant, token_id
from edgeopt_fleet.tuf.keys import create_key, read_public
from edgeopt_fleet.tuf.metadata import Change, render
from tests.fleet.api.test_arms import observed, with_arms
from tests.fleet.api.test_identities import enrol, renewal
from tests.fleet.conftest import Api, enrol_body, make_bundle
from tests.fleet.shadow_world import World
from tests.identity import DeviceKey

pytestmark = pytest.mark.rights

SCHEMA: dict[str, Any] = create_app(None).openapi()  # type: ignore[arg-type]  # its description only
CHANGING = {
    operation["operationId"]: (method.upper(), path)
    for path, operations in SCHEMA["paths"].items()
    for method, operation in operations.items()
    if method != "get"
}
SILENT = {
    "planRollout": "it says what would be, and writes nothing",
    "putBlock": "bytes under their own hash mean nothing until a bundle names them, and that is told",
}


@dataclass(frozen=True)
class Case:
    """One operation: what is asked for, what the log says of it, and a request for it that is refused.

    ``ask`` prepares the fleet and returns the path's parameters and how the body is sent. ``before`` and ``after``: the
    thing was there, and is there. ``follows``: steps that a rollout takes next by itself; each is a change of its own.
    """

    ask: Callable[[Api, Path], Any]
    told: str
    subject: str
    wrong: dict[str, Any]
    actor: str = "test"
    before: bool = True
    after: bool = True
    follows: tuple[str, ...] = ()


def _path(operation: str, parameters: dict[str, Any]) -> tuple[str, str]:
    method, path = CHANGING[operation]
    return method, re.sub(r"\{(\w+)\}", lambda match: str(parameters.get(match[1], "nothing-such")), path)


async def _token(api: Api, _directory: Path) -> dict[str, Any]:
    return {"path": {"token": token_id(api.kit.tokens.create(TokenGrant(uses=1, expires_at=2**31), api.kit.now))}}


async def _device(api: Api, _directory: Path) -> dict[str, Any]:
    api.kit.enrol("cam-1", site="oslo")
    return {"path": {"device": "cam-1"}}


async def _tags(api: Api, directory: Path) -> dict[str, Any]:
    return {**await _device(api, directory), "json": {"tags": {"site": "lima"}}}


async def _enrol(api: Api, _directory: Path) -> dict[str, Any]:
    return {"content": enrol_body(api.kit.tokens.create(TokenGrant(uses=1, expires_at=2**31), api.kit.now), "cam-1")}


async def _renew(api: Api, _directory: Path) -> dict[str, Any]:
    key = DeviceKey()
    access: EnrolResponse = await enrol(api, "cam-1", key)
    return {"content": renewal(decode(EnrolResponse, encode(access)), key, DeviceKey())}


async def _cohort(api: Api, _directory: Path) -> dict[str, Any]:
    api.kit.put_cohort("oslo", site="oslo")
    return {"path": {"name": "oslo"}, "json": {"tags": {"site": "lima"}}}


async def _new_cohort(_api: Api, _directory: Path) -> dict[str, Any]:
    return {"path": {"name": "oslo"}, "json": {"tags": {"site": "lima"}}}


async def _bundle(api: Api, directory: Path) -> dict[str, Any]:
    bundle = make_bundle(directory / "new", "9")
    return {"content": (bundle.directory / "manifest.json").read_bytes()}


async def _alarm(api: Api, _directory: Path) -> dict[str, Any]:
    raise_alarm(api.kit.database, Alarm("token_reuse", "token/abc", "used again"), api.kit.now)
    return {"path": {"number": 1}}


async def _user(api: Api, _directory: Path) -> dict[str, Any]:
    api.kit.users.create("alice", Role.VIEWER, api.kit.now)
    return {"path": {"name": "alice"}, "json": {}}


async def _role(api: Api, directory: Path) -> dict[str, Any]:
    return {**await _user(api, directory), "json": {"role": "operator"}}


async def _draft(api: Api, directory: Path) -> dict[str, Any]:
    await _device(api, directory)
    body = {"name": "v1", "bundle": api.kit.publish("1"), "start": False, "no_recall": True}
    return {"path": {"name": "v1"}, "json": body}


def _rollout(*orders: str, approval: bool = False, body: dict[str, Any] | None = None) -> Any:
    """Return what prepares a rollout that was given these orders."""

    async def ask(api: Api, directory: Path) -> dict[str, Any]:
        asked = await _draft(api, directory)
        if approval:
            other = api.kit.users.create("bob", Role.OPERATOR, api.kit.now).key
            whose = {"Authorization": f"Bearer {other}"}
        else:
            whose = {}
        wish = asked["json"] | {"approval": approval, "start": approval}
        await api.call("POST", "rollouts", 201, json=wish, headers=whose)
        for order in orders:
            await api.call("POST", f"rollouts/v1/{order}", 200)
        return {"path": {"name": "v1"}, **({} if body is None else {"json": body})}

    return ask


async def _compared(api: Api, _directory: Path) -> dict[str, Any]:
    await with_arms(api)
    await observed(api, worse=None)
    return {"path": {"name": "ab"}, "json": {"keep": "both", "rollout": "rest"}}


def _signed(role: str) -> Any:
    """Return what signs a draft of ``role`` with a key that is not the server's."""

    async def ask(api: Api, directory: Path) -> dict[str, Any]:
        key = directory / f"{role}.pem"
        create_key(key)
        (old,) = (view for view in api.kit.metadata.roles() if view.role == role)
        add = (read_public(key.with_suffix(".pub")),)
        api.kit.metadata.change_keys((Change(role=role, add=add, remove=tuple(old.keys), threshold=1),), api.kit.now)
        unsigned = api.kit.metadata.unsigned()
        draft = unsigned.root_draft if role == "root" else unsigned.targets_draft
        assert draft is not None
        metadata = read_metadata(draft)
        OfflineKey.load(key, None).sign(metadata)
        return {"content": render(metadata)}

    return ask


def _shadow(*, started: bool) -> Any:
    """Return what prepares a shadow that was created, and started or not."""

    async def ask(api: Api, _directory: Path) -> dict[str, Any]:
        world = World(api.kit)
        api.kit.enrol("cam-1")
        world.champion("cam-1")
        world.create(start=started)
        return {"path": {"name": "next"}}

    return ask


async def _new_shadow(api: Api, _directory: Path) -> dict[str, Any]:
    api.kit.enrol("cam-1")
    return {"json": {"name": "next", "bundle": api.kit.publish("1"), "share": 0.1, "until": 4000, "start": False}}


GONE: dict[str, Any] = {}  # the path names nothing that there is
CASES = {
    "createToken": Case(_new_cohort, "token.create", r"token/[0-9a-f]{16}", {"json": {"uses": 0}}, before=False),
    "revokeToken": Case(_token, "token.revoke", r"token/[0-9a-f]{16}", GONE),
    "enrolDevice": Case(_enrol, "device.enrol", "device/cam-1", {"content": b"{}"}, actor="device/cam-1", before=False),
    "renewDevice": Case(_renew, "device.renew", "device/cam-1", {"content": b"{}"}, actor="device/cam-1"),
    "revokeDevice": Case(_device, "device.revoke", "device/cam-1", GONE),
    "putDeviceTags": Case(_tags, "device.tags", "device/cam-1", {"json": {"tags": {}}}),
    "putCohort": Case(_new_cohort, "cohort.put", "cohort/oslo", {"path": {"name": "all"}, "json": {}}, before=False),
    "deleteCohort": Case(_cohort, "cohort.delete", "cohort/oslo", GONE, after=False),
    "publishBundle": Case(_bundle, "bundle.publish", "bundle/[0-9a-f]{64}", {"content": b"{}"}, before=False),
    "putRoot": Case(_signed("root"), "tuf.accept", "tuf/metadata", {"content": b"{}"}),
    "putTargets": Case(_signed("targets"), "tuf.accept", "tuf/metadata", {"content": b"{}"}),
    "createRollout": Case(_draft, "rollout.create", "rollout/v1", {"json": {"name": "v1"}}, before=False),
    "startRollout": Case(_rollout(), "rollout.scheduled", "rollout/v1", GONE, follows=("rollout.started",)),
    "pauseRollout": Case(_rollout("start"), "rollout.paused", "rollout/v1", GONE),
    "resumeRollout": Case(_rollout("start", "pause"), "rollout.resumed", "rollout/v1", GONE),
    "cancelRollout": Case(_rollout("start"), "rollout.cancelled", "rollout/v1", GONE),
    "rollBackRollout": Case(
        _rollout("start"), "rollout.roll_back_ordered", "rollout/v1", GONE, follows=("rollout.recalled",)
    ),
    "approveRollout": Case(
        _rollout(approval=True, body={"reason": "seen"}),
        "rollout.approved",
        "rollout/v1",
        {"json": {}},
        follows=("rollout.started",),
    ),
    "denyRollout": Case(_rollout(approval=True, body={"reason": "no"}), "rollout.denied", "rollout/v1", {"json": {}}),
    "createShadow": Case(_new_shadow, "shadow.create", "shadow/next", {"json": {"name": "next"}}, before=False),
    "startShadow": Case(_shadow(started=False), "shadow.start", "shadow/next", GONE),
    "endShadow": Case(_shadow(started=True), "shadow.end", "shadow/next", GONE),
    "concludeRollout": Case(_compared, "rollout.conclude", "rollout/ab", {"json": {"keep": "A", "rollout": "rest"}}),
    "closeAlert": Case(_alarm, "alert.close", "alert/1", {"path": {"number": 99}}),
    "createUser": Case(
        _new_cohort, "user.create", "user/carol", {"json": {"name": "nobody", "role": "admin"}}, before=False
    ),
    "changeRole": Case(_role, "user.role", "user/alice", {"json": {"role": "operator"}}),
    "rotateKey": Case(_user, "user.rotate", "user/alice", {"json": {}}),
    "revokeUser": Case(_user, "user.revoke", "user/alice", {"json": {}}),
    "rotateMyKey": Case(_user, "user.rotate", "user/test", {"json": {"overlap_seconds": -1}}),
}
BODIES = {"createToken": {"uses": 2}, "createUser": {"name": "carol", "role": "operator"}}


def test_every_change_has_a_case() -> None:
    """Nothing of the OpenAPI can change something without being tried here."""
    assert set(CHANGING) == set(CASES) | set(SILENT)


async def _send(api: Api, operation: str, asked: dict[str, Any], **headers: str) -> httpx.Response:
    method, path = _path(operation, asked.get("path", {}))
    sent = {name: value for name, value in asked.items() if name != "path"}
    if method == "DELETE" or (CHANGING[operation][1].endswith("/revoke") and "users" not in path):
        sent = {}
    answer: httpx.Response = await api.client.request(method, path, headers=headers, **sent)
    return answer


async def _prepared(api: Api, operation: str, directory: Path) -> dict[str, Any]:
    asked: dict[str, Any] = await CASES[operation].ask(api, directory)
    if operation in BODIES:
        asked["json"] = BODIES[operation]
    return asked


def _entries(api: Api) -> list[AuditRow]:
    return [*api.kit.audit.page(AuditFilter(), 1000)]


def _everything(api: Api) -> dict[str, list[str]]:
    """Return all rows of all tables that somebody tells of; blocks are content, and beside SQLite files."""
    with api.kit.database.reading() as session:
        return {
            table.name: sorted(str(tuple(row)) for row in session.execute(table.select()))
            for table in SQLModel.metadata.sorted_tables
            if table.name != BlockRow.__tablename__
        }


@pytest.mark.parametrize("operation", sorted(CASES))
async def test_a_change_leaves_one_entry(api: Api, operation: str, tmp_path: Path) -> None:
    """Who, by which way, when, what, on what, and digests of before and after; repeated with its key, no other one."""
    case = CASES[operation]
    asked = await _prepared(api, operation, tmp_path)
    api.kit.now += 5
    known = len(_entries(api))
    key = {"Idempotency-Key": "once"}
    first = await _send(api, operation, asked, **key)
    assert first.is_success, first.text
    *follows, entry = _entries(api)[: len(_entries(api)) - known]  # newest first
    assert [*case.follows] == [one.operation for one in reversed(follows)]
    assert (case.actor, "api", case.told) == (entry.actor, entry.via, entry.operation)
    assert re.fullmatch(case.subject, entry.subject), entry.subject
    assert int(api.kit.now * 1000) == entry.at
    assert (case.before, case.after) == (bool(entry.before), bool(entry.after)), entry
    assert entry.before != entry.after
    if CHANGING[operation][0] == "POST" and case.actor == "test":
        again = await _send(api, operation, asked, **key)
        assert (first.status_code, first.content) == (again.status_code, again.content)
        assert "true" == again.headers["Idempotent-Replayed"]
    assert known + 1 + len(follows) == len(_entries(api)) == api.kit.audit.verify().entries


@pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
@pytest.mark.parametrize("operation", sorted(CASES))
async def test_what_is_refused_leaves_none(api: Api, operation: str) -> None:
    """And changes nothing."""
    before = _everything(api)
    answer = await _send(api, operation, CASES[operation].wrong, **{"Idempotency-Key": "once"})
    assert 400 <= answer.status_code < 500, answer.text
    assert before == _everything(api)


@pytest.mark.parametrize("operation", sorted(CASES))
async def test_without_its_entry_there_is_no_change(
    api: Api, operation: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The log cannot be written: the request fails, and nothing that it wanted was kept; later it is carried out."""
    asked = await _prepared(api, operation, tmp_path)
    before = _everything(api)

    def full(_session: object) -> None:
        raise StorageError("the disk is full")

    with monkeypatch.context() as patched:
        patched.setattr(audit, "_locked_head", full)
        failed = await _send(api, operation, asked, **{"Idempotency-Key": "once"})
    assert 507 == failed.status_code, failed.text
    assert before == _everything(api)
    later = await _send(api, operation, asked, **{"Idempotency-Key": "once"})
    assert later.is_success, later.text


@pytest.mark.parametrize("operation", sorted(SILENT))
async def test_what_is_silent_changes_no_table(api: Api, operation: str, tmp_path: Path) -> None:
    """What leaves no entry has nothing to tell."""
    if operation == "planRollout":
        asked = await _draft(api, tmp_path)
    else:
        data = b"some bytes"
        asked = {"path": {"sha256": digest_of(data)}, "content": data}
    before = _everything(api)
    answer = await _send(api, operation, asked)
    assert answer.is_success, answer.text
    assert before == _everything(api)


async def test_what_starts_at_once_is_created_and_started_in_one(
    api: Api, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each step has its entry; when the second cannot be written, there is no draft left either."""
    asked = await _draft(api, tmp_path)
    body, before, append = asked["json"] | {"start": True}, _everything(api), audit.append

    def second_fails(session: Any, change: audit.Change, now: float) -> None:
        if change.operation == "rollout.scheduled":
            raise StorageError("the disk is full")
        append(session, change, now)

    with monkeypatch.context() as patched:
        patched.setattr(rollout_turns, "append", second_fails)
        await api.call("POST", "rollouts", 507, json=body)
    assert before == _everything(api)
    known = len(_entries(api))
    await api.call("POST", "rollouts", 201, json=body)
    told = [entry.operation for entry in reversed(_entries(api)[: len(_entries(api)) - known])]
    assert ["rollout.create", "rollout.scheduled", "rollout.started"] == told
