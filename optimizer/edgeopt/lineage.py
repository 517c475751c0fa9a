"""Where a bundle comes from: code, data, settings and versions, for its manifest.

It asks git about the working directory and the installed packages for their versions; no time, host or path is
recorded, so the same inputs give the same lineage. Example::

    record(splits={"calibration": "ab12…"}, settings={"seed": 0})["git"]      # {"commit": "…", "dirty": False}
"""

from __future__ import annotations

import platform
import shutil
import subprocess
from collections.abc import Mapping
from importlib import metadata
from typing import Any

__all__ = ["record"]

_PACKAGES = ("edgeopt", "numpy", "onnx", "onnxruntime", "onnxsim", "torch")
_GIT_SECONDS = 10


def record(*, splits: Mapping[str, str], settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the lineage: ``splits`` are Merkle roots by split, ``settings`` everything that decides the result."""
    return {
        "git": _git(),
        "data": dict(splits),
        "settings": dict(settings),
        "versions": {"python": platform.python_version(), **_versions()},
    }


def _versions() -> dict[str, str]:
    versions = {}
    for package in _PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue  # an ONNX file needs no torch
    return versions


def _git() -> dict[str, Any] | None:
    """Return commit and dirty flag of the working directory; ``None`` outside a repository or without git."""
    commit = _run_git("rev-parse", "HEAD")
    status = _run_git("status", "--porcelain")
    return None if commit is None or status is None else {"commit": commit.strip(), "dirty": bool(status.strip())}


def _run_git(*arguments: str) -> str | None:
    git = shutil.which("git")
    if git is None:
        return None
    try:
        done = subprocess.run([git, *arguments], capture_output=True, text=True, timeout=_GIT_SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None
