"""python-tuf's client over metadata that came in one message instead of from a web server.

It works in a directory of its own that is emptied before and after: what is kept is :mod:`edgeopt_agent.trust.state`.
Only top-level roles exist; delegations are not followed. Imported by the trust child only. Example::

    with Client(work, state.files, offered, now) as client:
        client.refresh()                              # raises tuf's RepositoryError, DownloadError
        client.target(digest)                         # BundleTarget, or None
"""

from __future__ import annotations

import contextlib
import datetime as dt
import json
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Self

import msgspec
from tuf.api.exceptions import DownloadHTTPError
from tuf.ngclient.config import UpdaterConfig
from tuf.ngclient.fetcher import FetcherInterface
from tuf.ngclient.updater import Updater

from edgeopt_contract.errors import MessageError, SignatureError
from edgeopt_contract.tuf import MAX_ROOT_BYTES, MAX_ROOTS, SIGNED_AT, BundleTarget, TufMetadata, target_path

__all__ = ["Client", "offered_files"]

_BASE = "edgeopt:///"
_ROOT, _TIMESTAMP = "root.json", "timestamp.json"
_FILES = (_ROOT, _TIMESTAMP, "snapshot.json", "targets.json")
_CONFIG = UpdaterConfig(
    max_root_rotations=MAX_ROOTS,
    max_delegations=0,
    root_max_length=MAX_ROOT_BYTES,
    timestamp_max_length=16 * 1024,
    snapshot_max_length=16 * 1024,
    targets_max_length=TufMetadata.MAX_BYTES,
)


class _Version(msgspec.Struct):
    version: int


class _Versioned(msgspec.Struct):
    signed: _Version


class _Offered(FetcherInterface):
    """Answers python-tuf's requests from a mapping of file names."""

    def __init__(self, files: Mapping[str, bytes]) -> None:
        self._files = files

    def _fetch(self, url: str) -> Iterator[bytes]:
        name = url.removeprefix(_BASE)
        if not name.endswith(_ROOT):
            name = name.lstrip("0123456789").removeprefix(".")  # there is one of each: the client compares the version
        if name not in self._files:
            raise DownloadHTTPError(f"{name} did not come", 404)
        return iter([self._files[name]])


def offered_files(metadata: TufMetadata) -> dict[str, bytes]:
    """Return the files of a message by the names under which TUF asks for them. Raises :class:`MessageError`."""
    files = {
        _TIMESTAMP: metadata.timestamp.encode(),
        "snapshot.json": metadata.snapshot.encode(),
        "targets.json": metadata.targets.encode(),
    }
    for text in metadata.roots:
        data = text.encode()
        try:
            version = msgspec.json.decode(data, type=_Versioned).signed.version
        except (msgspec.MsgspecError, RecursionError) as error:
            raise MessageError(f"a root in the fleet's metadata is not one: {error}") from error
        files[f"{version}.{_ROOT}"] = data
    return files


class Client:
    """One update of the metadata, with the time fixed at its start (TUF specification, 5.2)."""

    def __init__(self, work: Path, trusted: Mapping[str, str], offered: Mapping[str, bytes], now: float) -> None:
        self._work = work
        _empty(work)
        work.mkdir(mode=0o700)
        for name in _FILES:
            if name in trusted and name != _ROOT:
                (work / name).write_text(trusted[name], encoding="utf-8")
        self._updater = Updater(
            str(work), _BASE, fetcher=_Offered(offered), config=_CONFIG, bootstrap=trusted[_ROOT].encode()
        )
        reference = dt.datetime.fromtimestamp(now, dt.UTC)
        self._updater._trusted_set.reference_time = reference  # noqa: SLF001  # python-tuf takes no time as an argument

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        shutil.rmtree(self._work, ignore_errors=True)  # what cannot be removed is litter, and removed the next time

    def refresh(self) -> None:
        """Verify what is offered against what is trusted. Raises tuf's ``RepositoryError`` or ``DownloadError``."""
        self._updater.refresh()

    def target(self, digest: str) -> BundleTarget | None:
        """Return what the verified targets say about a bundle. Raises :class:`SignatureError` if it is none."""
        found = self._updater.get_targetinfo(target_path(digest))
        if found is None:
            return None
        if found.hashes.get("sha256") != digest:
            raise SignatureError(f"bundle {digest[:12]}: its name and its signed SHA-256 differ; sign it again")
        return BundleTarget.from_custom(digest, found.length, found.custom)

    def files(self) -> dict[str, str]:
        """Return everything that is verified by now, also after a refresh that failed half-way."""
        kept = {}
        for name in _FILES:
            with contextlib.suppress(FileNotFoundError):
                kept[name] = (self._work / name).read_text(encoding="utf-8")
        return kept

    def timestamp_keys(self) -> tuple[str, ...]:
        """Return the ids of the keys that the newest trusted root names for the timestamp."""
        return tuple(sorted(self._signed(_ROOT)["roles"]["timestamp"]["keyids"]))

    def stated_time(self) -> float:
        """Return the latest time that verified metadata state; call after a refresh that succeeded.

        The timestamp's statement is bounded by the expiry of the root, which offline keys sign.
        """
        root, timestamp = self._signed(_ROOT), self._signed(_TIMESTAMP)
        expires = dt.datetime.strptime(root["expires"], "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=dt.UTC)
        return max(_seconds(root), min(_seconds(timestamp), expires.timestamp()))

    def _signed(self, name: str) -> dict[str, Any]:
        signed: dict[str, Any] = json.loads((self._work / name).read_bytes())["signed"]
        return signed


def _seconds(signed: Mapping[str, Any]) -> float:
    value = signed.get(SIGNED_AT)
    return float(value) if isinstance(value, int) and not isinstance(value, bool) else 0.0


def _empty(work: Path) -> None:
    if work.exists():
        shutil.rmtree(work)
