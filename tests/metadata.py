"""A TUF repository under a test's hand: it publishes what a fleet would, and whatever an attacker would.

Unlike the fleet's own repository it lets every file be signed by any key, at any version, with any expiry. Example::

    fleet = MetadataFleet()
    fleet.add(bundle_digest, length=1234)
    question.metadata = fleet.message()
"""

from __future__ import annotations

import copy
import datetime as dt
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from securesystemslib.signer import CryptoSigner
from tuf.api.metadata import Metadata, MetaFile, Root, Snapshot, TargetFile, Targets, Timestamp
from tuf.api.serialization.json import JSONSerializer

from edgeopt_contract.codec import encode
from edgeopt_contract.tuf import SIGNED_AT, BundleTarget, TufMetadata

ROLES = ("root", "targets", "snapshot", "timestamp")
DAY = 86400.0


def text(metadata: Metadata) -> str:
    """Return metadata as they are published."""
    return metadata.to_bytes(JSONSerializer(compact=True)).decode()


def date(seconds: float) -> dt.datetime:
    """Return ``seconds`` since 1970 as TUF wants it."""
    return dt.datetime.fromtimestamp(int(seconds), dt.UTC)


@dataclass
class MetadataFleet:
    """Keys of every role, and the metadata in force."""

    now: float = field(default_factory=time.time)
    offline: tuple[int, int] = (2, 3)  # threshold, keys
    online: tuple[int, int] = (1, 1)
    keys: dict[str, list[CryptoSigner]] = field(default_factory=dict)
    roots: list[Metadata] = field(default_factory=list)
    targets: Metadata = field(init=False)
    snapshot: Metadata = field(init=False)
    timestamp: Metadata = field(init=False)

    def __post_init__(self) -> None:
        root = Root(version=1, expires=date(self.now + 365 * DAY), consistent_snapshot=True)
        root.unrecognized_fields[SIGNED_AT] = int(self.now)
        for role in ROLES:
            threshold, count = self.offline if role in ("root", "targets") else self.online
            self.keys[role] = [CryptoSigner.generate_ed25519() for _ in range(count)]
            for key in self.keys[role]:
                root.add_key(key.public_key, role)
            root.roles[role].threshold = threshold
        self.roots.append(self.sign(Metadata(root), self.keys["root"]))
        self.targets = self.sign(Metadata(Targets(version=1, expires=date(self.now + 365 * DAY))), self.keys["targets"])
        self.snapshot = Metadata(Snapshot(version=0 + 1, expires=date(self.now + 30 * DAY)))
        self.timestamp = Metadata(Timestamp(version=1, expires=date(self.now + 7 * DAY)))
        self.publish(bump=0)

    # --- what a fleet does ----------------------------------------------------------------------------------------

    @property
    def root_text(self) -> str:
        """The root of the enrolment."""
        return text(self.roots[0])

    def add(
        self, digest: str, length: int = 1000, *, counter: int | None = None, rollback: Sequence[str] | None = None,
        name: str = "tiny", version: str = "1",
    ) -> BundleTarget:  # fmt: skip
        """Sign a bundle, by default with permission to go back to all before it, and publish."""
        known = [target.custom for target in self.targets.signed.targets.values()]
        target = BundleTarget(
            digest=digest, length=length, name=name, version=version,
            counter=counter or 1 + max((custom["counter"] for custom in known), default=0),
            rollback=tuple(self.digests()[-32:] if rollback is None else rollback),
        )  # fmt: skip
        signed = copy.deepcopy(self.targets.signed)
        signed.version += 1
        signed.targets[target.path] = TargetFile(length, {"sha256": digest}, target.path, {"custom": target.custom})
        self.targets = self.sign(Metadata(signed), self.keys["targets"])
        self.publish()
        return target

    def digests(self) -> list[str]:
        """The bundles that are signed."""
        return [target.hashes["sha256"] for target in self.targets.signed.targets.values()]

    def publish(self, bump: int = 1) -> None:
        """Sign snapshot and timestamp over what is there."""
        self.snapshot.signed.version += bump
        self.snapshot.signed.expires = date(self.now + 30 * DAY)
        self.snapshot.signed.meta = {"targets.json": self.pin(self.targets)}
        self.sign_snapshot()
        self.tick(bump)

    def tick(self, bump: int = 1) -> None:
        """Sign the timestamp again, with the time it is."""
        self.timestamp.signed.version += bump
        self.timestamp.signed.expires = date(self.now + 7 * DAY)
        self.timestamp.signed.snapshot_meta = self.pin(self.snapshot)
        self.timestamp.signed.unrecognized_fields[SIGNED_AT] = int(self.now)
        self.sign(self.timestamp, self.keys["timestamp"])

    def sign_snapshot(self) -> None:
        """Sign the snapshot as it is, without touching the timestamp."""
        self.sign(self.snapshot, self.keys["snapshot"])

    def rotate(self, role: str, *, signers: Sequence[CryptoSigner] | None = None, keep: int = 0) -> list[CryptoSigner]:
        """Replace the keys of ``role`` by new ones in the next root and return the old ones; sign all anew."""
        old = self.keys[role]
        new = [*old[:keep], *(CryptoSigner.generate_ed25519() for _ in old[keep:])]
        root = self.draft_root()
        for key in old[keep:]:
            root.signed.revoke_key(key.public_key.keyid, role)
        for key in new[keep:]:
            root.signed.add_key(key.public_key, role)
        self.keys[role] = new
        self.roots.append(self.sign(root, signers or [*(old if role == "root" else []), *self.keys["root"]]))
        if role == "targets":
            self.targets.signed.version += 1
            self.sign(self.targets, new)
        self.publish()
        return old

    # --- what an attacker needs -----------------------------------------------------------------------------------

    def draft_root(self) -> Metadata:
        """Return an unsigned copy of the newest root, one version on."""
        signed = copy.deepcopy(self.roots[-1].signed)
        signed.version += 1
        return Metadata(signed)

    def sign(self, metadata: Metadata, signers: Sequence[CryptoSigner]) -> Metadata:
        """Sign with exactly these keys."""
        metadata.signatures.clear()
        for signer in signers:
            metadata.sign(signer, append=True)
        return metadata

    def pin(self, metadata: Metadata) -> MetaFile:
        """Version, length and hash of ``metadata``, as the role above states them."""
        return MetaFile.from_data(metadata.signed.version, text(metadata).encode(), ["sha256"])

    def message(self, **changed: Any) -> bytes:
        """Return the payload of the topic, with some fields replaced."""
        fields: dict[str, Any] = {
            "roots": tuple(text(root) for root in self.roots),
            "timestamp": text(self.timestamp),
            "snapshot": text(self.snapshot),
            "targets": text(self.targets),
        }
        return encode(TufMetadata(**{**fields, **changed}))

    def copy(self) -> MetadataFleet:
        """Return the fleet as it is now: an attacker's recording, or a fork of it."""
        return copy.deepcopy(self)
