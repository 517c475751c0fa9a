"""What a device and the fleet exchange over HTTP to give the device an identity, and to renew it.

An identity is a key that never leaves the device and a certificate of the fleet's own authority (the CA) whose common
name is the device id. These are the bodies, and the text of a one-time token; nothing here makes or checks a key. The
token carries the fingerprint of the CA, so a device knows its fleet before it has spoken to it. Example::

    >>> token = EnrolToken.parse("eo1." + "s" * 43 + "." + "A" * 43)
    >>> token.fingerprint[:8]
    '00000000'
"""

from __future__ import annotations

import base64
import binascii
import re
from dataclasses import dataclass, field
from typing import Any, ClassVar, Self

from edgeopt_contract.manifest import Capabilities
from edgeopt_contract.tuf import MAX_ROOT_BYTES
from edgeopt_contract.values import check_device_id, check_digest

__all__ = ["EnrolRequest", "EnrolResponse", "EnrolToken", "MqttAccess", "RenewRequest"]

_KIB = 1024
_MAX_CSR = 4 * _KIB
_TOKEN = re.compile(r"eo1\.([A-Za-z0-9_-]{20,64})\.([A-Za-z0-9_-]{43})")
_SERIAL = re.compile(r"[0-9a-f]{1,40}")


@dataclass(frozen=True, slots=True, kw_only=True)
class EnrolToken:
    """A one-time token: ``eo1.<secret>.<fingerprint of the CA>``; what is sent to the fleet is the secret alone."""

    secret: str = field(repr=False)
    fingerprint: str  # SHA-256 of the CA's certificate (DER)

    def __post_init__(self) -> None:
        check_digest(self.fingerprint)

    def __str__(self) -> str:
        raw = base64.urlsafe_b64encode(bytes.fromhex(self.fingerprint)).decode("ascii").rstrip("=")
        return f"eo1.{self.secret}.{raw}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """Return the token in ``text``. Raises ``ValueError``, which does not repeat the secret."""
        match = _TOKEN.fullmatch(text.strip())
        if match is None:
            raise ValueError(
                f"expected a token like eo1.….… from 'edgeopt token create', got {len(text)} other characters"
            )
        return cls(secret=match[1], fingerprint=base64.urlsafe_b64decode(f"{match[2]}=").hex())


@dataclass(frozen=True, slots=True, kw_only=True)
class MqttAccess:
    """How a device reaches the broker: with its certificate (``tls``), or a password where nothing is encrypted."""

    host: str
    port: int
    tls: bool
    password: str | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if not self.host or not 1 <= self.port <= 65535:
            raise ValueError("expected a host and a port from 1 to 65535")
        if self.tls == (self.password is not None):
            raise ValueError("expected a password where there is no TLS, and only there")


@dataclass(frozen=True, slots=True, kw_only=True)
class EnrolRequest:
    """Device to fleet over HTTP: a one-time token and a certificate signing request for an identity."""

    SCHEMA: ClassVar[int] = 2
    MAX_BYTES: ClassVar[int] = 16 * _KIB

    token: str = field(repr=False)
    device: str
    csr: str
    tags: dict[str, str]
    capabilities: Capabilities
    extra: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_device_id(self.device)
        _check_csr(self.csr)
        if len(self.tags) > 32 or any(len(k) > 64 or len(v) > 128 for k, v in self.tags.items()):
            raise ValueError("expected at most 32 tags, keys up to 64 and values up to 128 characters")


@dataclass(frozen=True, slots=True, kw_only=True)
class EnrolResponse:
    """Fleet to device: the identity, and how to reach the fleet; the answer to an enrolment and to a renewal.

    ``certificate`` and ``ca`` are PEM; ``bearer`` opens HTTP downloads and lives as long as the certificate. ``root``
    is the text of the TUF root metadata in force: what a device trusts of bundles begins there, so a renewal does not
    replace it. ``reconnect_window_seconds`` spreads the first reconnect of a whole fleet.
    """

    SCHEMA: ClassVar[int] = 2
    MAX_BYTES: ClassVar[int] = 64 * _KIB

    device: str
    mqtt: MqttAccess
    certificate: str
    serial: str
    valid_from: int
    valid_until: int
    ca: str
    bearer: str = field(repr=False)
    root: str
    reconnect_window_seconds: float
    extra: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_device_id(self.device)
        _check_serial(self.serial)
        if not self.valid_from < self.valid_until:
            raise ValueError("expected a certificate that ends after it begins")
        if not 0 < len(self.root) <= MAX_ROOT_BYTES:
            raise ValueError(f"expected root metadata of 1 to {MAX_ROOT_BYTES} characters")


@dataclass(frozen=True, slots=True, kw_only=True)
class RenewRequest:
    """Device to fleet over HTTP: a new key's signing request, signed (base64, ECDSA with SHA-256) by the old key."""

    SCHEMA: ClassVar[int] = 1
    MAX_BYTES: ClassVar[int] = 16 * _KIB

    device: str
    serial: str
    csr: str
    signature: str
    extra: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_device_id(self.device)
        _check_serial(self.serial)
        _check_csr(self.csr)
        try:
            base64.b64decode(self.signature, validate=True)
        except binascii.Error as error:
            raise ValueError("expected a signature in base64") from error

    @staticmethod
    def signed_bytes(device: str, serial: str, csr: str) -> bytes:
        """Return what the old key signs; the first line keeps it apart from any other use of that key."""
        return f"edgeopt renewal v1\n{device}\n{serial}\n{csr}".encode()


def _check_serial(value: str) -> None:
    if not _SERIAL.fullmatch(value):
        raise ValueError("expected a serial number of 1-40 lower-case hex digits")


def _check_csr(value: str) -> None:
    if not value.startswith("-----BEGIN CERTIFICATE REQUEST-----") or len(value) > _MAX_CSR:
        raise ValueError(f"expected a certificate signing request in PEM of at most {_MAX_CSR} characters")
