"""What a signature covers."""

from __future__ import annotations

import pytest

from edgeopt_contract.signing import signed_bytes


def test_signed_bytes_name_their_purpose() -> None:
    """A signature over a bundle can be mistaken for no other, and pins the whole digest."""
    assert b"edgeopt bundle v1\n" + b"0" * 64 == signed_bytes("0" * 64)


@pytest.mark.parametrize("bundle", ["", "0" * 63, "latest", "0" * 64 + "\n"])
def test_only_a_digest_can_be_signed(bundle: str) -> None:
    """A name or a part of a digest would leave room for another bundle."""
    with pytest.raises(ValueError, match="SHA-256"):
        signed_bytes(bundle)
