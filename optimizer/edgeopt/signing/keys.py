"""A private key on this machine, and the memory of what it has signed: ``<key>.seen.json`` beside it.

Example::

    key = OfflineKey.load(Path("alice.pem"), passphrase=None)     # raises UsageError
    key.sign(draft)
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import msgspec
from securesystemslib.signer import CryptoSigner
from tuf.api.metadata import Metadata

from edgeopt.signing.drafts import Seen, seen_after
from edgeopt_contract.errors import UsageError
from edgeopt_contract.storage import write_atomically

__all__ = ["OfflineKey", "is_encrypted"]


def is_encrypted(path: Path) -> bool:
    """Say whether the key at ``path`` needs a passphrase. Raises :class:`UsageError` when it cannot be read."""
    try:
        return b"ENCRYPTED" in path.read_bytes()
    except OSError as error:
        raise UsageError(f"cannot read the key {path}: {error.strerror}") from error


@dataclass(frozen=True, slots=True)
class OfflineKey:
    """One key that signs; ``seen`` is what it has signed last."""

    path: Path
    signer: CryptoSigner
    seen: Seen

    @classmethod
    def load(cls, path: Path, passphrase: str | None) -> Self:
        """Read the key. Raises :class:`UsageError` when it is none, is open to others, or the passphrase is wrong."""
        from cryptography.exceptions import UnsupportedAlgorithm
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
        from cryptography.hazmat.primitives.serialization import load_pem_private_key

        try:
            mode = path.stat().st_mode & 0o077
            key = load_pem_private_key(path.read_bytes(), passphrase.encode() if passphrase else None)
        except (OSError, ValueError, TypeError, UnsupportedAlgorithm) as error:
            raise UsageError(
                f"{path}: expected an Ed25519 private key in PEM and its passphrase: {type(error).__name__}"
            ) from error
        if mode:
            raise UsageError(f"{path} can be read by others; run: chmod 600 {path}")
        if not isinstance(key, Ed25519PrivateKey):
            raise UsageError(f"{path}: expected an Ed25519 private key, got another kind")
        return cls(path, CryptoSigner(key), _load_seen(_seen_path(path)))

    @property
    def keyid(self) -> str:
        """The id by which the fleet's root names this key."""
        return str(self.signer.public_key.keyid)

    def sign(self, metadata: Metadata[Any]) -> None:
        """Add this key's signature, and remember what was signed. Raises :class:`StorageError`."""
        memory = msgspec.json.encode(seen_after(metadata, self.seen), order="sorted")
        write_atomically(_seen_path(self.path), memory, mode=0o600)
        metadata.sign(self.signer, append=True)


def _seen_path(path: Path) -> Path:
    return path.with_name(f"{path.name}.seen.json")


def _load_seen(path: Path) -> Seen:
    try:
        return msgspec.json.decode(path.read_bytes(), type=Seen)
    except FileNotFoundError:
        return Seen()
    except (OSError, msgspec.MsgspecError) as error:
        raise UsageError(f"{path} cannot be read ({error}); remove it to look at everything as new") from error
