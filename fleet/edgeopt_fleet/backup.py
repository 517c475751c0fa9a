"""A fleet backed up into one file while it serves, and a new fleet made from that file.

The file holds all tables as of one moment, settings, keys, the CA and the blocks of bundles: whoever has it is the
fleet. It does not hold the broker's store, which is published anew. It may be restored into the other kind of database
than it came from. Example::

    back_up(Home(Path("fleet")), Path("fleet.backup"), now)
    restore(Path("fleet.backup"), Home(Path("copy")), database="", now)
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from sqlmodel import Session, delete, update

from edgeopt_contract.errors import StorageError, UsageError
from edgeopt_contract.storage import durable_file, make_directory, new_directory, storage_errors, write_atomically
from edgeopt_fleet.archive import ArchiveReader, ArchiveWriter, new_archive, open_archive
from edgeopt_fleet.config import Home, read_config, read_settings, write_config
from edgeopt_fleet.store.blocks import dump_blocks, load_blocks
from edgeopt_fleet.store.database import Database
from edgeopt_fleet.store.dump import all_tables, dump_table, load_table, number_on
from edgeopt_fleet.store.schema import SCHEMA
from edgeopt_fleet.store.tables import DeviceRow, LeaseRow
from edgeopt_fleet.tuf.repository import Repository

__all__ = ["Restored", "back_up", "restore"]

_FORMAT = 1
_BLOCKS = "files/blocks/"
_SKIPPED = ("run", "broker")  # what only lives while the fleet runs


@dataclass(frozen=True, slots=True)
class Restored:
    """How many rows were restored, and which TUF roles people must sign again before devices follow."""

    rows: int
    unsigned_roles: tuple[str, ...]


def back_up(home: Home, target: Path, now: float) -> Mapping[str, int]:
    """Write the fleet in ``home`` into the file ``target`` and return the number of rows by table.

    Raises :class:`UsageError` when there is no fleet, :class:`StorageError` when the disk or the database fails.
    """
    database = Database.open(home.address(read_config(home.config)))
    with contextlib.closing(database), new_archive(target) as archive:
        rows = _add_tables(archive, database, target.parent)
        for path in _files(home, target):
            try:
                archive.add_file(f"files/{path.relative_to(home.directory).as_posix()}", path)
            except FileNotFoundError as error:
                raise StorageError(f"{path} was removed during the back-up; take it again") from error
        archive.finish({"format": _FORMAT, "schema": SCHEMA, "made_at": now, "rows": rows})
    return rows


def _add_tables(archive: ArchiveWriter, database: Database, directory: Path) -> dict[str, int]:
    rows = {}
    with database.reading() as session:
        for table in all_tables():
            with tempfile.TemporaryFile(dir=directory) as file:
                rows[table.name] = dump_table(session, table, file)
                size = file.tell()
                file.seek(0)
                archive.add(f"tables/{table.name}", file, size)
        for name, data in dump_blocks(session):
            archive.add(f"{_BLOCKS}{name}", io.BytesIO(data), len(data))
    return rows


def _files(home: Home, target: Path) -> list[Path]:
    """Return the fleet's files: not those that are being written, not ``target``, not the database's own."""
    found = [path for path in sorted(home.directory.rglob("*")) if path.is_file() and not path.is_symlink()]
    kept = [home.routes] if home.routes.exists() else []
    for path in found:
        if path.resolve() == target.resolve():
            continue
        parts = path.relative_to(home.directory).parts
        if parts[0] not in _SKIPPED and not parts[0].startswith(home.database.name) and not path.name.startswith("."):
            kept.append(path)
    return kept


def restore(source: Path, home: Home, database: str, now: float) -> Restored:
    """Make a fleet in ``home`` from a back-up: with SQLite, or in the empty ``database`` at that address.

    All of it is verified first, and it is all or nothing. Online metadata get higher versions, because devices have
    seen some that were made after the back-up. Raises :class:`UsageError` for what is no back-up or of another version.
    """
    if home.directory.exists() and (not home.directory.is_dir() or any(home.directory.iterdir())):
        raise UsageError(f"{home.directory} exists and is not empty; restore into a new directory")
    with open_archive(source) as archive, new_directory(home.directory) as temporary:
        _check(source, archive)
        new = Home(temporary)
        _extract(archive, new, [name for name in archive.names("files/") if not (database and _is_block(name))])
        config = dataclasses.replace(read_settings(new.config, {})[0], database=database)
        write_atomically(new.config, write_config(config).encode(), mode=0o600)
        rows: list[int] = []

        def fill(session: Session) -> None:
            rows.append(_fill(archive, session))
            if database:
                load_blocks(session, _blocks(archive))

        made = Database.create(new.address(config), fill)
        with contextlib.closing(made):
            unsigned = Repository(made, new.keys).leap(now)
        if not config.database:
            with storage_errors(new.database):
                new.database.chmod(0o600)
        return Restored(sum(rows), unsigned)


def _check(source: Path, archive: ArchiveReader) -> None:
    found = (archive.facts.get("format"), archive.facts.get("schema"))
    if found != (_FORMAT, SCHEMA):
        raise UsageError(
            f"{source} has version {found[1]} and format {found[0]}, this program restores {SCHEMA} and {_FORMAT}; "
            "restore it with the program that made it, then migrate"
        )


def _is_block(name: str) -> bool:
    return name.startswith(_BLOCKS)


def _blocks(archive: ArchiveReader) -> Iterator[tuple[str, bytes]]:
    for name in archive.names(_BLOCKS):
        with archive.open(name) as stored:
            yield name.removeprefix(_BLOCKS), stored.read()


def _extract(archive: ArchiveReader, new: Home, names: Sequence[str]) -> None:
    for directory in (new.blocks, new.broker, new.ca, new.keys, new.run):
        with storage_errors(directory):
            directory.mkdir(mode=0o700)
    for name in names:
        path = new.directory / name.removeprefix("files/")
        with storage_errors(path):
            make_directory(path.parent)
            with archive.open(name) as stored, durable_file(path, 0o600) as file:
                shutil.copyfileobj(stored, file)


def _fill(archive: ArchiveReader, session: Session) -> int:
    """Insert all rows and return how many; nobody is online, and nobody holds a role."""
    rows = 0
    for table in all_tables():
        with archive.open(f"tables/{table.name}") as file:
            rows += load_table(session, table, file)
    number_on(session)
    session.execute(delete(LeaseRow))
    session.execute(update(DeviceRow).values(online=False))
    return rows
