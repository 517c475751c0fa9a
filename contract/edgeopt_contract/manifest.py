"""The manifest of a bundle: what it holds, what each variant needs, and how to check it.

A bundle's identity (its *digest*) is the SHA-256 of the manifest's bytes, so the manifest pins every file.
Pure: reading and writing directories is in :mod:`edgeopt_contract.bundle`. Example::

    manifest = decode(Manifest, data)
    variant = manifest.variant_for(capabilities)     # the first that this device can run
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, ClassVar

from edgeopt_contract.blocks import Block
from edgeopt_contract.errors import BundleError
from edgeopt_contract.values import check_digest, check_relative_path

__all__ = ["MANIFEST_NAME", "Capabilities", "FileEntry", "Manifest", "Role", "TensorSpec", "Variant"]

MANIFEST_NAME = "manifest.json"


class Role(StrEnum):
    """What a file of the bundle is for; a device fetches GOLDEN, PROFILE and the one VARIANT it runs."""

    VARIANT = "variant"
    GOLDEN = "golden"
    PROFILE = "profile"
    EVIDENCE = "evidence"


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorSpec:
    """One input or output: ``dtype`` is NumPy's name, ``shape`` excludes the batch dimension."""

    name: str
    dtype: str
    shape: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class FileEntry:
    """One file: its length in bytes, SHA-256, and blocks in order."""

    path: str
    role: Role
    size: int
    sha256: str
    blocks: tuple[Block, ...]

    def __post_init__(self) -> None:
        check_relative_path(self.path)
        check_digest(self.sha256)
        if sum(block.size for block in self.blocks) != self.size:
            raise ValueError(f"the blocks of {self.path} do not add up to its size of {self.size} bytes")


@dataclass(frozen=True, slots=True, kw_only=True)
class Capabilities:
    """What a device can run, as it says in its birth message.

    ``runtimes`` maps a runtime's name (``onnxruntime``, ``litert``, ``openvino``) to its version.
    """

    arch: str
    features: tuple[str, ...]
    runtimes: dict[str, str]
    cores: int
    memory_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Variant:
    """One form of the model and what a device must have to run it.

    Empty ``arch`` means any. ``certified_for`` names the targets on which the accuracy gate passed.
    ``tolerance`` is the greatest mean absolute difference from the host's golden outputs that the device's
    self-test accepts, in units of the standard deviation of those outputs.
    """

    name: str
    file: str
    runtime: str
    minimum_runtime: str
    arch: tuple[str, ...]
    features: tuple[str, ...]
    certified_for: tuple[str, ...]
    tolerance: float

    def __post_init__(self) -> None:
        if not self.tolerance >= 0:  # NaN too
            raise ValueError(f"{self.name}: expected a tolerance of zero or more, got {self.tolerance}")

    def missing_from(self, device: Capabilities) -> str | None:
        """Return what ``device`` lacks to run this variant, in words; ``None`` when it can run it."""
        if self.arch and device.arch not in self.arch:
            return f"needs {' or '.join(self.arch)}, the device is {device.arch}"
        lacking = sorted(set(self.features) - set(device.features))
        if lacking:
            return f"needs the CPU features {', '.join(lacking)}"
        version = device.runtimes.get(self.runtime)
        if version is None:
            return f"needs the runtime {self.runtime}"
        if _version_key(version) < _version_key(self.minimum_runtime):
            return f"needs {self.runtime} {self.minimum_runtime} or newer, the device has {version}"
        return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """What ``manifest.json`` holds. ``variants`` are in order of preference."""

    SCHEMA: ClassVar[int] = 1
    MAX_BYTES: ClassVar[int] = 1024 * 1024

    name: str
    version: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    labels: tuple[str, ...]
    variants: tuple[Variant, ...]
    files: tuple[FileEntry, ...]
    lineage: dict[str, Any]
    extra: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        paths = [entry.path for entry in self.files]
        if len(set(paths)) != len(paths):
            raise ValueError("a file stands twice in the manifest")
        if MANIFEST_NAME in paths:
            raise ValueError(f"{MANIFEST_NAME} cannot list itself")
        if not self.variants:
            raise ValueError("expected at least one variant")
        for variant in self.variants:
            if variant.file not in paths:
                raise ValueError(f"variant {variant.name} names the file {variant.file}, which is not listed")
        for role in (Role.GOLDEN, Role.PROFILE):
            if sum(entry.role is role for entry in self.files) != 1:
                raise ValueError(f"expected exactly one file with the role '{role}'")

    def file_with(self, role: Role) -> FileEntry:
        """Return the one file with ``role`` (GOLDEN or PROFILE)."""
        return next(entry for entry in self.files if entry.role is role)

    def variant_for(self, device: Capabilities) -> Variant:
        """Return the first variant that ``device`` can run. Raises :class:`BundleError` saying what it lacks."""
        reasons = []
        for variant in self.variants:
            missing = variant.missing_from(device)
            if missing is None:
                return variant
            reasons.append(f"{variant.name} {missing}")
        raise BundleError(f"no variant of {self.name} {self.version} runs here: " + "; ".join(reasons))

    def files_for(self, variant: Variant) -> tuple[FileEntry, ...]:
        """Return what a device that runs ``variant`` must fetch."""
        return tuple(
            entry for entry in self.files if entry.role in (Role.GOLDEN, Role.PROFILE) or entry.path == variant.file
        )


def _version_key(version: str) -> tuple[int, ...]:
    """Order dotted versions by their leading numbers: '1.31.1' > '1.9'."""
    numbers = []
    for part in version.split("."):
        digits = part[: len(part) - len(part.lstrip("0123456789"))]
        if not digits:
            break
        numbers.append(int(digits))
    return tuple(numbers)
