from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select
from tuf.api.metadata import Snapshot, Targets, Timestamp

from edgeopt_contract.codec import decode
from edgeopt_contract.errors import StorageError, UsageError
from edgeopt_contract.messages import DeviceState
from edgeopt_contract.tuf import TufMetadata
from edgeopt_fleet import backup as module
from edgeopt_fleet.backup import back_up, restore
from edgeopt_fleet.config import FleetConfig, Home, read_config, write_config
from edgeopt_fleet.store.bundles import Bundles
from edgeopt_fleet.store.changes import Counter, newest_change
from edgeopt_fleet.store.database import Database
from edgeopt_fleet.store.dump import all_tables
from edgeopt_fleet.store.inbox import Inbox
from edgeopt_fleet.store.registry import Registry
from edgeopt_fleet.store.tables import BundleRow
from edgeopt_fleet.tuf.metadata import parse
from edgeopt_fleet.tuf.repository import Repository
from tests.fleet.conftest import Kit, stored_blocks, window
from tests.fleet.postgres import Postgres

VERSIONED = {"metadata", "lease", "change"}  # what a restoration changes; numbers of changes only grow


@pytest.fixture
def home(kit: Kit) -> Home:
    """Return the home of a fleet with a bundle, two devices, reports and windows."""
    home = Home(kit.directory)
    address = "" if isinstance(kit.address, Path) else kit.address
    home.config.write_text(write_config(FleetConfig(http_port=1, mqtt_port=2, database=address)))
    digest = kit.publish("1")
    kit.enrol("a", "b", site="oslo")
    kit.report("a", DeviceState.CONFIRMED, digest, detail="Grüße \U0001f600")
    for device in ("a", "b"):
        kit.serve(device, digest)
    return home


def rows(database: Database, skip: frozenset[str] = frozenset()) -> dict[str, list[Any]]:
    """Return everything in a database."""
    with database.reading() as session:
        return {
            table.name: sorted(map(repr, session.connection().execute(select(table)).all()))
            for table in all_tables()
            if table.name not in skip
        }


def newest(database: Database) -> tuple[str, int]:
    """Return digest and counter of the bundle that was signed last."""
    with database.reading() as session:
        rows = session.connection().execute(select(BundleRow.digest, BundleRow.counter))
        return max(((row.digest, row.counter or 0) for row in rows), key=lambda row: row[1])


@pytest.fixture(params=["sqlite", "postgresql"])
def target(request: pytest.FixtureRequest) -> Callable[[], str]:
    """Give a function that returns the setting ``database`` to restore into."""

    def new() -> str:
        if request.param == "sqlite":
            return ""
        server: Postgres = request.getfixturevalue("postgres")
        name = f"restored_{next(server.numbers)}"
        request.addfinalizer(lambda: server.drop(name))
        return server.create(name)

    return new


def test_a_restored_fleet_is_the_same(kit: Kit, home: Home, target: Callable[[], str], tmp_path: Path) -> None:
    """Every row of every table, every block and every key; from either kind of database into either."""
    with kit.database.transaction() as session:
        session.connection().exec_driver_sql("UPDATE device SET online = (1 = 0)")
    counts = back_up(home, tmp_path / "fleet.backup", 2000.0)
    copy = Home(tmp_path / "copy")
    restored = restore(tmp_path / "fleet.backup", copy, target(), 2000.0)
    assert (sum(counts.values()), ()) == (restored.rows, restored.unsigned_roles)
    skip = frozenset(VERSIONED)
    with contextlib.closing(Database.open(copy.address(read_config(copy.config)))) as database:
        assert rows(kit.database, skip) == rows(database, skip)
        with kit.database.reading() as before, database.reading() as after:
            assert all(newest_change(after, counter) >= newest_change(before, counter) for counter in Counter)
        blocks = stored_blocks(kit.database, home.blocks)
        assert len(blocks) > 3
        assert blocks == stored_blocks(database, copy.blocks)
    for name in ("keys", "ca"):
        expected = {path.name: path.read_bytes() for path in (kit.directory / name).iterdir()}
        assert expected == {path.name: path.read_bytes() for path in (copy.directory / name).iterdir()}
    assert {0o600} == {path.stat().st_mode & 0o777 for path in copy.directory.rglob("*") if path.is_file()}


def test_devices_go_on_with_a_restored_fleet(kit: Kit, home: Home, target: Callable[[], str], tmp_path: Path) -> None:
    """What is new is counted once, what was stored before stays stored once, and new rows get new numbers."""
    digest = newest(kit.database)[0]
    back_up(home, tmp_path / "fleet.backup", 2000.0)
    lost = window(digest, kit.next_number("a"))  # acknowledged by the fleet that is gone, so not sent again
    next_one = window(digest, kit.next_number("a"))
    copy = Home(tmp_path / "copy")
    restore(tmp_path / "fleet.backup", copy, target(), 2000.0)
    with contextlib.closing(Database.open(copy.address(read_config(copy.config)))) as database:
        registry = Registry(database)
        before = registry.device("a").windows
        again = dataclasses.replace(window(digest, 2), number=2)  # the fleet has it; the device does not know
        acks = store(database, "a", again, next_one)
        assert (2, (4,)) == (acks[0].upto, acks[0].beyond)
        assert before + 1 == registry.device("a").windows
        assert 1 == len(store(database, "b", dataclasses.replace(lost, session=99, number=1)))
        assert [1, 99] == [spool.session for spool in registry.spools("b")]


