"""Bundles and their blocks: manifests in the database, blocks where :mod:`edgeopt_fleet.store.blocks` keeps them.

A bundle can be rolled out once every block of it is here, every file adds up, and the targets keys have signed it: in
a fleet for trying out the server does so at once. Example::

    posted = bundles.post(manifest_bytes, now)
    for sha256 in posted.missing:
        bundles.put_block(sha256, read(sha256))
    bundles.post(manifest_bytes, now).missing        # ()
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlmodel import Session, and_, col, not_, or_, select

from edgeopt_contract.blocks import MAX_BLOCK_BYTES
from edgeopt_contract.codec import decode
from edgeopt_contract.errors import MessageError
from edgeopt_contract.manifest import FileEntry, Manifest, Role
from edgeopt_contract.profile import ReferenceProfile
from edgeopt_contract.values import check_digest, digest_of
from edgeopt_fleet.problems import ConflictError, InvalidError, NotFoundError, TooLargeError
from edgeopt_fleet.store.audit import Change, append
from edgeopt_fleet.store.blocks import blocks_of
from edgeopt_fleet.store.bundle_facts import BundleFacts, facts_of
from edgeopt_fleet.store.database import Database
from edgeopt_fleet.store.tables import BundleRow
from edgeopt_fleet.tuf.repository import Repository

__all__ = ["BundleFilter", "Bundles", "Delivery", "PostedBundle", "find_bundle"]


@dataclass(frozen=True, slots=True, kw_only=True)
class PostedBundle:
    """A bundle that was posted, and which of its blocks are not here yet."""

    digest: str
    name: str
    version: str
    missing: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """What a device needs to fetch a bundle: the exact manifest and the hashes of the blocks."""

    manifest: bytes
    blocks: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class BundleFilter:
    """Which bundles are meant; None does not matter. ``complete``: all blocks are here, and it is signed."""

    name: str | None = None
    version: str | None = None
    complete: bool | None = None


class Bundles:
    """Takes bundles in and hands them out."""

    def __init__(self, database: Database, directory: Path, repository: Repository) -> None:
        self._database = database
        self._blocks = blocks_of(database, directory)
        self._repository = repository

    def put_block(self, sha256: str, data: bytes) -> None:
        """Keep one block durably. Raises :class:`InvalidError` when ``data`` is not what its hash says."""
        _check_digest(sha256)
        if not data:
            raise InvalidError("expected the bytes of a block, got none")
        if len(data) > MAX_BLOCK_BYTES:
            raise TooLargeError(f"expected a block of at most {MAX_BLOCK_BYTES} bytes, got {len(data)}")
        if digest_of(data) != sha256:
            raise InvalidError(f"expected a block with the SHA-256 {sha256}, got one with {digest_of(data)}")
        self._blocks.put(sha256, data)

    def block(self, sha256: str) -> bytes:
        """Return one block. Raises :class:`StorageError` when it is not here."""
        return self._blocks.get(_check_digest(sha256))

    def post(self, manifest_bytes: bytes, now: float) -> PostedBundle:
        """Take a manifest in, and let the bundle be signed if all its blocks are here. Posting again changes nothing.

        Raises :class:`InvalidError` for a manifest or profile that breaks the contract or does not add up.
        """
        try:
            manifest = decode(Manifest, manifest_bytes)
        except MessageError as error:
            raise InvalidError(str(error)) from error
        digest = digest_of(manifest_bytes)
        posted = PostedBundle(
            digest=digest, name=manifest.name, version=manifest.version, missing=self._missing(manifest)
        )
        with self._database.transaction() as session:
            row = session.get(BundleRow, digest)
            before = None if row is None else _state(row)
            if row is None:
                row = BundleRow(
                    digest=digest,
                    name=manifest.name,
                    version=manifest.version,
                    manifest=manifest_bytes,
                    created_at=now,
                )
                session.add(row)
            if not row.complete and not posted.missing:
                row.profile = self._profile(manifest)
                row.complete = True
                session.flush()
                self._repository.add_bundle(session, row, now)
            if _state(row) != before:
                _tell(session, row, before, now)
        return posted

    def page(self, wanted: BundleFilter, after: tuple[float, str] | None, limit: int) -> Sequence[BundleRow]:
        """Return up to ``limit`` bundles that fit, newest first, below ``after`` (when it came, its digest)."""
        made, digest = col(BundleRow.created_at), col(BundleRow.digest)
        query = select(BundleRow).order_by(made.desc(), digest.desc()).limit(limit)
        if wanted.name is not None:
            query = query.where(BundleRow.name == wanted.name)
        if wanted.version is not None:
            query = query.where(BundleRow.version == wanted.version)
        if wanted.complete is not None:
            ready = and_(col(BundleRow.complete).is_(True), col(BundleRow.counter).is_not(None))
            query = query.where(ready if wanted.complete else not_(ready))
        if after is not None:
            query = query.where(or_(made < after[0], and_(made == after[0], digest < after[1])))
        with self._database.reading() as session:
            return session.exec(query).all()

    def find(self, prefix: str) -> BundleRow:
        """Return the bundle whose digest begins with ``prefix``; see :func:`find_bundle`."""
        with self._database.reading() as session:
            return find_bundle(session, prefix)

    def facts(self, prefix: str) -> BundleFacts:
        """Return all that is known about the bundle whose digest begins so; see :func:`find_bundle`."""
        with self._database.reading() as session:
            return facts_of(session, find_bundle(session, prefix))

    def delivery(self, digest: str) -> Delivery:
        """Return what devices need to fetch a complete bundle; evidence stays here."""
        row = self.find(digest)
        manifest = decode(Manifest, row.manifest)
        blocks = dict.fromkeys(
            block.sha256 for entry in manifest.files if entry.role is not Role.EVIDENCE for block in entry.blocks
        )
        return Delivery(manifest=row.manifest, blocks=tuple(blocks))

    def missing(self, row: BundleRow) -> tuple[str, ...]:
        """Return the blocks of a bundle that are not here."""
        return self._missing(decode(Manifest, row.manifest))

    def _missing(self, manifest: Manifest) -> tuple[str, ...]:
        wanted = dict.fromkeys(block.sha256 for entry in manifest.files for block in entry.blocks)
        return self._blocks.absent(wanted)

    def _profile(self, manifest: Manifest) -> bytes:
        """Check every file against its hash and return the reference profile."""
        for entry in manifest.files:
            whole = hashlib.sha256()
            for block in entry.blocks:
                whole.update(self.block(block.sha256))
            if whole.hexdigest() != entry.sha256:
                raise InvalidError(f"the blocks of {entry.path} do not add up to its SHA-256; build the bundle again")
        data = self._read(manifest.file_with(Role.PROFILE))
        try:
            decode(ReferenceProfile, data)
        except MessageError as error:
            raise InvalidError(f"the bundle's reference profile cannot be used: {error}") from error
        return data

    def _read(self, entry: FileEntry) -> bytes:
        return b"".join(self.block(block.sha256) for block in entry.blocks)


def _state(row: BundleRow) -> dict[str, Any]:
    return {"digest": row.digest, "complete": row.complete, "counter": row.counter}


def _tell(session: Session, row: BundleRow, before: dict[str, Any] | None, now: float) -> None:
    change = Change(
        operation="bundle.publish",
        subject=f"bundle/{row.digest}",
        before=before,
        after=_state(row),
        detail={"name": row.name, "version": row.version, "complete": row.complete},
    )
    append(session, change, now)


def find_bundle(session: Session, prefix: str) -> BundleRow:
    """Return the one bundle whose digest begins with ``prefix`` (4-64 hex digits), within a transaction.

    Raises :class:`NotFoundError` when there is none and :class:`ConflictError` when there are several.
    """
    if not 4 <= len(prefix) <= 64 or set(prefix) - set("0123456789abcdef"):
        raise InvalidError(f"expected 4 to 64 hex digits of a bundle's digest, got {prefix[:80]!r}")
    rows = session.exec(select(BundleRow).where(col(BundleRow.digest).startswith(prefix)).limit(2)).all()
    if not rows:
        raise NotFoundError(f"there is no bundle {prefix!r}; publish it first: edgeopt publish DIR")
    if len(rows) > 1:
        raise ConflictError(f"several bundles begin with {prefix!r}; give more digits")
    return rows[0]


def _check_digest(sha256: str) -> str:
    try:
        return check_digest(sha256)
    except ValueError as error:
        raise InvalidError(str(error)) from error
