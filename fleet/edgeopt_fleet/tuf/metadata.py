"""TUF metadata as values: made, moved on by one version, signed, and checked against the roles above them.

Times come in as seconds since 1970; nothing is read or written. The formats are those of the TUF specification 1.0,
through python-tuf's metadata API. Example::

    root = first_root({"root": [key], "targets": [key], "snapshot": [key], "timestamp": [key]}, now)
    targets = sign(next_targets(None, now), signers)
    is_signed(root, "targets", targets)             # True once the threshold is reached
"""

from __future__ import annotations

import copy
import datetime as dt
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from securesystemslib.signer import Key, Signer
from tuf.api.exceptions import RepositoryError
from tuf.api.metadata import Metadata, MetaFile, Root, Snapshot, TargetFile, Targets, Timestamp
from tuf.api.serialization.json import JSONSerializer

from edgeopt_contract.errors import ContractError, MessageError
from edgeopt_contract.manifest import MANIFEST_NAME
from edgeopt_contract.tuf import SIGNED_AT, BundleTarget

__all__ = [
    "DEFAULT_VALIDITY",
    "OFFLINE_ROLES",
    "ONLINE_ROLES",
    "ROLES",
    "Change",
    "Validity",
    "bundles_of",
    "first_root",
    "is_signed",
    "next_root",
    "next_snapshot",
    "next_targets",
    "next_timestamp",
    "parse",
    "render",
    "sign",
    "signatures",
]

OFFLINE_ROLES = (Root.type, Targets.type)
ONLINE_ROLES = (Snapshot.type, Timestamp.type)
ROLES = (*OFFLINE_ROLES, *ONLINE_ROLES)
_DAY = 86400.0
T = TypeVar("T", Root, Targets, Snapshot, Timestamp)


@dataclass(frozen=True, slots=True, kw_only=True)
class Validity:
    """For how many seconds metadata of each role are valid."""

    root: float = 365 * _DAY
    targets: float = 365 * _DAY
    snapshot: float = 30 * _DAY
    timestamp: float = 7 * _DAY


DEFAULT_VALIDITY = Validity()


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """Which keys a new root adds to ``role`` and which it removes; ``threshold`` None leaves it as it is."""

    role: str
    add: tuple[Key, ...] = ()
    remove: tuple[str, ...] = ()
    threshold: int | None = None


def parse(kind: type[T], data: bytes | str) -> Metadata[T]:
    """Read metadata of one role. Raises :class:`MessageError`."""
    try:
        metadata = Metadata[T].from_bytes(data.encode() if isinstance(data, str) else data)
    except (RepositoryError, ValueError) as error:
        raise MessageError(f"expected TUF metadata of the role {kind.type}: {error}") from error
    if not isinstance(metadata.signed, kind):
        raise MessageError(f"expected TUF metadata of the role {kind.type}, got {metadata.signed.type}")
    return metadata


def render(metadata: Metadata[T]) -> bytes:
    """Return the bytes of ``metadata`` as they are published."""
    return bytes(metadata.to_bytes(JSONSerializer(compact=True)))


def first_root(keys: Mapping[str, Sequence[Key]], now: float, validity: Validity = DEFAULT_VALIDITY) -> Metadata[Root]:
    """Return the root that a fleet begins with: one signature is enough for each role. It is not signed yet."""
    root = Root(version=1, expires=_date(now + validity.root), consistent_snapshot=True)
    for role in ROLES:
        for key in keys[role]:
            root.add_key(key, role)
    root.unrecognized_fields[SIGNED_AT] = int(now)
    return Metadata(root)


def next_root(
    current: Metadata[Root], changes: Iterable[Change], now: float, validity: Validity = DEFAULT_VALIDITY
) -> Metadata[Root]:
    """Return the next root with ``changes``, not signed yet. Raises :class:`MessageError` for what cannot be."""
    metadata = _next(current, now + validity.root)
    root = metadata.signed
    for change in changes:
        for keyid in change.remove:
            if keyid not in root.roles[change.role].keyids:
                raise MessageError(f"the role {change.role} has no key {keyid[:12]}; see: edgeopt-fleet keys list")
            root.revoke_key(keyid, change.role)
        for key in change.add:
            root.add_key(key, change.role)
        role = root.roles[change.role]
        role.threshold = change.threshold or role.threshold
        if not 1 <= role.threshold <= len(role.keyids):
            raise MessageError(
                f"the role {change.role} would need {role.threshold} of {len(role.keyids)} keys; "
                "add keys or give a lower --threshold"
            )
    root.unrecognized_fields[SIGNED_AT] = int(now)
    return metadata