def store(database: Database, device: str, *records: Any) -> list[Any]:
    """Store messages of a device and return their acknowledgements."""
    from edgeopt_fleet.store.inbox import Incoming

    return list(Inbox(database).store([Incoming(device=device, record=record) for record in records], 3000.0)[device])


def versions(repository: Repository) -> dict[str, int]:
    """Return the versions of what devices would be told."""
    message = decode(TufMetadata, repository.message())
    kinds = {"targets": Targets, "snapshot": Snapshot, "timestamp": Timestamp}
    return {name: parse(kind, getattr(message, name)).signed.version for name, kind in kinds.items()}


def test_metadata_and_counters_go_on_beyond_what_was_lost(kit: Kit, home: Home, tmp_path: Path) -> None:
    """Devices that saw bundles of after the back-up accept the metadata of the restored fleet, and its next bundle."""
    back_up(home, tmp_path / "fleet.backup", 2000.0)
    for version in ("2", "3", "4"):
        kit.publish(version)
    seen = versions(kit.metadata)
    counter = newest(kit.database)[1]
    copy = Home(tmp_path / "copy")
    restore(tmp_path / "fleet.backup", copy, "", 2000.0)
    with contextlib.closing(Database.open(copy.database)) as database:
        metadata = Repository(database, copy.keys)
        assert all(version > seen[name] for name, version in versions(metadata).items())
        new = dataclasses.replace(kit, database=database, bundles=Bundles(database, copy.blocks, metadata))
        new.publish("5")
        assert newest(database)[1] > counter


def test_where_the_targets_keys_are_elsewhere_it_says_so(kit: Kit, home: Home, tmp_path: Path) -> None:
    """The server cannot sign targets then; people are told to."""
    targets = next(role for role in kit.metadata.roles() if role.role == "targets")
    for keyid in targets.keys:
        home.keys.joinpath(f"{keyid}.pem").unlink()
    back_up(home, tmp_path / "fleet.backup", 2000.0)
    assert ("targets",) == restore(tmp_path / "fleet.backup", Home(tmp_path / "copy"), "", 2000.0).unsigned_roles


def test_a_back_up_is_of_one_moment(kit: Kit, home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Devices report while it is taken: no table knows of what another one does not."""
    digest = newest(kit.database)[0]
    original = module.dump_table

    def dump_and_receive(*arguments: Any) -> int:
        kit.serve("a", digest)
        return original(*arguments)

    monkeypatch.setattr(module, "dump_table", dump_and_receive)
    counts = back_up(home, tmp_path / "fleet.backup", 2000.0)
    copy = Home(tmp_path / "copy")
    restore(tmp_path / "fleet.backup", copy, "", 2000.0)
    with contextlib.closing(Database.open(copy.database)) as database:
        registry = Registry(database)
        windows = registry.device("a").windows
        assert (windows + registry.device("b").windows, windows + 1) == (counts["window"], registry.spools("a")[0].upto)
    assert kit.registry.device("a").windows > windows


def test_a_restoration_that_fails_leaves_nothing(kit: Kit, home: Home, postgres: Postgres, tmp_path: Path) -> None:
    """Neither a directory nor a table; so it can be tried again."""
    back_up(home, tmp_path / "fleet.backup", 2000.0)
    address = postgres.create("half_restored")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "number_on", lambda _session: (_ for _ in ()).throw(StorageError("the disk is full")))
        for database in ("", address):
            with pytest.raises(StorageError, match="full"):
                restore(tmp_path / "fleet.backup", Home(tmp_path / "copy"), database, 2000.0)
            assert not (tmp_path / "copy").exists()
    restore(tmp_path / "fleet.backup", Home(tmp_path / "copy"), address, 2000.0)
    postgres.drop("half_restored")


def test_another_version_and_a_used_directory_are_refused(
    kit: Kit, home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is overwritten, and nothing is guessed."""
    back_up(home, tmp_path / "fleet.backup", 2000.0)
    with pytest.raises(UsageError, match="not empty"):
        restore(tmp_path / "fleet.backup", home, "", 2000.0)
    monkeypatch.setattr(module, "SCHEMA", "0002")
    with pytest.raises(UsageError, match="has version 0001"):
        restore(tmp_path / "fleet.backup", Home(tmp_path / "copy"), "", 2000.0)
    assert not (tmp_path / "copy").exists()
