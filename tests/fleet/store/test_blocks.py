from __future__ import annotations

import hashlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from edgeopt_contract.errors import StorageError
from edgeopt_contract.values import digest_of
from edgeopt_fleet.store.blocks import Blocks, blocks_of
from edgeopt_fleet.store.database import Address, Database
from tests.fleet.conftest import stored_blocks


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """Where blocks are that are files."""
    directory = tmp_path / "blocks"
    directory.mkdir()
    return directory


@pytest.fixture
def blocks(database: Database, directory: Path) -> Blocks:
    """An empty fleet's blocks."""
    return blocks_of(database, directory)


def put(blocks: Blocks, *contents: bytes) -> list[str]:
    """Keep blocks and return their names."""
    for data in contents:
        blocks.put(digest_of(data), data)
    return [digest_of(data) for data in contents]


def test_what_was_put_is_given_back(blocks: Blocks, database: Database, directory: Path) -> None:
    """Every byte, also of what looks like text or ends a text; and whoever looks again finds it."""
    data = bytes(range(256)) * 512
    names = put(blocks, data, b"\0", b"'; DROP TABLE block; --")
    assert data == blocks.get(names[0])
    again = blocks_of(database, directory)
    assert b"\0" == again.get(names[1])
    assert set(names) == set(stored_blocks(database, directory))


def test_what_is_not_here_is_named(blocks: Blocks) -> None:
    """In the order that was asked for; more names than one question takes; and reading one fails with its name."""
    (here,) = put(blocks, b"here")
    absent = [hashlib.sha256(str(number).encode()).hexdigest() for number in range(1201)]
    assert tuple(absent) == blocks.absent([*absent[:600], here, *absent[600:]])
    assert () == blocks.absent([])
    with pytest.raises(StorageError, match=absent[0][:12]):
        blocks.get(absent[0])


def test_two_may_put_the_same_block_at_once(blocks: Blocks) -> None:
    """Two publishers of bundles that share blocks do not disturb each other."""
    data = b"shared" * 10_000
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: put(blocks, data), range(12)))
    assert data == blocks.get(digest_of(data))


def test_only_what_is_old_and_not_needed_is_removed(blocks: Blocks) -> None:
    """What was just uploaded belongs to nothing yet."""
    names = put(blocks, b"a", b"b", b"c")
    assert 0 == blocks.remove((), before=1.0)
    assert 2 == blocks.remove({names[1]}, before=4e9)
    assert (names[0], names[2]) == blocks.absent(names)
    assert 0 == blocks.remove({names[1]}, before=4e9)


@pytest.mark.parametrize("backend", ["postgresql"], indirect=True)
def test_machines_share_the_database_and_nothing_else(new_address: Callable[[], Address], tmp_path: Path) -> None:
    """What one process took in is there for another one, whose directory is elsewhere."""
    address = new_address()
    taken, given = Database.open(address), Database.open(address)
    try:
        (name,) = put(blocks_of(taken, tmp_path / "one"), b"a block")
        assert b"a block" == blocks_of(given, tmp_path / "another").get(name)
    finally:
        taken.close()
        given.close()
