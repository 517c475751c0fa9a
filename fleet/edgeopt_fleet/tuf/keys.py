"""Keys that sign TUF metadata: Ed25519, one PEM file each, readable by its owner only.

A private key's file is ``<name>.pem`` (PKCS 8, encrypted when there is a passphrase); beside it ``<name>.pub`` holds
what others need: key id, kind and public value in JSON. Example::

    create_key(Path("alice.pem"), passphrase="…")
    signer = load_signer(Path("alice.pem"), passphrase="…")
    key = read_public(Path("alice.pub"))
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    KeySerializationEncryption,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from securesystemslib.signer import CryptoSigner, Key, SSlibKey

from edgeopt_contract.errors import UsageError
from edgeopt_contract.storage import write_atomically
from edgeopt_contract.values import canonical_json

__all__ = ["create_key", "create_server_key", "load_signer", "public_path", "read_public"]


def create_key(path: Path, passphrase: str | None = None) -> SSlibKey:
    """Write a new private key with mode 0600 and its public half beside it; return the public half.

    Raises :class:`UsageError` when there is a file of that name, :class:`StorageError`.
    """
    for taken in (path, public_path(path)):
        if taken.exists():
            raise UsageError(f"{taken} exists already; keys are never overwritten: choose another name")
    return _write(Ed25519PrivateKey.generate(), path, passphrase)


def create_server_key(directory: Path) -> SSlibKey:
    """Write a new private key for the server's own use into ``directory``, named after its key id."""
    key = Ed25519PrivateKey.generate()
    return _write(key, directory / f"{SSlibKey.from_crypto(key.public_key()).keyid}.pem", None)


def public_path(path: Path) -> Path:
    """Return where the public half of the private key at ``path`` lies."""
    return path.with_suffix(".pub")


def load_signer(path: Path, passphrase: str | None = None) -> CryptoSigner:
    """Read the private key at ``path``. Raises :class:`UsageError` when there is none that can be used."""
    try:
        key = load_pem_private_key(path.read_bytes(), passphrase.encode() if passphrase else None)
    except (OSError, ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise UsageError(
            f"{path}: expected an Ed25519 private key in PEM, and its passphrase if it has one: {type(error).__name__}"
        ) from error
    if not isinstance(key, Ed25519PrivateKey):
        raise UsageError(f"{path}: expected an Ed25519 private key, got another kind")
    return CryptoSigner(key)


def read_public(path: Path) -> Key:
    """Read the public half of a key. Raises :class:`UsageError`; a key id that is not the key's own is refused."""
    try:
        raw: dict[str, Any] = msgspec.json.decode(path.read_bytes(), type=dict[str, Any])
        key = SSlibKey.from_dict(str(raw.pop("keyid")), raw)
    except (OSError, msgspec.MsgspecError, KeyError, ValueError) as error:
        raise UsageError(f"{path}: expected the .pub file of a key: {error}") from error
    if key.keytype != "ed25519" or key.keyid != SSlibKey.from_crypto(_raw(key, path)).keyid:
        raise UsageError(f"{path}: expected an Ed25519 key named by its own id; make it again: edgeopt-fleet keys make")
    return key


def _write(key: Ed25519PrivateKey, path: Path, passphrase: str | None) -> SSlibKey:
    encryption: KeySerializationEncryption = NoEncryption()
    if passphrase:
        encryption = BestAvailableEncryption(passphrase.encode())
    write_atomically(path, key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption), mode=0o600)
    public = SSlibKey.from_crypto(key.public_key())
    write_atomically(public_path(path), canonical_json({"keyid": public.keyid, **public.to_dict()}) + b"\n")
    return public


def _raw(key: SSlibKey, path: Path) -> Any:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    try:
        return Ed25519PublicKey.from_public_bytes(bytes.fromhex(key.keyval["public"]))
    except (KeyError, ValueError) as error:
        raise UsageError(f"{path}: expected a public value of 32 bytes in hex") from error
