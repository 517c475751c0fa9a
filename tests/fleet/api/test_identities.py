from __future__ import annotations

import base64
from typing import Any

import pytest
from cryptography import x509

from edgeopt_contract.codec import decode, encode
from edgeopt_contract.enrolment import EnrolResponse, EnrolToken, RenewRequest
from edgeopt_contract.values import digest_of
from tests.fleet.conftest import Api, enrol_body
from tests.identity import DeviceKey


async def token(api: Api, **wish: Any) -> str:
    """Make a token the way an operator does."""
    return str((await api.call("POST", "tokens", 201, json=wish))["token"])


async def enrol(api: Api, device: str, key: DeviceKey, **tags: str) -> EnrolResponse:
    """Enrol a device the way an agent does."""
    body = enrol_body(await token(api), device, key, **tags)
    answer = await api.client.post("/api/v1/devices/enrol", content=body, headers={"Authorization": ""})
    assert 201 == answer.status_code, answer.text
    return decode(EnrolResponse, answer.content)


def renewal(access: EnrolResponse, old: DeviceKey, new: DeviceKey) -> bytes:
    """Return the body of a renewal of ``access`` from ``old`` to ``new``."""
    csr = new.request(access.device)
    signature = old.sign(RenewRequest.signed_bytes(access.device, access.serial, csr))
    request = RenewRequest(
        device=access.device, serial=access.serial, csr=csr, signature=base64.b64encode(signature).decode()
    )
    return encode(request)


async def test_enrolment(api: Api) -> None:
    """A token gives one identity: a certificate of the fleet's CA for the device's own key; the broker knows first."""
    key = DeviceKey()
    access = await enrol(api, "cam-1", key, site="oslo")
    mqtt = access.mqtt
    assert ("cam-1", "fleet.test", 8883, True, None) == (access.device, mqtt.host, mqtt.port, mqtt.tls, mqtt.password)
    certificate = x509.load_pem_x509_certificate(access.certificate.encode())
    certificate.verify_directly_issued_by(x509.load_pem_x509_certificate(access.ca.encode()))
    assert certificate.public_key() == key.key.public_key()
    assert int(access.serial, 16) == certificate.serial_number
    assert (access.valid_from, access.valid_until) == (
        certificate.not_valid_before_utc.timestamp(),
        certificate.not_valid_after_utc.timestamp(),
    )
    assert 90 * 86400 == access.valid_until - api.kit.now
    assert api.kit.metadata.root() == access.root
    assert 1 == api.broker.reloads
    view = await api.call("GET", "devices/cam-1", 200)
    assert ({"site": "oslo"}, False, None, None) == (view["tags"], view["online"], view["running"], view["update"])
    assert {"windows": 0, "rows": 0, "errors": 0, "malformed": 0} == view["telemetry"]
    assert access.bearer not in str(view)


async def test_the_token_carries_the_fingerprint_of_the_ca(api: Api) -> None:
    """Who has the token can tell the fleet's CA, which anybody may ask for, from another one."""
    text = (await api.client.get("/api/v1/ca", headers={"Authorization": ""})).text
    der = base64.b64decode("".join(text.splitlines()[1:-1]))
    assert digest_of(der) == EnrolToken.parse(await token(api)).fingerprint == api.kit.authority.fingerprint


async def test_used_expired_and_unknown_tokens_and_a_taken_id(api: Api) -> None:
    """403 with the reason, and 409; the same request again gets the same certificate."""
    several = await token(api, uses=2, expires_in_seconds=60)
    body = enrol_body(several, "a")
    first = await api.client.post("/api/v1/devices/enrol", content=body)
    again = await api.client.post("/api/v1/devices/enrol", content=body)
    assert first.json()["certificate"] == again.json()["certificate"]
    assert first.json()["bearer"] != again.json()["bearer"]
    await api.call("POST", "devices/enrol", 409, content=enrol_body(several, "a"))
    await api.call("POST", "devices/enrol", 201, content=enrol_body(several, "b"))
    await api.call("POST", "devices/enrol", 403, content=enrol_body(several, "c"))
    late = await token(api, expires_in_seconds=60)
    api.kit.now += 60
    await api.call("POST", "devices/enrol", 403, content=enrol_body(late, "c"))
    await api.call("POST", "devices/enrol", 403, content=enrol_body("guess", "c"))


@pytest.mark.parametrize(
    "body", [b"", b"{}", b"[]", b"\xff", b'{"schema":2,"token":"x","device":"../x"}', b"x" * 20_000]
)
@pytest.mark.parametrize("path", ["enrol", "renew"])
async def test_a_malformed_request(api: Api, path: str, body: bytes) -> None:
    """One clear problem, no device."""
    answer = await api.client.post(f"/api/v1/devices/{path}", content=body)
    assert answer.status_code in (413, 422)
    assert "application/problem+json" == answer.headers["content-type"]
    assert [] == (await api.call("GET", "devices", 200))["items"]


async def test_a_signing_request_for_somebody_else_is_refused(api: Api) -> None:
    """The name in the request must be the one that is asked for; the token keeps its use."""
    once, key = await token(api), DeviceKey()
    forged = enrol_body(once, "cam-1", key).replace(b'"device":"cam-1"', b'"device":"cam-2"')
    refused = await api.call("POST", "devices/enrol", 422, content=forged)
    assert "expected the common name 'cam-2'" in refused["detail"]
    await api.call("POST", "devices/enrol", 201, content=enrol_body(once, "cam-1", key))


async def test_a_renewal_gives_a_new_certificate_for_a_new_key(api: Api) -> None:
    """Signed by the old key; also when the old certificate has expired; the broker is told."""
    old, new = DeviceKey(), DeviceKey()
    access = await enrol(api, "cam-1", old)
    api.kit.now += 400 * 86400
    answer = await api.client.post(
        "/api/v1/devices/renew", content=renewal(access, old, new), headers={"Authorization": ""}
    )
    renewed = decode(EnrolResponse, answer.content)
    assert (True, True) == (renewed.serial != access.serial, renewed.valid_until > api.kit.now)
    assert x509.load_pem_x509_certificate(renewed.certificate.encode()).public_key() == new.key.public_key()
    assert 2 == api.broker.reloads


async def test_a_renewal_that_the_old_key_did_not_sign_is_refused(api: Api) -> None:
    """Neither a stranger, nor the device for another device, nor the old key for itself."""
    old, stranger = DeviceKey(), DeviceKey()
    access = await enrol(api, "cam-1", old)
    other = await enrol(api, "cam-2", DeviceKey())
    refused = await api.call("POST", "devices/renew", 403, content=renewal(access, stranger, stranger))
    assert "not signed by the key" in refused["detail"]
    await api.call("POST", "devices/renew", 403, content=renewal(other, old, old))
    same = await api.call("POST", "devices/renew", 422, content=renewal(access, old, old))
    assert "expected a new key" in same["detail"]


async def test_a_revoked_device_is_cut_off_before_the_operator_hears_of_it(api: Api) -> None:
    """The broker is told; renewal is refused; the device stays visible; a stranger's device is 404."""
    key = DeviceKey()
    access = await enrol(api, "cam-1", key)
    view = await api.call("POST", "devices/cam-1/revoke", 200)
    assert (int(api.kit.now), ["cam-1"]) == (view["revoked_at"], api.broker.cut)
    await api.call("POST", "devices/renew", 403, content=renewal(access, key, DeviceKey()))
    assert ["cam-1"] == [device["id"] for device in (await api.call("GET", "devices", 200))["items"]]
    await api.call("POST", "devices/cam-9/revoke", 404)
