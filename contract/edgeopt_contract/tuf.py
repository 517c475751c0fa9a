"""What TUF's metadata look like between the fleet and a device: one message, and what is said about a bundle.

The metadata themselves are those of the TUF specification 1.0 (root, timestamp, snapshot, targets); this module does
not look inside them and verifies nothing: ``edgeopt_agent.trust`` does, with python-tuf. A bundle is the target
``bundles/<digest>/manifest.json``; what TUF does not know of it stands in the target's ``custom`` field. Example::

    target = BundleTarget(digest=digest, length=1234, name="digits", version="2", counter=7, rollback=(older,))
    target.path                                # bundles/<digest>/manifest.json
    BundleTarget.from_custom(digest, 1234, target.custom) == target
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

import msgspec

from edgeopt_contract.errors import SignatureError
from edgeopt_contract.manifest import MANIFEST_NAME, Manifest
from edgeopt_contract.values import check_digest

__all__ = ["MAX_ROOTS", "MAX_ROOT_BYTES", "ROLLBACK_LIMIT", "SIGNED_AT", "BundleTarget", "TufMetadata", "target_path"]

_KIB = 1024
MAX_ROOTS = 64  # how many rotations a device may sleep through
MAX_ROOT_BYTES = 24 * _KIB
ROLLBACK_LIMIT = 32
SIGNED_AT = "x-edgeopt-signed-at"  # in root and timestamp: seconds since 1970, for devices without a clock


@dataclass(frozen=True, slots=True, kw_only=True)
class TufMetadata:
    """Fleet to device, retained: all metadata; each field holds the exact text of its file.

    ``roots`` are consecutive versions, oldest first, so that a device that slept follows the rotations one by one.
    """

    SCHEMA: ClassVar[int] = 1
    MAX_BYTES: ClassVar[int] = 512 * _KIB

    roots: tuple[str, ...]
    timestamp: str
    snapshot: str
    targets: str
    extra: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not 1 <= len(self.roots) <= MAX_ROOTS:
            raise ValueError(f"expected 1 to {MAX_ROOTS} roots, got {len(self.roots)}")
        if any(len(root) > MAX_ROOT_BYTES for root in self.roots):
            raise ValueError(f"expected roots of at most {MAX_ROOT_BYTES} characters")


def target_path(digest: str) -> str:
    """Return the name that TUF's targets metadata give the bundle with this digest."""
    return f"bundles/{check_digest(digest)}/{MANIFEST_NAME}"


@dataclass(frozen=True, slots=True, kw_only=True)
class BundleTarget:
    """What the targets keys sign about a bundle.

    ``length`` is that of manifest.json in bytes, whose SHA-256 is ``digest``. ``counter`` grows with every bundle
    that is signed; a device goes back to a lower one only when ``rollback`` of what it runs names that digest.
    """

    digest: str
    length: int
    name: str
    version: str
    counter: int
    rollback: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for digest in (self.digest, *self.rollback):
            check_digest(digest)
        if not 0 < self.length <= Manifest.MAX_BYTES:
            raise ValueError(f"expected a manifest of 1 to {Manifest.MAX_BYTES} bytes, got {self.length}")
        if not 1 <= self.counter < 2**53:
            raise ValueError(f"expected a counter from 1 on, got {self.counter}")
        if len(self.rollback) > ROLLBACK_LIMIT:
            raise ValueError(f"expected at most {ROLLBACK_LIMIT} bundles to go back to, got {len(self.rollback)}")

    @property
    def path(self) -> str:
        """The target's name in the metadata."""
        return target_path(self.digest)

    @property
    def custom(self) -> dict[str, Any]:
        """What stands in the target's ``custom`` field."""
        return {
            "counter": self.counter,
            "name": self.name,
            "rollback": list(self.rollback),
            "version": self.version,
        }

    @classmethod
    def from_custom(cls, digest: str, length: int, custom: object) -> BundleTarget:
        """Read the ``custom`` field of a target that was verified. Raises :class:`SignatureError` if it is none."""
        try:
            known = msgspec.convert(custom, _Custom, strict=True)
            return cls(
                digest=digest,
                length=length,
                name=known.name,
                version=known.version,
                counter=known.counter,
                rollback=known.rollback,
            )
        except (msgspec.ValidationError, ValueError) as error:
            raise SignatureError(
                f"bundle {digest[:12]}: what was signed about it cannot be used ({error}); sign it again: edgeopt sign"
            ) from error


@dataclass(frozen=True, slots=True, kw_only=True)
class _Custom:
    """The ``custom`` field as it stands in the metadata; fields of later versions are left alone."""

    name: str
    version: str
    counter: int
    rollback: tuple[str, ...]
