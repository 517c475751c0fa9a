"""Routes: the fleet's CA, enrolment, renewal and revocation of devices."""

from __future__ import annotations

import base64
import secrets

from fastapi import APIRouter, Request, Response

from edgeopt_contract.codec import R, decode, encode
from edgeopt_contract.enrolment import EnrolRequest, EnrolResponse, MqttAccess, RenewRequest
from edgeopt_contract.errors import MessageError
from edgeopt_contract.values import digest_of
from edgeopt_fleet.acting import acting_as
from edgeopt_fleet.api.bodies import binary, read_body
from edgeopt_fleet.api.device_views import DeviceView
from edgeopt_fleet.api.devices import DeviceId
from edgeopt_fleet.api.guard import device_actor
from edgeopt_fleet.api.idempotency import IdempotentRoute, answer_once
from edgeopt_fleet.api.responses import Responses, problems
from edgeopt_fleet.api.services import Services, services_of
from edgeopt_fleet.broker import hash_password
from edgeopt_fleet.ca import Issued, is_signed_by
from edgeopt_fleet.herd import reconnect_window_seconds
from edgeopt_fleet.problems import ConflictError, ForbiddenError, InvalidError, NotFoundError, TooLargeError
from edgeopt_fleet.store.identities import Enrolled, Enrolment, Secrets

__all__ = ["public", "router"]

public = APIRouter(tags=["identities"])
router = APIRouter(tags=["identities"], route_class=IdempotentRoute)

_PEM = "application/x-pem-file"
_IDENTITY: Responses = {
    201: {
        "description": "An EnrolResponse, docs/protocol.md",
        "content": {"application/json": {"schema": {"type": "object"}}},
    }
}


@public.get(
    "/ca",
    operation_id="getCa",
    summary="Get the fleet's CA",
    response_class=Response,
    responses={200: {"content": {_PEM: {"schema": {"type": "string"}}}}},
)
async def get_ca(request: Request) -> Response:
    """Give the fleet's CA certificate (PEM); who has a token can tell by its fingerprint whether it is right."""
    return Response(services_of(request).authority.pem, media_type=_PEM)


@public.post(
    "/devices/enrol",
    operation_id="enrolDevice",
    summary="Enrol a device",
    status_code=201,
    response_class=Response,
    responses=_IDENTITY | problems(ConflictError, TooLargeError),
    openapi_extra=binary("application/json", EnrolRequest.MAX_BYTES, "an EnrolRequest, docs/protocol.md"),
)
async def enrol(request: Request) -> Response:
    """Give a device an identity, for a token. Body and answer are EnrolRequest and EnrolResponse of the contract."""
    services = services_of(request)
    asked = await _read(request, EnrolRequest)
    now = services.clock()
    issued = _sign(services, asked.device, asked.csr)
    bearer, password = _new_secrets(services)
    enrolment = Enrolment(
        device=asked.device,
        tags=asked.tags,
        capabilities=asked.capabilities,
        issued=issued,
        secrets=_kept(bearer, password),
    )
    with acting_as(device_actor(asked.device)):
        enrolled = await services.serial(services.identities.enrol, asked.token, enrolment, int(now))
    await services.broker.reload()
    return await _answer(request, enrolled, bearer, password)


@public.post(
    "/devices/renew",
    operation_id="renewDevice",
    summary="Renew a device's certificate",
    status_code=201,
    response_class=Response,
    responses=_IDENTITY | problems(ConflictError, TooLargeError),
    openapi_extra=binary("application/json", RenewRequest.MAX_BYTES, "a RenewRequest, docs/protocol.md"),
)
async def renew(request: Request) -> Response:
    """Give a device its next certificate, proven by the key of the one before, which may have expired.

    Body and answer are RenewRequest and EnrolResponse of the contract.
    """
    services = services_of(request)
    asked = await _read(request, RenewRequest)
    old = await services.serial(services.identities.renewing, asked.device, asked.serial, int(services.clock()))
    signed = RenewRequest.signed_bytes(asked.device, asked.serial, asked.csr)
    if not is_signed_by(old.public_key, base64.b64decode(asked.signature), signed):
        raise ForbiddenError(f"the renewal of {asked.device} is not signed by the key of its certificate")
    issued = _sign(services, asked.device, asked.csr)
    if digest_of(issued.public_key) == old.public_key_sha256:
        raise InvalidError("csr: expected a new key, got the one of the certificate that is to be renewed")
    bearer, password = _new_secrets(services)
    kept, now = _kept(bearer, password), int(services.clock())
    with acting_as(device_actor(asked.device)):
        enrolled = await services.serial(services.identities.renew, asked.device, asked.serial, issued, kept, now)
    await services.broker.reload()
    return await _answer(request, enrolled, bearer, password)


@router.post(
    "/devices/{device}/revoke",
    operation_id="revokeDevice",
    summary="Revoke a device",
    response_model=DeviceView,
    responses=problems(NotFoundError),
)
async def revoke(request: Request, device: DeviceId) -> Response:
    """Take a device's identity away; it is cut off before this answers. Only a new token lets it back in."""
    services = services_of(request)

    def revoke_all() -> DeviceView:
        services.identities.revoke(device, int(services.clock()))
        return DeviceView.of(services.registry.device(device))

    response = await answer_once(request, revoke_all)
    await services.broker.cut_off(device)
    return response


async def _read(request: Request, kind: type[R]) -> R:
    try:
        return decode(kind, await read_body(request, kind.MAX_BYTES))
    except MessageError as error:
        raise InvalidError(str(error)) from error


def _sign(services: Services, device: str, csr: str) -> Issued:
    reach = services.reach
    return services.authority.sign_device(device, csr, now=services.clock(), lifetime_seconds=reach.certificate_seconds)


def _new_secrets(services: Services) -> tuple[str, str | None]:
    """Return a bearer, and a password where the broker takes passwords; each of 256 random bits."""
    return secrets.token_urlsafe(32), None if services.reach.mqtt_tls else secrets.token_urlsafe(32)


def _kept(bearer: str, password: str | None) -> Secrets:
    return Secrets(
        bearer_sha256=digest_of(bearer.encode()), password_hash="" if password is None else hash_password(password)
    )


async def _answer(request: Request, enrolled: Enrolled, bearer: str, password: str | None) -> Response:
    services, certificate = services_of(request), enrolled.certificate
    root = await services.serial(services.metadata.root)
    answer = EnrolResponse(
        device=certificate.device,
        mqtt=MqttAccess(
            host=services.reach.mqtt_host or request.url.hostname or "127.0.0.1",  # as the device reached us
            port=services.reach.mqtt_port,
            tls=services.reach.mqtt_tls,
            password=password,
        ),
        certificate=certificate.pem,
        serial=certificate.serial,
        valid_from=certificate.valid_from,
        valid_until=certificate.valid_until,
        ca=services.authority.pem,
        bearer=bearer,
        root=root,
        reconnect_window_seconds=reconnect_window_seconds(enrolled.devices),
    )
    return Response(encode(answer), status_code=201, media_type="application/json")
