"""The fleet's own certificate authority: it signs the keys of devices, of the servers and of the fleet's connection.

X.509 with ECDSA P-256 (RFC 5280). A device's common name is its id; the subject also holds the serial number, so that
a broker can tell two certificates of one device apart. It keeps no list of what it signed: that is
:mod:`edgeopt_fleet.store.certificates`. Times are seconds since 1970. Example::

    DeviceAuthority.create(Path("ca"), now=time.time())
    authority = DeviceAuthority.load(Path("ca"))
    issued = authority.sign_device("cam-7", csr, now=time.time(), lifetime_seconds=90 * 86400)
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from edgeopt_contract.errors import UsageError
from edgeopt_contract.storage import write_atomically
from edgeopt_contract.values import digest_of
from edgeopt_fleet.problems import ForbiddenError, InvalidError

__all__ = ["DeviceAuthority", "Issued", "KeyPair", "is_signed_by"]

_CA_SECONDS = 20 * 365 * 86400
_SERVER_SECONDS = 2 * 365 * 86400  # made anew at every start of the server
_LIST_SECONDS = 10 * 365 * 86400  # a local file: an old list must not lock the whole fleet out while the server is down
_SKEW_SECONDS = 3600  # a device whose clock is a little slow can use its certificate at once
_EXACTLY_P256 = "expected a key on the curve P-256"


@dataclass(frozen=True, slots=True, kw_only=True)
class Issued:
    """A certificate that was just signed; ``public_key`` is the subject's, as DER."""

    serial: str
    pem: str
    public_key: bytes
    valid_from: int
    valid_until: int


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyPair:
    """A private key that this program made, and its certificate; both PEM."""

    key: bytes
    certificate: bytes


