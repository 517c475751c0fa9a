"""Which version of versioned data was read: DVC's or Delta Lake's, if the data stand under either.

It reads the small files that these tools leave beside the data, and needs neither tool: ``<data>.dvc`` or
``dvc.lock`` (https://dvc.org/doc/user-guide/project-structure), and the names in ``_delta_log``
(https://github.com/delta-io/delta/blob/master/PROTOCOL.md). It does not check whether the data were changed since: what
was really read is told by the Merkle roots of the splits. Example::

    data_version("pictures")        # {"tool": "dvc", "hash": "md5", "version": "1f3a….dir"}
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from edgeopt_contract.errors import DataError, MissingExtraError

__all__ = ["data_version"]

_COMMIT = re.compile(r"(\d{20})\.(?:json|checkpoint(?:\..+)?\.parquet)")
_HASHES = ("md5", "etag", "checksum")


def data_version(source: str) -> dict[str, Any] | None:
    """Return the version of the file or folder ``source``; ``None`` when it has none, or is no path.

    A file inside a folder that is versioned as a whole has the folder's version. Raises :class:`DataError` when the
    tool's file cannot be read, :class:`MissingExtraError` when reading it needs PyYAML.
    """
    path = Path(source)
    if not path.exists():
        return None
    return _delta(path) or _dvc(path)


def _delta(path: Path) -> dict[str, Any] | None:
    """Return the last version in the log of the table that ``path`` is, or lies in."""
    for folder in (path, *path.parents):
        log = folder / "_delta_log"
        if log.is_dir():
            numbers = [int(match[1]) for entry in log.iterdir() if (match := _COMMIT.fullmatch(entry.name))]
            return {"tool": "delta", "version": max(numbers)} if numbers else None
    return None


def _dvc(path: Path) -> dict[str, Any] | None:
    """Return the version of the nearest of ``path`` and its folders that a ``.dvc`` file or ``dvc.lock`` names."""
    for tracked in (path, *path.parents):
        if not tracked.name:
            continue  # "." and "/" have no name beside which a file could stand
        for file, base in _dvc_files(tracked):
            for out in _outs(_yaml(file)):
                if (base / str(out.get("path", ""))).resolve() == tracked.resolve():
                    kind = next((name for name in _HASHES if name in out), None)
                    return None if kind is None else {"tool": "dvc", "hash": kind, "version": str(out[kind])}
    return None


def _dvc_files(tracked: Path) -> Iterator[tuple[Path, Path]]:
    """Yield the files that may name ``tracked``, each with the folder that its paths start from."""
    beside = tracked.with_name(f"{tracked.name}.dvc")
    if beside.is_file():
        yield beside, beside.parent
    for folder in tracked.parents:
        lock = folder / "dvc.lock"
        if lock.is_file():
            yield lock, folder


def _outs(content: Any) -> Iterator[Mapping[str, Any]]:
    """Yield the outputs that a ``.dvc`` file lists, or those of all stages of a ``dvc.lock``."""
    if not isinstance(content, dict):
        return
    stages = content.get("stages")
    parts = [content, *(stages.values() if isinstance(stages, dict) else ())]
    for part in parts:
        outs = part.get("outs") if isinstance(part, dict) else None
        yield from (out for out in outs or () if isinstance(out, dict))


def _yaml(path: Path) -> Any:
    try:
        import yaml
    except ModuleNotFoundError as error:
        raise MissingExtraError("yaml", "optimizer") from error
    try:
        return yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise DataError(f"cannot read {path}, which says the version of the data: {error}") from error
