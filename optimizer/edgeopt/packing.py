"""Writing what a run made: a bundle on PASS, the report alone otherwise. All of it, or nothing.

What was measured (the reports with their times) lies beside the bundle, in the same directory, and is not listed in
its manifest: so the same inputs give the same digest (ADR 0015). Example::

    check_output(directory)                              # before the work: may it be replaced?
    write_run(directory, contents, beside)               # contents None: no bundle, only what stands beside it
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from edgeopt_contract.bundle import MANIFEST_NAME, Bundle, BundleContents, write_bundle
from edgeopt_contract.errors import UsageError
from edgeopt_contract.manifest import Role
from edgeopt_contract.storage import new_directory, storage_errors, write_durably

__all__ = [
    "GOLDEN",
    "PROFILE",
    "REPORT_HTML",
    "REPORT_JSON",
    "check_directory",
    "check_output",
    "with_evidence",
    "write_run",
]

GOLDEN = "golden.npz"
PROFILE = "profile.json"
REPORT_JSON = "report.json"
REPORT_HTML = "report.html"


def check_output(directory: Path) -> None:
    """Raise :class:`UsageError` when ``directory`` cannot be made, or holds what an earlier run did not write."""
    check_directory(directory, (REPORT_JSON, MANIFEST_NAME))


def check_directory(directory: Path, signs: Sequence[str]) -> None:
    """Raise :class:`UsageError` when ``directory`` cannot be made, or holds files and none of those named ``signs``."""
    there = next((path for path in (directory, *directory.parents) if path.exists()), Path())
    if not there.is_dir():
        raise UsageError(f"{there} is a file: give a directory with -o")
    within = there if there != directory else directory.parent  # the new one is made beside what it replaces
    if not os.access(within, os.W_OK | os.X_OK):
        raise UsageError(f"nothing can be written in {within}: give another directory with -o, or change its owner")
    ours = there != directory or any((directory / name).exists() for name in signs)
    if not ours and any(directory.iterdir()):
        raise UsageError(f"{directory} holds other files, and -o replaces the whole directory: give a new or empty one")


def with_evidence(contents: BundleContents, evidence: Mapping[str, bytes]) -> BundleContents:
    """Return ``contents`` with ``evidence``, files by name, as part of the bundle."""
    return replace(
        contents, files={**contents.files, **{name: (Role.EVIDENCE, data) for name, data in evidence.items()}}
    )


def write_run(directory: Path, contents: BundleContents | None, beside: Mapping[str, bytes]) -> Bundle | None:
    """Write ``directory``: the bundle, if there is one, and the files ``beside`` it, which its manifest does not list.

    Raises :class:`StorageError`; then ``directory`` is as it was.
    """
    if contents is not None:
        return write_bundle(directory, contents, beside)
    with new_directory(directory) as temporary, storage_errors(directory):
        for name, data in beside.items():
            write_durably(temporary / name, data)
    return None
