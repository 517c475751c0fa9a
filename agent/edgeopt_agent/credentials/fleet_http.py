"""Asking the fleet's HTTP API as a device, in short-lived processes: with the fleet's CA as the only one trusted.

Over HTTPS the first question, which CA the fleet has, is asked of anyone who answers, and the answer is believed only
if its fingerprint is the one in the token; everything after that is asked of a server with a certificate of that CA.
Nothing secret is sent before. Over plain HTTP the fingerprint tells a wrong fleet from the right one, but everybody
on the way can read along. It retries nothing. Example::

    fleet = FleetHttp.pinned("https://fleet.example", token.fingerprint)
    answer = fleet.post("enrol", request)
"""

from __future__ import annotations

import http.client
import json
import ssl
import time
import urllib.error
import urllib.request
from typing import Any, Self
from urllib.parse import urlsplit

from edgeopt_contract.codec import decode, encode
from edgeopt_contract.enrolment import EnrolRequest, EnrolResponse, RenewRequest
from edgeopt_contract.errors import MessageError, UnreachableError, UsageError
from edgeopt_contract.values import digest_of

__all__ = ["FleetHttp", "explain_tls", "fingerprint_of"]

_TIMEOUT_SECONDS = 15.0
_MAX_CA_BYTES = 16 * 1024
_NOT_YET_VALID, _EXPIRED, _WRONG_NAME, _WRONG_ADDRESS = 9, 10, 62, 64  # X509_V_ERR_… of OpenSSL


def fingerprint_of(certificate: str) -> str:
    """Return the SHA-256 of a certificate in PEM. Raises ``ValueError`` when it is none."""
    return digest_of(ssl.PEM_cert_to_DER_cert(certificate))


def explain_tls(error: ssl.SSLCertVerificationError) -> str:
    """Return why a server's certificate was not accepted, and what to do."""
    if error.verify_code == _NOT_YET_VALID:
        clock = time.strftime("%Y-%m-%d %H:%M", time.gmtime())
        return (
            f"its certificate is not valid yet: this device's clock says {clock} UTC; set the clock (NTP) and try again"
        )
    if error.verify_code == _EXPIRED:
        clock = time.strftime("%Y-%m-%d %H:%M", time.gmtime())
        return (
            f"its certificate has expired: this device's clock says {clock} UTC; if that is right, restart "
            "'edgeopt-fleet serve', which makes a new one"
        )
    if error.verify_code in (_WRONG_NAME, _WRONG_ADDRESS):
        return (
            f"its certificate is for other names ({error.verify_message}); use one of them, or add this one: "
            "edgeopt-fleet init --name"
        )
    return (
        f"its certificate is not of the fleet's CA ({error.verify_message}): either this is another server, or "
        "somebody is in between"
    )


class FleetHttp:
    """One fleet: its address, its CA, and the questions a device may ask."""

    def __init__(self, server: str, ca: str) -> None:
        self.server = server
        self.fingerprint = fingerprint_of(ca)
        self._context = ssl.create_default_context(cadata=ca)

    @classmethod
    def pinned(cls, server: str, fingerprint: str) -> Self:
        """Ask the server for its CA and believe it if it has this fingerprint.

        Raises :class:`UsageError` when it has another one, :class:`UnreachableError` when no fleet answers.
        """
        server = _checked(server)
        anyone = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        anyone.check_hostname = False
        anyone.verify_mode = ssl.CERT_NONE  # nothing is sent, and what comes is compared with the fingerprint
        raw = _ask(urllib.request.Request(f"{server}/api/v1/ca"), server, anyone, _MAX_CA_BYTES)  # noqa: S310  # checked
        try:
            ca = raw.decode("ascii")
            found = fingerprint_of(ca)
        except ValueError as error:
            raise UnreachableError(f"{server} answers, but not like an edgeopt fleet: no CA certificate") from error
        if found != fingerprint:
            raise UsageError(
                f"{server} is not the fleet that made this token: expected a CA with the fingerprint "
                f"{fingerprint[:16]}…, got {found[:16]}…; check address and token. The token was not sent"
            )
        return cls(server, ca)

    @classmethod
    def trusting(cls, server: str, ca: str) -> Self:
        """Use a CA that is known from an enrolment."""
        return cls(_checked(server), ca)

    def post(self, path: str, body: EnrolRequest | RenewRequest) -> EnrolResponse:
        """Send ``body`` to ``/api/v1/devices/<path>`` and return the answer.

        Raises :class:`UsageError` when the fleet refuses (its own words), :class:`UnreachableError` when no fleet, or
        not this one, answers.
        """
        request = urllib.request.Request(  # noqa: S310  # the scheme was checked
            f"{self.server}/api/v1/devices/{path}",
            data=encode(body),
            method="POST",
            headers={"Content-Type": "application/json"},
        )
        raw = _ask(request, self.server, self._context, EnrolResponse.MAX_BYTES)
        try:
            return decode(EnrolResponse, raw)
        except MessageError as error:
            raise UnreachableError(f"{self.server} answers, but not like an edgeopt fleet: {error}") from error


def _checked(server: str) -> str:
    try:
        named = server.startswith(("http://", "https://")) and urlsplit(server).hostname
    except ValueError:  # brackets that are not closed, for instance
        named = None
    if not named:
        raise UsageError(f"expected a server like https://fleet.example, got {server!r}")
    return server.rstrip("/")


def _ask(request: urllib.request.Request, server: str, context: ssl.SSLContext, limit: int) -> bytes:
    opener = urllib.request.build_opener(
        urllib.request.ProxyHandler({}),  # a proxy meant for the internet does not lead to a fleet in the same room
        urllib.request.HTTPSHandler(context=context),
    )
    try:
        with opener.open(request, timeout=_TIMEOUT_SECONDS) as answer:
            content: bytes = answer.read(limit + 1)
            return content
    except urllib.error.HTTPError as error:
        raise _refusal(server, error) from error
    except (OSError, http.client.HTTPException, ValueError) as error:
        reason: Any = getattr(error, "reason", error)
        if isinstance(reason, ssl.SSLCertVerificationError):
            raise UnreachableError(f"{server} is not believed: {explain_tls(reason)}") from error
        raise UnreachableError(
            f"no fleet answers at {server}: {reason}; is the address right and the server up?"
        ) from error


def _refusal(server: str, error: urllib.error.HTTPError) -> UsageError | UnreachableError:
    """Say what the fleet said; anything that is not its problem document comes from something else."""
    try:
        problem = json.loads(error.read(EnrolResponse.MAX_BYTES))
        detail = str(problem.get("detail") or problem["title"])
    except (OSError, ValueError, KeyError, AttributeError):
        return UnreachableError(f"{server} answers with {error.code}, but not like an edgeopt fleet; check the address")
    if error.code >= http.client.INTERNAL_SERVER_ERROR:
        return UnreachableError(f"the fleet at {server} cannot do this now ({error.code}): {detail}")
    return UsageError(f"the fleet at {server} refuses ({error.code}): {detail}")