class DeviceAuthority:
    """Signs with one key, which lies in one directory with mode 0600."""

    def __init__(self, key: ec.EllipticCurvePrivateKey, certificate: x509.Certificate) -> None:
        self._key = key
        self._certificate = certificate
        self.pem = certificate.public_bytes(Encoding.PEM).decode("ascii")
        self.fingerprint = digest_of(certificate.public_bytes(Encoding.DER))

    @classmethod
    def create(cls, directory: Path, now: float) -> None:
        """Make the key and its own certificate. Raises :class:`StorageError`."""
        key = ec.generate_private_key(ec.SECP256R1())
        serial = x509.random_serial_number()
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"edgeopt fleet {serial:x}"[:30])])
        certificate = (
            x509.CertificateBuilder(issuer_name=name, subject_name=name, public_key=key.public_key())
            .serial_number(serial)
            .not_valid_before(_time(now - 86400))
            .not_valid_after(_time(now + _CA_SECONDS))
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_key_usage(signs_certificates=True), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .sign(key, hashes.SHA256())
        )
        write_atomically(directory / "ca.key", _private_pem(key), mode=0o600)
        write_atomically(directory / "ca.pem", certificate.public_bytes(Encoding.PEM))

    @classmethod
    def load(cls, directory: Path) -> DeviceAuthority:
        """Read what :meth:`create` wrote. Raises :class:`UsageError` when it cannot be used."""
        try:
            key = load_pem_private_key((directory / "ca.key").read_bytes(), password=None)
            certificate = x509.load_pem_x509_certificate((directory / "ca.pem").read_bytes())
        except (OSError, ValueError, TypeError, UnsupportedAlgorithm) as error:
            raise UsageError(
                f"{directory}: expected ca.key and ca.pem of this fleet ({type(error).__name__}); restore them from a "
                "backup: without them no device can be enrolled"
            ) from error
        if not isinstance(key, ec.EllipticCurvePrivateKey) or key.public_key() != certificate.public_key():
            raise UsageError(f"{directory}: ca.key is not the key of ca.pem; restore both from the same backup")
        return cls(key, certificate)

    def sign_device(self, device: str, csr: str, *, now: float, lifetime_seconds: float) -> Issued:
        """Return a certificate for the key of ``csr``; of the request only the key and its proof are used.

        Raises :class:`InvalidError` when the request is not a good one for ``device``.
        """
        key = _requested_key(device, csr)
        serial = x509.random_serial_number()
        subject = [
            x509.NameAttribute(NameOID.COMMON_NAME, device),
            x509.NameAttribute(NameOID.SERIAL_NUMBER, f"{serial:x}"),
        ]
        begin, end = int(now - min(_SKEW_SECONDS, lifetime_seconds / 10)), int(now + lifetime_seconds)
        usage = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH])
        certificate = self._builder(subject, key, begin, end).serial_number(serial).add_extension(usage, critical=False)
        return Issued(
            serial=f"{serial:x}",
            pem=certificate.sign(self._key, hashes.SHA256()).public_bytes(Encoding.PEM).decode("ascii"),
            public_key=key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo),
            valid_from=begin,
            valid_until=end,
        )

    def make_server(self, names: Iterable[str], now: float) -> KeyPair:
        """Return a new key and certificate for servers that are reached under ``names`` (host names or addresses)."""
        alternatives = x509.SubjectAlternativeName([_general_name(name) for name in names])
        usage = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH])
        return self._make("edgeopt-fleet", now, (alternatives, usage))

    def make_peer(self, names: Iterable[str], now: float) -> KeyPair:
        """Return a new key and certificate for a broker's node that calls others like it, and is called by them."""
        alternatives = x509.SubjectAlternativeName([_general_name(name) for name in names])
        usage = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH])
        return self._make("edgeopt-fleet-node", now, (alternatives, usage))

    def make_client(self, common_name: str, now: float) -> KeyPair:
        """Return a new key and certificate for the fleet's own connection to the broker."""
        return self._make(common_name, now, (x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]),))

    def revocation_list(self, revoked: Iterable[tuple[str, int]], now: float) -> bytes:
        """Return a list (PEM) of revoked serials, each with the time of its revocation."""
        builder = (
            x509.CertificateRevocationListBuilder()
            .issuer_name(self._certificate.subject)
            .last_update(_time(now))
            .next_update(_time(now + _LIST_SECONDS))
            .add_extension(x509.CRLNumber(int(now)), critical=False)
            .add_extension(self._authority(), critical=False)
        )
        for serial, at in revoked:
            entry = x509.RevokedCertificateBuilder().serial_number(int(serial, 16)).revocation_date(_time(at)).build()
            builder = builder.add_revoked_certificate(entry)
        return builder.sign(self._key, hashes.SHA256()).public_bytes(Encoding.PEM)

    def _make(self, common_name: str, now: float, extensions: tuple[x509.ExtensionType, ...]) -> KeyPair:
        key = ec.generate_private_key(ec.SECP256R1())
        subject = [x509.NameAttribute(NameOID.COMMON_NAME, common_name)]
        builder = self._builder(subject, key.public_key(), now - _SKEW_SECONDS, now + _SERVER_SECONDS)
        for extension in extensions:
            builder = builder.add_extension(extension, critical=False)
        certificate = builder.serial_number(x509.random_serial_number()).sign(self._key, hashes.SHA256())
        return KeyPair(key=_private_pem(key), certificate=certificate.public_bytes(Encoding.PEM))

    def _builder(
        self, subject: list[x509.NameAttribute[str]], key: ec.EllipticCurvePublicKey, begin: float, end: float
    ) -> x509.CertificateBuilder:
        return (
            x509.CertificateBuilder(
                issuer_name=self._certificate.subject, subject_name=x509.Name(subject), public_key=key
            )
            .not_valid_before(_time(begin))
            .not_valid_after(_time(end))
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_key_usage(signs_certificates=False), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
            .add_extension(self._authority(), critical=False)
        )

    def _authority(self) -> x509.AuthorityKeyIdentifier:
        return x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key())


def is_signed_by(public_key: bytes, signature: bytes, data: bytes) -> bool:
    """Say whether ``signature`` over ``data`` is by the P-256 key ``public_key`` (DER)."""
    from cryptography.hazmat.primitives.serialization import load_der_public_key

    key = load_der_public_key(public_key)
    assert isinstance(key, ec.EllipticCurvePublicKey)  # what is stored was checked when it was signed
    try:
        key.verify(signature, data, ec.ECDSA(hashes.SHA256()))
    except InvalidSignature:
        return False
    return True


def _requested_key(device: str, csr: str) -> ec.EllipticCurvePublicKey:
    """Return the key of a signing request that names ``device`` and proves that its sender has the private key."""
    try:
        request = x509.load_pem_x509_csr(csr.encode())
        key = request.public_key()
        proven = request.is_signature_valid
        names = [name.value for name in request.subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
    except (ValueError, UnsupportedAlgorithm) as error:
        raise InvalidError(f"csr: expected a certificate signing request in PEM: {error}") from error
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        raise InvalidError(f"csr: {_EXACTLY_P256}; update the agent")
    if not proven:
        raise ForbiddenError("csr: its signature does not verify: whoever sent it does not have the key")
    if names != [device]:
        raise InvalidError(f"csr: expected the common name {device!r}, got {names!r:.80}")
    return key


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _key_usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _private_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def _time(seconds: float) -> datetime:
    return datetime.fromtimestamp(int(seconds), UTC)
