"""Who this device is: enrolling over HTTP with a one-time token, and keeping the answer with mode 0600.

Example::

    identity = enrol(EnrolmentRequest(server="https://fleet.example", …), Path("/var/lib/edgeopt"))
    identity = load_identity(Path("/var/lib/edgeopt"))
"""

from __future__ import annotations

import http.client
import json
import urllib.error
import urllib.request
from pathlib import Path

from edgeopt_contract.codec import decode, encode
from edgeopt_contract.errors import MessageError, UnreachableError, UsageError
from edgeopt_contract.messages import EnrolRequest, EnrolResponse
from edgeopt_contract.storage import storage_errors, write_atomically

__all__ = ["enrol", "load_identity"]

_FILE = "device.json"
_PRIVATE = 0o600
_TIMEOUT_SECONDS = 15.0


def load_identity(data: Path) -> EnrolResponse:
    """Return what the enrolment left in ``data``. Raises :class:`UsageError`."""
    path = data / _FILE
    try:
        return decode(EnrolResponse, path.read_bytes())
    except OSError as error:
        raise UsageError(
            f"{data} holds no device identity ({error.strerror}); run 'edgeopt-agent enroll --data {data} …' first"
        ) from error
    except MessageError as error:
        raise UsageError(f"{path} is damaged ({error}); remove it and enrol again with a new token") from error


def enrol(server: str, request: EnrolRequest, data: Path) -> EnrolResponse:
    """Exchange the token for an identity and keep it in ``data``.

    The disk is tried first, for the token works only once. Raises :class:`UsageError` when the device is enrolled
    already or the fleet refuses, :class:`UnreachableError` when no fleet answers, :class:`StorageError`.
    """
    path = data / _FILE
    if path.exists():
        raise UsageError(f"{data} holds the identity of {load_identity(data).device} already; give another --data")
    with storage_errors(data):
        data.mkdir(parents=True, exist_ok=True)
    probe = data / ".writable"
    write_atomically(probe, b"x" * EnrolResponse.MAX_BYTES, _PRIVATE)
    probe.unlink()
    identity = _ask(server, request)
    if identity.device != request.device:
        raise UnreachableError(f"{server}: asked for the identity of {request.device}, got that of {identity.device}")
    write_atomically(path, encode(identity), _PRIVATE)
    return identity


def _ask(server: str, request: EnrolRequest) -> EnrolResponse:
    if not server.startswith(("http://", "https://")):
        raise UsageError(f"expected a server like https://fleet.example, got {server!r}")
    url = f"{server.rstrip('/')}/api/v1/devices/enrol"
    post = urllib.request.Request(  # noqa: S310  # the scheme was checked above
        url, data=encode(request), method="POST", headers={"Content-Type": "application/json"}
    )
    try:
        with urllib.request.urlopen(post, timeout=_TIMEOUT_SECONDS) as answer:  # noqa: S310  # checked above
            return decode(EnrolResponse, answer.read(EnrolResponse.MAX_BYTES + 1))
    except urllib.error.HTTPError as error:
        raise _refusal(server, error) from error
    except (OSError, http.client.HTTPException, ValueError) as error:
        reason = getattr(error, "reason", error)
        raise UnreachableError(
            f"no fleet answers at {server}: {reason}; is the address right and the server up?"
        ) from error
    except MessageError as error:
        raise UnreachableError(f"{server} answers, but not like an edgeopt fleet: {error}") from error


def _refusal(server: str, error: urllib.error.HTTPError) -> UsageError | UnreachableError:
    """Say what the fleet said; anything that is not its problem document comes from something else."""
    try:
        problem = json.loads(error.read(EnrolResponse.MAX_BYTES))
        detail = str(problem.get("detail") or problem["title"])
    except (OSError, ValueError, KeyError, AttributeError):
        return UnreachableError(f"{server} answers with {error.code}, but not like an edgeopt fleet; check the address")
    if error.code >= http.client.INTERNAL_SERVER_ERROR:
        return UnreachableError(f"the fleet at {server} cannot enrol now ({error.code}): {detail}")
    return UsageError(f"the fleet at {server} refuses ({error.code}): {detail}")
