"""Whether a bundle is whole and agrees with itself: its bytes with the manifest, its evidence with its files.

:func:`edgeopt_contract.bundle.open_bundle` checks bytes. What is checked on top: the evidence speaks of this very
bundle, and whatever the manifest promises (a variant certified for a target) the evidence proves. It changes nothing,
and does not judge anew. Example::

    inspect_bundle(Path("build/digits")).evidence      # {"raspberry-pi-4": "int8"}
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from edgeopt.handover import EVIDENCE, SCHEMA
from edgeopt_contract.bundle import CHECKSUM_NAME, MANIFEST_NAME, Bundle, check_file, open_bundle
from edgeopt_contract.errors import BundleError
from edgeopt_contract.manifest import Manifest, Role

__all__ = ["Inspection", "inspect_bundle"]

_PASS = "PASS"  # noqa: S105  # a verdict, not a password


@dataclass(frozen=True, slots=True)
class Inspection:
    """A bundle that is whole. ``evidence``: the variant that each target gets; ``None`` when there is no such file.

    ``beside`` names the files in the same directory that are not part of the bundle.
    """

    bundle: Bundle
    evidence: Mapping[str, str | None] | None
    beside: tuple[str, ...]

    def plain(self) -> dict[str, Any]:
        """Return it as what JSON can hold."""
        manifest = self.bundle.manifest
        return {
            "name": manifest.name,
            "version": manifest.version,
            "digest": self.bundle.digest,
            "files": [
                {"path": one.path, "role": one.role, "size": one.size, "sha256": one.sha256} for one in manifest.files
            ],
            "variants": [
                {"name": one.name, "file": one.file, "runtime": one.runtime, "certified_for": list(one.certified_for)}
                for one in manifest.variants
            ],
            "evidence": self.evidence,
            "beside": list(self.beside),
        }


def inspect_bundle(directory: Path) -> Inspection:
    """Check the bundle in ``directory``. Raises :class:`BundleError`, saying what does not agree with what."""
    bundle = open_bundle(directory)
    _check_manifest(bundle)
    listed = {MANIFEST_NAME, CHECKSUM_NAME, *(entry.path for entry in bundle.manifest.files)}
    beside = tuple(sorted(path.name for path in directory.iterdir() if path.name not in listed))
    evidence = _read_evidence(bundle)
    return Inspection(bundle, None if evidence is None else _agree(bundle.manifest, evidence), beside)


def _check_manifest(bundle: Bundle) -> None:
    """Raise :class:`BundleError` when the manifest is not the one that was written; a device's copy has no checksum."""
    path = bundle.directory / CHECKSUM_NAME
    try:
        said = path.read_text(encoding="ascii", errors="replace").partition(" ")[0]
    except FileNotFoundError:
        return
    except OSError as error:
        raise BundleError(f"{path} cannot be read ({error.strerror})") from error
    if said != bundle.digest:
        raise BundleError(
            f"{MANIFEST_NAME}: expected SHA-256 {said[:12]}… as {CHECKSUM_NAME} says, got {bundle.digest[:12]}…: one "
            "of them was changed or damaged; build or fetch the bundle again"
        )


def _read_evidence(bundle: Bundle) -> dict[str, Any] | None:
    entries = [entry for entry in bundle.manifest.files if entry.path == EVIDENCE and entry.role is Role.EVIDENCE]
    if not entries:
        return None
    try:
        evidence = msgspec.json.decode(check_file(bundle.path_of(entries[0]), entries[0]))
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise BundleError(f"{EVIDENCE} is not valid JSON: {error}; build the bundle again") from error
    schema = evidence.get("schema") if isinstance(evidence, dict) else None
    if schema != SCHEMA:
        raise BundleError(
            f"{EVIDENCE} has the schema {schema!r}, this edgeopt reads {SCHEMA}: use the newer of the two"
        )
    return evidence  # type: ignore[no-any-return]  # isinstance was asked above


def _agree(manifest: Manifest, evidence: dict[str, Any]) -> dict[str, str | None]:
    """Return what each target gets. Raises :class:`BundleError` when evidence and manifest do not agree."""
    try:
        _check_identity(manifest, evidence)
        targets = {target["target"]: target for target in evidence["targets"]}
        for variant in manifest.variants:
            for name in variant.certified_for:
                _check_certified(variant.name, name, targets)
        return {name: target["chosen"] for name, target in targets.items()}
    except (KeyError, TypeError, AttributeError) as error:
        raise BundleError(
            f"{EVIDENCE} lacks something that belongs there: {error!r}; build the bundle again"
        ) from error


def _check_identity(manifest: Manifest, evidence: dict[str, Any]) -> None:
    """Raise :class:`BundleError` unless the evidence speaks of these variants, of these data, and says PASS."""
    named = (evidence["name"], evidence["version"])
    if named != (manifest.name, manifest.version):
        raise BundleError(
            f"{EVIDENCE} is that of {' '.join(map(str, named))}, the bundle is {manifest.name} {manifest.version}"
        )
    if evidence["verdict"] != _PASS:
        raise BundleError(f"{EVIDENCE} says {evidence['verdict']}: expected PASS, since there is a bundle")
    files = {entry.path: entry.sha256 for entry in manifest.files if entry.role is Role.VARIANT}
    for path in sorted({*files, *evidence["variants"]}):
        have, judged = files.get(path, "no file"), evidence["variants"].get(path, "none")
        if have != judged:
            raise BundleError(
                f"{path}: {EVIDENCE} judged {judged[:12]}…, the bundle has {have[:12]}…: what was certified is not "
                "what is shipped"
            )
    for split, root in manifest.lineage.get("data", {}).items():
        if split in evidence["splits"] and evidence["splits"][split]["hash"] != root:
            raise BundleError(f"{EVIDENCE} and the manifest's lineage name different data for the split {split}")


def _check_certified(variant: str, target: str, targets: Mapping[str, dict[str, Any]]) -> None:
    """Raise :class:`BundleError` unless the evidence has a PASS of ``variant`` on ``target``."""
    found = targets.get(target)
    if found is None:
        raise BundleError(f"{variant} is said to be certified for {target}, of which {EVIDENCE} says nothing")
    verdicts = {one["name"]: one["verdict"] for one in found["variants"]}
    if verdicts.get(variant) != _PASS:
        raise BundleError(
            f"{variant} is said to be certified for {target}, but {EVIDENCE} says {verdicts.get(variant, 'nothing')}"
        )
