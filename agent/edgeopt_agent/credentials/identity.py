"""Who this device is: a private key that never left it, and what the fleet gave for it. Loading, keeping, replacing.

The files in ``DATA``, each replaced in one step: ``device.json`` names the key that counts, ``device-<name>.key`` (mode
0600) and ``device-<name>.pem`` are that key and its certificate, ``renewal.json`` is the identity that comes next until
the broker has let it in. A power cut between any two writes leaves an identity that works. It makes no key, speaks to
nobody and imports no cryptography: that is :mod:`edgeopt_agent.credentials.enrolment`, in a short-lived process.
Example::

    wallet = Wallet(Path("/var/lib/edgeopt"))
    credentials = wallet.choose()            # for the next connection
    wallet.accepted(credentials)             # the broker let it in: a renewed identity takes the place of the old one
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import re
import ssl
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from edgeopt_agent.log import log_event
from edgeopt_contract.codec import decode, encode
from edgeopt_contract.enrolment import EnrolResponse, MqttAccess
from edgeopt_contract.errors import MessageError, StorageError, UsageError
from edgeopt_contract.storage import storage_errors, sync_directory, write_atomically
from edgeopt_contract.values import digest_of

__all__ = [
    "PRIVATE",
    "Credentials",
    "Identity",
    "Wallet",
    "alone",
    "certificate_file",
    "forget_renewal",
    "keep_identity",
    "keep_renewal",
    "key_file",
    "key_name",
    "load_identity",
    "load_renewal",
    "promote",
    "renewal_key",
    "tidy",
    "tls_context",
]

PRIVATE = 0o600
_CURRENT = "device.json"
_RENEWAL = "renewal.json"
_KEY_NAME = re.compile(r"[0-9a-f]{12}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """What is kept of an enrolment or renewal: what the fleet answered, where that was, and the name of the key."""

    SCHEMA: ClassVar[int] = 2
    MAX_BYTES: ClassVar[int] = EnrolResponse.MAX_BYTES + 4096

    server: str
    key: str
    access: EnrolResponse
    extra: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not _KEY_NAME.fullmatch(self.key):
            raise ValueError("expected a key's name of 12 hex digits")

    @property
    def device(self) -> str:
        """The device id."""
        return self.access.device


@dataclass(frozen=True, slots=True, kw_only=True)
class Credentials:
    """How to connect next, and of which identity that is."""

    identity: Identity
    mqtt: MqttAccess
    tls: ssl.SSLContext | None


class Wallet:
    """Hands out the credentials for each connection, and takes a renewed identity over once it works."""

    def __init__(self, data: Path) -> None:
        self._data = data
        self._choices = 0

    def choose(self) -> Credentials:
        """Return the renewed identity if there is one, on every other call the present one.

        So a renewed identity that a broker does not take keeps no device offline. Raises :class:`UsageError`.
        """
        renewed = load_renewal(self._data)
        self._choices += 1
        if renewed is None or self._choices % 2 == 0:
            return _credentials(self._data, load_identity(self._data))
        return _credentials(self._data, renewed)

    def accepted(self, credentials: Credentials) -> None:
        """Note that the broker let ``credentials`` in; a disk that fails is logged and tried again next time."""
        self._choices = 0
        renewed = load_renewal(self._data)
        try:
            with alone(self._data, wait=False) as mine:
                if not mine:
                    return  # a renewal is under way; the next connection finds it done
                if renewed is not None and renewed == credentials.identity:
                    promote(self._data)
                    log_event("identity_renewed", until=renewed.access.valid_until, serial=renewed.access.serial[:12])
                tidy(self._data)
        except StorageError as error:
            log_event("identity_not_kept", level=logging.ERROR, reason=error)


def key_file(data: Path, name: str) -> Path:
    """Return where the private key ``name`` lies."""
    return data / f"device-{name}.key"


def certificate_file(data: Path, name: str) -> Path:
    """Return where the certificate of the key ``name`` lies."""
    return data / f"device-{name}.pem"


def load_identity(data: Path) -> Identity:
    """Return the identity that counts. Raises :class:`UsageError`."""
    path = data / _CURRENT
    try:
        return decode(Identity, path.read_bytes())
    except OSError as error:
        raise UsageError(
            f"{data} holds no device identity ({error.strerror}); run 'edgeopt-agent enroll --data {data} …' first"
        ) from error
    except MessageError as error:
        raise UsageError(
            f"{path} is damaged ({error}); get a new token and run 'edgeopt-agent enroll --replace --data {data} …'"
        ) from error


def load_renewal(data: Path) -> Identity | None:
    """Return the identity that comes next, if there is one."""
    with contextlib.suppress(OSError, MessageError):  # a damaged one is as good as none: it is asked for again
        return decode(Identity, (data / _RENEWAL).read_bytes())
    return None


def keep_identity(data: Path, identity: Identity) -> None:
    """Make ``identity`` the one that counts, and remove what belongs to others. Raises :class:`StorageError`."""
    _keep(data, identity, _CURRENT)
    tidy(data)


def keep_renewal(data: Path, identity: Identity) -> None:
    """Keep ``identity`` as the one that comes next. Raises :class:`StorageError`."""
    _keep(data, identity, _RENEWAL)


def forget_renewal(data: Path) -> None:
    """Remove the identity that would come next. Raises :class:`StorageError`."""
    with storage_errors(data / _RENEWAL):
        (data / _RENEWAL).unlink(missing_ok=True)
        sync_directory(data)


def promote(data: Path) -> None:
    """Let the renewed identity take the place of the old one. Raises :class:`StorageError`."""
    with storage_errors(data / _CURRENT):
        (data / _RENEWAL).replace(data / _CURRENT)
        sync_directory(data)


def tidy(data: Path) -> None:
    """Remove keys and certificates that nothing needs any more; call it :func:`alone`. Raises :class:`StorageError`.

    The key of a renewal that was interrupted is kept: the fleet may know it already.
    """
    present, renewed = load_identity(data), load_renewal(data)
    names = {present.key, renewal_key(present), *([] if renewed is None else [renewed.key])}
    kept = {path for name in names for path in (key_file(data, name), certificate_file(data, name))}
    with storage_errors(data):
        for path in {*data.glob("device-*.key"), *data.glob("device-*.pem"), *data.glob(".device-*.tmp")} - kept:
            path.unlink(missing_ok=True)


def key_name(purpose: str) -> str:
    """Return the name of the key for ``purpose``: the same again when it is asked for again."""
    return digest_of(purpose.encode())[:12]


def renewal_key(present: Identity) -> str:
    """Return the name of the key that comes after ``present``."""
    return key_name(f"renewal of {present.access.serial}")


@contextlib.contextmanager
def alone(data: Path, *, wait: bool = True) -> Iterator[bool]:
    """Let one process at a time change the identity; the kernel frees the lock however a process ends.

    Gives whether this is the one: with ``wait`` always, without it perhaps not. Raises :class:`StorageError`.
    """
    with storage_errors(data):
        descriptor = os.open(data / "identity.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, PRIVATE)
    try:
        mine = True
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            mine = False
        yield mine
    finally:
        os.close(descriptor)


def tls_context(data: Path, identity: Identity) -> ssl.SSLContext:
    """Return settings that trust the fleet's CA alone and show this device's certificate.

    Raises :class:`UsageError` when key and certificate are not there or do not belong together.
    """
    context = ssl.create_default_context(cadata=identity.access.ca)
    try:
        context.load_cert_chain(certificate_file(data, identity.key), key_file(data, identity.key))
    except (OSError, ssl.SSLError) as error:
        raise UsageError(
            f"{key_file(data, identity.key)}: the private key cannot be used ({error}); get a new token and run "
            f"'edgeopt-agent enroll --replace --data {data} …'"
        ) from error
    return context


def _credentials(data: Path, identity: Identity) -> Credentials:
    mqtt = identity.access.mqtt
    return Credentials(identity=identity, mqtt=mqtt, tls=tls_context(data, identity) if mqtt.tls else None)


def _keep(data: Path, identity: Identity, name: str) -> None:
    """Write the certificate, see that it fits the key, and only then the file that names them."""
    write_atomically(certificate_file(data, identity.key), identity.access.certificate.encode(), PRIVATE)
    tls_context(data, identity)
    write_atomically(data / name, encode(identity), PRIVATE)
