"""What is to be signed, and what it means in words. Pure: texts and times come in.

What is *new* is said from the point of view of one key: against what that key signed last, not against what the server
says is in force. So a server that slips something in cannot hide it from any of those who sign. Example::

    desk = Desk(root=…, targets=…, root_draft=None, targets_draft=None)
    draft = draft_targets(desk, Additions(bundles=[facts]), now)
    for line in explain(draft, seen): print(line)
"""

from __future__ import annotations

import copy
import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tuf.api.exceptions import RepositoryError
from tuf.api.metadata import Metadata, Root, TargetFile, Targets

from edgeopt_contract.errors import MessageError, SignatureError, UsageError
from edgeopt_contract.tuf import BundleTarget

__all__ = ["Additions", "Desk", "Facts", "Seen", "draft_targets", "explain", "names_key", "read_metadata", "seen_after"]

_TARGETS_VALID = dt.timedelta(days=365)


@dataclass(frozen=True, slots=True, kw_only=True)
class Desk:
    """What the fleet has to sign: the metadata in force, and drafts that wait, as texts."""

    root: str
    targets: str
    root_draft: str | None = None
    targets_draft: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """A bundle as it lies on this machine; ``length`` is that of manifest.json in bytes."""

    digest: str
    length: int
    name: str
    version: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Additions:
    """What to change in the targets.

    ``rollback`` are digests, or unique beginnings of them, to which a device that runs the new bundles may go back;
    None means: the bundle of the same name that was signed last.
    """

    bundles: tuple[Facts, ...] = ()
    rollback: tuple[str, ...] | None = None
    retire: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What one key has signed last: versions by role, and what it said about each bundle and role."""

    versions: dict[str, int] = field(default_factory=dict)
    bundles: dict[str, Any] = field(default_factory=dict)
    roles: dict[str, Any] = field(default_factory=dict)


def read_metadata(text: str) -> Metadata[Any]:
    """Read root or targets metadata. Raises :class:`MessageError`."""
    try:
        metadata: Metadata[Any] = Metadata.from_bytes(text.encode())
    except (RepositoryError, ValueError) as error:
        raise MessageError(f"expected TUF metadata, got something else: {error}") from error
    if not isinstance(metadata.signed, Root | Targets):
        raise MessageError(f"only root and targets are signed here, got {metadata.signed.type}")
    return metadata


def draft_targets(desk: Desk, additions: Additions, now: float) -> Metadata[Targets]:
    """Return the next targets, unsigned: those that wait for signatures, or those in force, with ``additions``.

    Raises :class:`UsageError` for a digest that is not there.
    """
    current = read_metadata(desk.targets)
    waiting = read_metadata(desk.targets_draft) if desk.targets_draft else current
    signed: Targets = copy.deepcopy(waiting.signed)
    signed.version = current.signed.version + 1
    signed.expires = dt.datetime.fromtimestamp(int(now), dt.UTC) + _TARGETS_VALID
    bundles = _bundles(signed)
    for beginning in additions.retire:
        del signed.targets[bundles.pop(_one(beginning, bundles)).path]
    for facts in additions.bundles:
        target = _target(facts, bundles, additions.rollback)
        bundles[target.digest] = target
        signed.targets[target.path] = TargetFile(
            target.length, {"sha256": target.digest}, target.path, {"custom": target.custom}
        )
    return Metadata(signed)


def explain(metadata: Metadata[Any], seen: Seen) -> list[str]:
    """Say what a signature under ``metadata`` would mean, one line each; ``seen`` is what the key signed before.

    Raises :class:`UsageError` for metadata that are older than what the key has signed.
    """
    signed = metadata.signed
    if signed.version < seen.versions.get(signed.type, 0):
        raise UsageError(
            f"this key has signed version {seen.versions[signed.type]} of {signed.type} already and is asked for "
            f"{signed.version}: the fleet server shows old metadata; do not sign"
        )
    lines = [f"{signed.type}, version {signed.version}, valid until {signed.expires:%Y-%m-%d}"]
    return lines + (_explain_root(signed, seen) if isinstance(signed, Root) else _explain_targets(signed, seen))


def names_key(root: Metadata[Root], role: str, keyid: str) -> bool:
    """Say whether ``root`` lets the key ``keyid`` sign for ``role``."""
    return keyid in root.signed.roles[role].keyids


def seen_after(metadata: Metadata[Any], seen: Seen) -> Seen:
    """Return what the key has seen once it has signed ``metadata``."""
    signed = metadata.signed
    versions = {**seen.versions, signed.type: signed.version}
    if isinstance(signed, Root):
        return Seen(versions=versions, bundles=seen.bundles, roles=_roles(signed))
    bundles = {digest: {"length": target.length, **target.custom} for digest, target in _bundles(signed).items()}
    return Seen(versions=versions, bundles=bundles, roles=seen.roles)


def _explain_targets(signed: Targets, seen: Seen) -> list[str]:
    lines, bundles = [], _bundles(signed)
    for digest, target in sorted(bundles.items(), key=lambda item: item[1].counter):
        what = {"length": target.length, **target.custom}
        mark = "  " if seen.bundles.get(digest) == what else "~ " if digest in seen.bundles else "+ "
        back = ", ".join(older[:12] for older in target.rollback) or "nothing older"
        lines.append(f"{mark}{target.name} {target.version}  {digest}  number {target.counter}, may go back to: {back}")
    lines += [
        f"- {old['name']} {old['version']}  {digest}" for digest, old in seen.bundles.items() if digest not in bundles
    ]
    return lines


def _explain_root(signed: Root, seen: Seen) -> list[str]:
    lines = []
    for role, known in _roles(signed).items():
        before = seen.roles.get(role, {"threshold": 0, "keyids": []})
        lines.append(f"{'  ' if known == before else '~ '}{role}: {known['threshold']} of {len(known['keyids'])} keys")
        lines += [f"  {'  ' if key in before['keyids'] else '+ '}{key}" for key in known["keyids"]]
        lines += [f"  - {key}" for key in before["keyids"] if key not in known["keyids"]]
    return lines


def _roles(signed: Root) -> dict[str, Any]:
    return {name: {"threshold": role.threshold, "keyids": list(role.keyids)} for name, role in signed.roles.items()}


def _bundles(signed: Targets) -> dict[str, BundleTarget]:
    if signed.delegations is not None:
        raise MessageError("expected targets without delegations: devices do not follow them; do not sign")
    bundles = {}
    for path, target in signed.targets.items():
        digest = target.hashes.get("sha256", "")
        try:
            bundles[digest] = BundleTarget.from_custom(digest, target.length, target.custom)
        except (SignatureError, ValueError) as error:
            raise MessageError(f"{path[:120]}: {error}; do not sign") from error
        if path != bundles[digest].path:
            raise MessageError(f"expected a target named after its digest, got {path[:120]!r}; do not sign")
    return bundles


def _target(facts: Facts, bundles: Mapping[str, BundleTarget], rollback: tuple[str, ...] | None) -> BundleTarget:
    known = bundles.get(facts.digest)
    counter = known.counter if known else max((bundle.counter for bundle in bundles.values()), default=0) + 1
    if rollback is None:
        same = [one for one in bundles.values() if one.name == facts.name and one.counter < counter]
        allowed = tuple(one.digest for one in sorted(same, key=lambda one: one.counter)[-1:])
    else:
        allowed = tuple(_one(beginning, bundles) for beginning in rollback)
    return BundleTarget(
        digest=facts.digest,
        length=facts.length,
        name=facts.name,
        version=facts.version,
        counter=counter,
        rollback=allowed,
    )


def _one(beginning: str, bundles: Mapping[str, BundleTarget]) -> str:
    found = [digest for digest in bundles if digest.startswith(beginning)]
    if len(found) != 1 or len(beginning) < 4:
        raise UsageError(
            f"expected the beginning of one signed bundle's digest, got {beginning[:80]!r}; see: edgeopt bundles"
        )
    return found[0]
