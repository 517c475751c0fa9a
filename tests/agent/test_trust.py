"""Signatures: what verifies, and everything that must not."""

from __future__ import annotations

import base64
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeopt_agent.trust.ed25519 import Ed25519Verifier
from edgeopt_contract.errors import SignatureError
from edgeopt_contract.messages import PublicKey
from tests.agent.conftest import Signer

SIGNER = Signer()
DESIRED = SIGNER.desired("ab" * 32)


def test_signed_bundle_verifies() -> None:
    """A signature by an enrolled key over this bundle is good, also among several keys."""
    Ed25519Verifier([Signer().public, SIGNER.public]).verify(DESIRED)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"key_id": "00" * 32}, "by a key of its enrolment"),
        ({"algorithm": "none"}, "expected an ed25519 signature"),
        ({"value": ""}, "does not verify"),
        ({"value": "not base64!"}, "does not verify"),
        ({"value": base64.b64encode(bytes(64)).decode()}, "does not verify"),
    ],
)
def test_changed_signature_is_refused(change: dict[str, str], reason: str) -> None:
    """Another key, algorithm or value: refused with what was expected."""
    with pytest.raises(SignatureError, match=reason):
        Ed25519Verifier([SIGNER.public]).verify(replace(DESIRED, signature=replace(DESIRED.signature, **change)))


def test_signature_of_another_bundle_is_refused() -> None:
    """A signature cannot be moved to another bundle."""
    with pytest.raises(SignatureError, match="does not verify"):
        Ed25519Verifier([SIGNER.public]).verify(replace(DESIRED, bundle="cd" * 32))


@given(st.integers(0, 64 * 8 - 1))
def test_any_flipped_bit_is_refused(bit: int) -> None:
    """No single bit of a signature may be changed."""
    value = bytearray(base64.b64decode(DESIRED.signature.value))
    value[bit // 8] ^= 1 << bit % 8
    forged = replace(DESIRED.signature, value=base64.b64encode(value).decode())
    with pytest.raises(SignatureError, match="does not verify"):
        Ed25519Verifier([SIGNER.public]).verify(replace(DESIRED, signature=forged))


@pytest.mark.parametrize(
    "key",
    [
        PublicKey(key_id="00" * 32, algorithm="ed25519", value=SIGNER.public.value),
        PublicKey(key_id=SIGNER.public.key_id, algorithm="rsa", value=SIGNER.public.value),
        PublicKey(key_id=SIGNER.public.key_id, algorithm="ed25519", value="AAAA"),
        PublicKey(key_id=SIGNER.public.key_id, algorithm="ed25519", value="§"),
    ],
)
def test_key_that_is_none_is_refused(key: PublicKey) -> None:
    """A key is 32 bytes of ed25519 named by their hash."""
    with pytest.raises(SignatureError, match="key"):
        Ed25519Verifier([key])


def test_no_key_at_all_is_refused() -> None:
    """A device without keys must not accept everything."""
    with pytest.raises(SignatureError, match="at least one"):
        Ed25519Verifier([])
