"""Where a device's private keys are made and used: the port, and keys in files as its default.

A key is named for what it was made for; asking for it again gives the same key, so whatever is interrupted can be done
again. Keys never leave the store. Imported by short-lived processes only, for it brings cryptography along. Another
adapter (a TPM, a secure element) also has to give TLS its key: see
:func:`edgeopt_agent.credentials.identity.tls_context`. Example::

    store = PemKeys(Path("/var/lib/edgeopt"))
    csr = store.request("3f2a9c0d1b5e", "cam-7")         # makes the key if there is none
    signature = store.sign("3f2a9c0d1b5e", b"…")
"""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key
from cryptography.x509.oid import NameOID

from edgeopt_agent.credentials.identity import PRIVATE, key_file
from edgeopt_contract.errors import UsageError
from edgeopt_contract.storage import write_atomically

__all__ = ["KeyStore", "PemKeys"]


class KeyStore(Protocol):
    """Makes keys on the curve P-256 and uses them; no call returns one."""

    def request(self, name: str, device: str) -> str:
        """Return a certificate signing request (PEM) of the key ``name`` for ``device``; makes the key if need be."""
        ...

    def sign(self, name: str, data: bytes) -> bytes:
        """Return a signature (ECDSA with SHA-256, DER) over ``data`` by the key ``name``."""
        ...


class PemKeys:
    """Keys in PEM files that only their owner can read, each written in one step before it is used."""

    def __init__(self, data: Path) -> None:
        self._data = data

    def request(self, name: str, device: str) -> str:
        """See :class:`KeyStore`. Raises :class:`StorageError`, and :class:`UsageError` for a damaged key."""
        path = key_file(self._data, name)
        if not path.exists():
            key = ec.generate_private_key(ec.SECP256R1())
            write_atomically(path, key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()), PRIVATE)
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, device)])
        request = x509.CertificateSigningRequestBuilder().subject_name(subject).sign(self._load(name), hashes.SHA256())
        return request.public_bytes(Encoding.PEM).decode("ascii")

    def sign(self, name: str, data: bytes) -> bytes:
        """See :class:`KeyStore`. Raises :class:`UsageError` when the key is not there or damaged."""
        return self._load(name).sign(data, ec.ECDSA(hashes.SHA256()))

    def _load(self, name: str) -> ec.EllipticCurvePrivateKey:
        path = key_file(self._data, name)
        try:
            key = load_pem_private_key(path.read_bytes(), password=None)
        except (OSError, ValueError, TypeError, UnsupportedAlgorithm) as error:
            raise UsageError(
                f"{path}: the private key cannot be used ({type(error).__name__}); get a new token and run "
                f"'edgeopt-agent enroll --replace --data {self._data} …'"
            ) from error
        if not isinstance(key, ec.EllipticCurvePrivateKey):
            raise UsageError(f"{path}: expected a key on an elliptic curve, got another kind")
        return key
