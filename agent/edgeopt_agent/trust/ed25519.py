"""Ed25519 behind the :class:`~edgeopt_contract.signing.BundleVerifier` port. Full TUF will take its place.

It knows the keys of the enrolment and nothing else: no expiry, no revocation, no thresholds. Example::

    Ed25519Verifier(identity.keys).verify(desired)      # raises SignatureError
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable

from edgeopt_contract.errors import SignatureError
from edgeopt_contract.messages import Desired, PublicKey
from edgeopt_contract.signing import signed_bytes
from edgeopt_contract.values import digest_of

__all__ = ["Ed25519Verifier"]

_ALGORITHM = "ed25519"


class Ed25519Verifier:
    """Verifies with the keys that came with the enrolment. Raises :class:`SignatureError` for a key that is not one."""

    def __init__(self, keys: Iterable[PublicKey]) -> None:
        self._keys = {key.key_id: _raw_key(key) for key in keys}
        if not self._keys:
            raise SignatureError("expected at least one public key from the enrolment, got none; enrol again")

    def verify(self, desired: Desired) -> None:
        """Return if ``desired`` names a bundle signed by a known key; raise :class:`SignatureError` otherwise."""
        from cryptography.exceptions import InvalidSignature
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

        signature = desired.signature
        key = self._keys.get(signature.key_id)
        if signature.algorithm != _ALGORITHM or key is None:
            raise SignatureError(
                f"bundle {desired.bundle[:12]}: expected an {_ALGORITHM} signature by a key of its enrolment, "
                f"got {signature.algorithm[:20]!r} by {signature.key_id[:12]!r}"
            )
        try:
            value = base64.b64decode(signature.value, validate=True)
            Ed25519PublicKey.from_public_bytes(key).verify(value, signed_bytes(desired.bundle))
        except (InvalidSignature, binascii.Error, ValueError) as error:
            raise SignatureError(
                f"bundle {desired.bundle[:12]}: the signature by {signature.key_id[:12]} does not verify; "
                "publish the bundle again from the fleet that enrolled this device"
            ) from error


def _raw_key(key: PublicKey) -> bytes:
    try:
        raw = base64.b64decode(key.value, validate=True)
    except (binascii.Error, ValueError) as error:
        raise SignatureError(f"key {key.key_id[:12]}: expected base64, got something else") from error
    if key.algorithm != _ALGORITHM or len(raw) != 32 or digest_of(raw) != key.key_id:
        raise SignatureError(
            f"key {key.key_id[:12]}: expected 32 bytes of {_ALGORITHM} named by their SHA-256; enrol this device again"
        )
    return raw
