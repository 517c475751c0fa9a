"""Where a bundle comes from: code, data, settings, recipes and versions, for its manifest.

It asks git about the working directory and the installed packages for their versions. No time, host, user or absolute
path of its own is recorded (a path that the user gave stands as given), so the same inputs give the same lineage. The
CPU that built it is left out on purpose: where it changed the bytes the digests differ anyway, and where it did not two
machines should agree on the digest; ``report.json``, beside the bundle, names it (ADR 0015). Example::

    record(splits={"calibration": "ab12…"}, settings={"seed": 0})["git"]      # {"commit": "…", "dirty": False}
"""

from __future__ import annotations

import hashlib
import platform
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from edgeopt.data_version import data_version
from edgeopt.environment import lock_digest, versions_of
from edgeopt.loading import is_reference
from edgeopt.recipe import Recipe

__all__ = ["PURPOSES", "record"]

PURPOSES = ("data", "calibration", "selection", "certification")  # the keys of settings["data"] that name sources
_GIT_SECONDS = 10


def record(
    *,
    splits: Mapping[str, str],
    settings: Mapping[str, Any],
    recipes: Mapping[str, Recipe] | None = None,
) -> dict[str, Any]:
    """Return the lineage, made of what JSON can hold.

    ``splits`` are Merkle roots by split, ``settings`` everything that decides the result, seeds included: ``model`` and
    ``data`` in them say what the code and the data were. ``recipes`` are those of the variants by name.
    """
    sources = _sources(settings)
    named = [str(settings.get("model", "")), *sources.values()]
    versions = versions_of(name.partition(":")[0] for name in named if is_reference(name))
    found = {purpose: data_version(source) for purpose, source in sources.items()}
    lineage: dict[str, Any] = {
        "git": _git(),
        "data": dict(splits),
        "settings": dict(settings),
        "versions": {"python": platform.python_version(), **versions},
        "environment": lock_digest(versions),
    }
    if any(found.values()):
        lineage["data_versions"] = {purpose: version for purpose, version in found.items() if version}
    if recipes is not None:
        lineage["recipes"] = {name: _plain(recipe) for name, recipe in recipes.items()}
    return lineage


def _sources(settings: Mapping[str, Any]) -> dict[str, str]:
    given = settings.get("data")
    return {key: str(given[key]) for key in PURPOSES if key in given} if isinstance(given, Mapping) else {}


def _plain(recipe: Recipe) -> dict[str, Any]:
    return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(recipe).items()}


def _git() -> dict[str, Any] | None:
    """Return commit and dirty flag of the working directory; ``None`` outside a repository or without git.

    Dirty is a tracked file that was changed, or Python code that is not tracked; what else lies about (bundles, a
    tracking store) decides nothing. ``changes`` is a digest of both, so that two builds of the same changes are equal.
    """
    commit, top = _run_git("rev-parse", "HEAD"), _run_git("rev-parse", "--show-toplevel")
    changed = _run_git("diff", "--no-ext-diff", "--no-textconv", "--no-color", "--binary", "--full-index", "HEAD")
    new = _run_git("ls-files", "--others", "--exclude-standard", "--full-name", "-z", ":(top)*.py")
    if commit is None or top is None or changed is None or new is None:
        return None
    if not changed and not new:
        return {"commit": commit.decode().strip(), "dirty": False}
    sha = hashlib.sha256(changed)
    for name in sorted(filter(None, new.decode(errors="surrogateescape").split("\0"))):
        sha.update(b"\0" + name.encode(errors="surrogateescape") + b"\0")
        sha.update(_content(Path(top.decode().rstrip("\n")) / name))
    return {"commit": commit.decode().strip(), "dirty": True, "changes": sha.hexdigest()}


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""  # gone since git listed it, or a link to nowhere: its name counts


def _run_git(*arguments: str) -> bytes | None:
    git = shutil.which("git")
    if git is None:
        return None
    try:
        done = subprocess.run([git, *arguments], capture_output=True, timeout=_GIT_SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None
