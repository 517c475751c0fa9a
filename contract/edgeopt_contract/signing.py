"""The port through which bundles are signed and verified.

What is signed is :func:`signed_bytes` of a bundle's digest, and the digest pins every byte of the bundle. Today's
adapters use Ed25519 (``edgeopt_fleet.keys`` signs, ``edgeopt_agent.trust`` verifies); TUF will take their place
behind the same two calls.
"""

from __future__ import annotations

from typing import Protocol

from edgeopt_contract.messages import Desired, Signature
from edgeopt_contract.values import check_digest

__all__ = ["BundleSigner", "BundleVerifier", "signed_bytes"]


class BundleSigner(Protocol):
    """Signs on the fleet's side."""

    def sign(self, bundle: str) -> Signature:
        """Return a signature over the bundle with this digest."""
        ...


class BundleVerifier(Protocol):
    """Verifies on the device's side."""

    def verify(self, desired: Desired) -> None:
        """Return if ``desired`` names a bundle signed by a trusted key; raise ``SignatureError`` otherwise."""
        ...


def signed_bytes(bundle: str) -> bytes:
    """Return the bytes that a signature of ``bundle`` covers; the prefix keeps them apart from any other use."""
    return b"edgeopt bundle v1\n" + check_digest(bundle).encode("ascii")
