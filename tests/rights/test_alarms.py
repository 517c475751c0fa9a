"""What nobody honest does raises an alarm that an operator sees."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from edgeopt_contract.codec import decode, encode
from edgeopt_contract.enrolment import EnrolResponse, RenewRequest
from tests.fleet.conftest import CAPABILITIES
from tests.identity import DeviceKey, enrol_request
from tests.rights.conftest import People

pytestmark = [pytest.mark.rights, pytest.mark.parametrize("backend", ["sqlite"], indirect=True)]


async def alerts(people: People, kind: str) -> list[dict[str, Any]]:
    """Return the open alerts of a kind, as a viewer sees them."""
    answer = await people.ask("viewer", "GET", "/api/v1/alerts?state=open")
    return [alert for alert in json.loads(answer.body)["items"] if alert["kind"] == kind]


async def make_token(people: People, uses: int = 1) -> dict[str, Any]:
    """Make a token as an operator."""
    answer = await people.ask("operator", "POST", "/api/v1/tokens", json.dumps({"uses": uses}).encode())
    made: dict[str, Any] = json.loads(answer.body)
    return made


async def enrol(people: People, token: str, device: str, key: DeviceKey | None = None) -> int:
    """Enrol as a device does, and return the status."""
    body = encode(enrol_request(token, device, key or DeviceKey(), CAPABILITIES))
    answer = await people.ask("no key", "POST", "/api/v1/devices/enrol", body)
    if answer.status == 201:
        decode(EnrolResponse, answer.body)
    return answer.status


async def test_a_token_that_is_used_once_more_raises_an_alarm(people: People) -> None:
    """One alert, however often it is tried, and it is in the audit log; asking again after a lost answer is none."""
    made, key = await make_token(people, 2), DeviceKey()
    assert 201 == await enrol(people, made["token"], "cam-7", key)
    assert 201 == await enrol(people, made["token"], "cam-7", key)
    assert 201 == await enrol(people, made["token"], "cam-8")
    assert [] == await alerts(people, "token_reuse")
    for _ in range(3):
        assert 403 == await enrol(people, made["token"], "thief")
    (alert,) = await alerts(people, "token_reuse")
    assert f"token {made['id']} was used again" in alert["message"]
    assert "thief" in alert["message"]
    log = await people.ask("viewer", "GET", "/api/v1/audit?operation=alarm.token_reuse")
    (entry,) = json.loads(log.body)["items"]
    assert ("device/thief", f"token/{made['id']}") == (entry["actor"], entry["subject"])


async def test_a_revoked_token_raises_an_alarm_and_an_expired_or_unknown_one_does_not(people: People) -> None:
    """Being late or mistyping is no crime."""
    made, late = await make_token(people), await make_token(people)
    assert 200 == (await people.ask("operator", "POST", f"/api/v1/tokens/{made['id']}/revoke")).status
    people.kit.now += 86400
    assert 403 == await enrol(people, late["token"], "cam-7")
    assert 403 == await enrol(people, "guessed", "cam-7")
    assert [] == await alerts(people, "token_reuse")
    assert 403 == await enrol(people, made["token"], "cam-7")
    assert 1 == len(await alerts(people, "token_reuse"))


async def test_a_revoked_identity_that_tries_again_raises_an_alarm(people: People) -> None:
    """By its bearer or by renewing; it is refused, and the drift alarms' look does not close the alert."""
    assert 401 == (await people.ask("revoked device", "GET", f"/api/v1/blocks/{'0' * 64}")).status
    (alert,) = await alerts(people, "revoked_identity")
    assert "cam-2" in alert["message"]
    key = DeviceKey()
    token = (await make_token(people))["token"]
    body = encode(enrol_request(token, "cam-9", key, CAPABILITIES))
    access = decode(EnrolResponse, (await people.ask("no key", "POST", "/api/v1/devices/enrol", body)).body)
    assert 200 == (await people.ask("operator", "POST", "/api/v1/devices/cam-9/revoke")).status
    csr = DeviceKey().request("cam-9")
    signature = key.sign(RenewRequest.signed_bytes("cam-9", access.serial, csr))
    renewal = RenewRequest(
        device="cam-9", serial=access.serial, csr=csr, signature=base64.b64encode(signature).decode()
    )
    assert 403 == (await people.ask("no key", "POST", "/api/v1/devices/renew", encode(renewal))).status
    people.kit.alerts.look(people.kit.now)
    assert {"device/cam-2", "device/cam-9"} == {a["source"] for a in await alerts(people, "revoked_identity")}