def next_targets(
    current: Metadata[Targets] | None,
    now: float,
    *,
    add: Iterable[BundleTarget] = (),
    retire: Iterable[str] = (),
    validity: Validity = DEFAULT_VALIDITY,
) -> Metadata[Targets]:
    """Return the next targets with bundles added and others retired (by path), not signed yet."""
    expires = now + validity.targets
    metadata = Metadata(Targets(version=1, expires=_date(expires))) if current is None else _next(current, expires)
    targets = metadata.signed.targets
    for path in retire:
        targets.pop(path, None)
    for bundle in add:
        targets[bundle.path] = TargetFile(
            bundle.length, {"sha256": bundle.digest}, bundle.path, {"custom": bundle.custom}
        )
    return metadata


def next_snapshot(
    current: Metadata[Snapshot] | None, targets: Metadata[Targets], now: float, validity: Validity = DEFAULT_VALIDITY
) -> Metadata[Snapshot]:
    """Return the next snapshot, which pins ``targets`` by version, length and hash; not signed yet."""
    expires = now + validity.snapshot
    metadata = Metadata(Snapshot(version=1, expires=_date(expires))) if current is None else _next(current, expires)
    metadata.signed.meta = {"targets.json": _pin(targets)}
    return metadata


def next_timestamp(
    current: Metadata[Timestamp] | None, snapshot: Metadata[Snapshot], now: float, validity: Validity = DEFAULT_VALIDITY
) -> Metadata[Timestamp]:
    """Return the next timestamp, which pins ``snapshot`` and states the time; not signed yet."""
    expires = now + validity.timestamp
    metadata = Metadata(Timestamp(version=1, expires=_date(expires))) if current is None else _next(current, expires)
    metadata.signed.snapshot_meta = _pin(snapshot)
    metadata.signed.unrecognized_fields[SIGNED_AT] = int(now)
    return metadata


def sign(metadata: Metadata[T], signers: Iterable[Signer]) -> Metadata[T]:
    """Add the signatures of ``signers`` to ``metadata`` and return it."""
    for signer in signers:
        metadata.sign(signer, append=True)
    return metadata


def signatures(root: Metadata[Root], role: str, metadata: Metadata[T]) -> tuple[int, int]:
    """Return how many keys that ``root`` names for ``role`` have signed ``metadata``, and how many must."""
    result = root.signed.get_verification_result(role, metadata.signed_bytes, metadata.signatures)
    return len(result.signed), result.threshold


def is_signed(root: Metadata[Root], role: str, metadata: Metadata[T]) -> bool:
    """Say whether ``metadata`` carries enough signatures by the keys that ``root`` names for ``role``."""
    signed, threshold = signatures(root, role, metadata)
    return signed >= threshold


def bundles_of(targets: Metadata[Targets]) -> dict[str, BundleTarget]:
    """Return the bundles that ``targets`` list, by digest. Raises :class:`MessageError` for anything else in them."""
    if targets.signed.delegations is not None:
        raise MessageError("expected targets without delegations: devices do not follow them")
    bundles = {}
    for path, target in targets.signed.targets.items():
        digest = target.hashes.get("sha256", "")
        try:
            bundle = BundleTarget.from_custom(digest, target.length, target.custom)
        except (ContractError, ValueError) as error:
            raise MessageError(f"{path[:120]}: {error}") from error
        if path != bundle.path:
            raise MessageError(f"expected a target bundles/<digest>/{MANIFEST_NAME}, got {path[:120]!r}")
        bundles[digest] = bundle
    return bundles


def _next(current: Metadata[T], expires: float) -> Metadata[T]:
    signed = copy.deepcopy(current.signed)
    signed.version += 1
    signed.expires = _date(expires)
    return Metadata(signed)


def _pin(metadata: Metadata[T]) -> MetaFile:
    return MetaFile.from_data(metadata.signed.version, render(metadata), ["sha256"])


def _date(seconds: float) -> dt.datetime:
    return dt.datetime.fromtimestamp(int(seconds), dt.UTC)
