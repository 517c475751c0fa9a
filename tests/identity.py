"""What tests of both sides need of identities: a device's key and signing request, without an agent."""

from __future__ import annotations

import ssl
from dataclasses import dataclass, field
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from edgeopt_contract.enrolment import EnrolRequest, EnrolResponse, EnrolToken
from edgeopt_contract.manifest import Capabilities
from edgeopt_fleet.ca import DeviceAuthority, Issued


@dataclass
class DeviceKey:
    """A key on the curve P-256 that a test holds."""

    key: ec.EllipticCurvePrivateKey = field(default_factory=lambda: ec.generate_private_key(ec.SECP256R1()))

    def request(self, device: str) -> str:
        """Return a signing request for ``device``."""
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, device)])
        builder = x509.CertificateSigningRequestBuilder().subject_name(subject)
        return builder.sign(self.key, hashes.SHA256()).public_bytes(Encoding.PEM).decode()

    def sign(self, data: bytes) -> bytes:
        """Return a signature over ``data``."""
        return self.key.sign(data, ec.ECDSA(hashes.SHA256()))

    def pem(self) -> bytes:
        """Return the private key."""
        return self.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())

    def context(self, directory: Path, ca: str, certificate: str | bytes | None) -> ssl.SSLContext:
        """Return settings for a connection with this key; files are written below ``directory``."""
        context = ssl.create_default_context(cadata=ca)
        if certificate is not None:
            text = certificate if isinstance(certificate, str) else certificate.decode()
            path = directory / f"test-{id(self)}.pem"
            path.write_bytes(self.pem() + text.encode())
            context.load_cert_chain(path)
            path.unlink()
        return context


def issue(authority: DeviceAuthority, device: str, key: DeviceKey, *, now: float, seconds: float = 86400) -> Issued:
    """Return a certificate for ``key``, straight from the authority."""
    return authority.sign_device(device, key.request(device), now=now, lifetime_seconds=seconds)


def enrol_request(token: str, device: str, key: DeviceKey, capabilities: Capabilities, **tags: str) -> EnrolRequest:
    """Return what a device with ``key`` sends; ``token`` is what an operator sees, or its secret part."""
    secret = EnrolToken.parse(token).secret if token.startswith("eo1.") else token
    return EnrolRequest(token=secret, device=device, csr=key.request(device), tags=tags, capabilities=capabilities)


def tls_of(directory: Path, key: DeviceKey, access: EnrolResponse) -> ssl.SSLContext | None:
    """Return how a device with this identity connects to its broker."""
    return key.context(directory, access.ca, access.certificate) if access.mqtt.tls else None
