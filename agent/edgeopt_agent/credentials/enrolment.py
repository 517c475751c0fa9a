"""Getting an identity over HTTP, and the next one: a key of this device for a certificate of the fleet.

Runs in a short-lived process, ``edgeopt-agent enroll`` or ``python -m edgeopt_agent.credentials.enrolment DATA``
(renewal), so that the agent carries neither cryptography nor an HTTP client for it. Whatever is interrupted can be done
again: the key is on the disk before the fleet hears of it, and the fleet gives the same answer for the same key.
Example::

    enrol(Fleet("https://fleet.example", token.fingerprint), order, Path("/var/lib/edgeopt"))
    renew(Path("/var/lib/edgeopt"), now=time.time())     # leaves renewal.json
"""

from __future__ import annotations

import base64
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from edgeopt_agent.credentials.fleet_http import FleetHttp, fingerprint_of
from edgeopt_agent.credentials.identity import (
    PRIVATE,
    Identity,
    alone,
    forget_renewal,
    keep_identity,
    keep_renewal,
    key_name,
    load_identity,
    load_renewal,
    renewal_key,
)
from edgeopt_agent.credentials.keystore import KeyStore, PemKeys
from edgeopt_contract.commands import run_command
from edgeopt_contract.enrolment import EnrolRequest, EnrolResponse, EnrolToken, RenewRequest
from edgeopt_contract.errors import UnreachableError, UsageError
from edgeopt_contract.manifest import Capabilities
from edgeopt_contract.storage import storage_errors, write_atomically

__all__ = ["Order", "enrol", "main", "renew"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What an enrolment asks for."""

    server: str
    token: EnrolToken
    device: str
    tags: Mapping[str, str]
    capabilities: Capabilities


def enrol(order: Order, data: Path, *, replace: bool = False, keys: KeyStore | None = None) -> Identity:
    """Exchange the token for an identity and keep it in ``data``; a device that has it already keeps it.

    The disk is tried first, for the token works only once; the fleet is asked who it is before the token is sent.
    Raises :class:`UsageError` when ``data`` holds another identity (unless ``replace``) or the fleet refuses,
    :class:`UnreachableError` when the fleet of the token does not answer, :class:`StorageError`.
    """
    with storage_errors(data):
        data.mkdir(parents=True, exist_ok=True)
    with alone(data):
        if (data / "device.json").exists() and not replace:
            return _present(order, data)
        probe = data / ".writable"
        write_atomically(probe, b"x" * Identity.MAX_BYTES, PRIVATE)
        probe.unlink()
        fleet = FleetHttp.pinned(order.server, order.token.fingerprint)
        name = key_name(f"enrolment {order.token.secret}")
        csr = (keys or PemKeys(data)).request(name, order.device)
        request = EnrolRequest(
            token=order.token.secret,
            device=order.device,
            csr=csr,
            tags=dict(order.tags),
            capabilities=order.capabilities,
        )
        identity = Identity(server=fleet.server, key=name, access=_answered(fleet, "enrol", request))
        forget_renewal(data)  # of the identity that is replaced
        keep_identity(data, identity)
        return identity


def renew(data: Path, *, now: float, keys: KeyStore | None = None) -> Identity:
    """Get the next identity and keep it beside the present one, which counts until the next one was let in.

    The request is signed by the present key, whose certificate may have expired. Asked again before the next identity
    took over, the same comes back. Raises :class:`UsageError` when the fleet refuses (the certificate was revoked, or
    renewed with another key before), :class:`UnreachableError`, :class:`StorageError`.
    """
    load_identity(data)  # where there is none, nothing is made
    with alone(data):
        present, store = load_identity(data), keys or PemKeys(data)
        pending = load_renewal(data)
        if pending is not None and now < pending.access.valid_until:
            return pending
        access = present.access
        fleet = FleetHttp.trusting(present.server, access.ca)
        name = renewal_key(present)
        csr = store.request(name, access.device)
        signature = store.sign(present.key, RenewRequest.signed_bytes(access.device, access.serial, csr))
        request = RenewRequest(
            device=access.device,
            serial=access.serial,
            csr=csr,
            signature=base64.b64encode(signature).decode("ascii"),
        )
        answer = replace(_answered(fleet, "renew", request), root=access.root)  # the trust in bundles is not renewed
        renewed = Identity(server=present.server, key=name, access=answer)
        keep_renewal(data, renewed)
        return renewed


def main(arguments: list[str]) -> int:
    """Renew the identity in the directory that is the only argument; say what happened in one line."""

    def command() -> None:
        (data,) = arguments
        renewed = renew(Path(data), now=time.time())
        print(f"renewed until {renewed.access.valid_until}")

    return run_command(command)


def _answered(fleet: FleetHttp, path: str, request: EnrolRequest | RenewRequest) -> EnrolResponse:
    """Ask, and believe the answer only if it is for this device and from the fleet whose CA is known."""
    answer = fleet.post(path, request)
    if answer.device != request.device:
        raise UnreachableError(
            f"{fleet.server}: asked for the identity of {request.device}, got that of {answer.device}"
        )
    if not _is_known(answer.ca, fleet):
        raise UnreachableError(f"{fleet.server}: the answer names another CA than the fleet's; it is not believed")
    return answer


def _is_known(ca: str, fleet: FleetHttp) -> bool:
    try:
        return fingerprint_of(ca) == fleet.fingerprint
    except ValueError:  # no certificate at all
        return False


def _present(order: Order, data: Path) -> Identity:
    """Return the identity that is there already, if it is the one that is asked for."""
    present = load_identity(data)
    if present.device != order.device or fingerprint_of(present.access.ca) != order.token.fingerprint:
        raise UsageError(
            f"{data} holds the identity of {present.device} already; give another --data, or --replace to give it up"
        )
    return present


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
