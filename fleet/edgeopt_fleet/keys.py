"""The key that signs bundles: Ed25519, one file.

The adapter behind :class:`edgeopt_contract.signing.BundleSigner`; TUF will take its place. Example::

    create_key(Path("signing.key"))
    signer = Ed25519Signer.load(Path("signing.key"))
    signer.sign(digest)                       # Signature(key_id=…, algorithm='ed25519', value=…)
"""

from __future__ import annotations

import base64
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key

from edgeopt_contract.errors import UsageError
from edgeopt_contract.messages import PublicKey, Signature
from edgeopt_contract.signing import signed_bytes
from edgeopt_contract.storage import write_atomically
from edgeopt_contract.values import digest_of

__all__ = ["ALGORITHM", "Ed25519Signer", "create_key"]

ALGORITHM = "ed25519"


def create_key(path: Path) -> None:
    """Write a new private key in PEM, readable by its owner only. Raises :class:`StorageError`."""
    key = Ed25519PrivateKey.generate()
    write_atomically(path, key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()), mode=0o600)


class Ed25519Signer:
    """Signs bundle digests with one private key."""

    def __init__(self, key: Ed25519PrivateKey) -> None:
        self._key = key
        raw = key.public_key().public_bytes_raw()
        self.public_key = PublicKey(
            key_id=digest_of(raw), algorithm=ALGORITHM, value=base64.b64encode(raw).decode("ascii")
        )

    @classmethod
    def load(cls, path: Path) -> Ed25519Signer:
        """Read the key at ``path``. Raises :class:`UsageError` when there is none that can be used."""
        try:
            key = load_pem_private_key(path.read_bytes(), password=None)
        except (OSError, ValueError, TypeError, UnsupportedAlgorithm) as error:
            raise UsageError(f"{path}: expected an Ed25519 private key in PEM: {type(error).__name__}") from error
        if not isinstance(key, Ed25519PrivateKey):
            raise UsageError(f"{path}: expected an Ed25519 private key, got another kind")
        return cls(key)

    def sign(self, bundle: str) -> Signature:
        """Return a signature over the bundle with this digest."""
        value = self._key.sign(signed_bytes(bundle))
        return Signature(
            key_id=self.public_key.key_id, algorithm=ALGORITHM, value=base64.b64encode(value).decode("ascii")
        )
