from __future__ import annotations

import base64
from pathlib import Path

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from edgeopt_contract.errors import UsageError
from edgeopt_contract.signing import signed_bytes
from edgeopt_contract.values import digest_of
from edgeopt_fleet.keys import Ed25519Signer, create_key

DIGEST = "ab" * 32


def test_a_signature_verifies_with_the_published_key(tmp_path: Path) -> None:
    """It covers the contract's bytes of exactly this bundle; the key id is the hash of the raw key."""
    create_key(tmp_path / "signing.key")
    signer = Ed25519Signer.load(tmp_path / "signing.key")
    raw = base64.b64decode(signer.public_key.value)
    signature = signer.sign(DIGEST)

    assert digest_of(raw) == signer.public_key.key_id == signature.key_id
    key = Ed25519PublicKey.from_public_bytes(raw)
    key.verify(base64.b64decode(signature.value), signed_bytes(DIGEST))
    with pytest.raises(InvalidSignature):
        key.verify(base64.b64decode(signature.value), signed_bytes("cd" * 32))


def test_the_private_key_is_the_owner_s_only(tmp_path: Path) -> None:
    """Mode 0600 from the start."""
    create_key(tmp_path / "signing.key")
    assert 0o600 == (tmp_path / "signing.key").stat().st_mode & 0o777


@pytest.mark.parametrize(
    "content", [b"", b"not a key", b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"]
)
def test_a_damaged_key_is_named_without_showing_it(tmp_path: Path, content: bytes) -> None:
    """The message names the file and not its content."""
    (tmp_path / "signing.key").write_bytes(content)
    with pytest.raises(UsageError, match=r"signing\.key: expected an Ed25519"):
        Ed25519Signer.load(tmp_path / "signing.key")
