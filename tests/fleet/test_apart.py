"""Processes that run apart, each in a directory of its own: one of another fleet is refused before anything begins."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from edgeopt_contract.errors import UsageError
from edgeopt_fleet.config import FleetConfig, Home
from edgeopt_fleet.founding import create_fleet
from edgeopt_fleet.store.database import Address, Database
from edgeopt_fleet.tuf.repository import Repository
from edgeopt_fleet.web import free_port
from tests.fleet.conftest import make_repository

COMMAND = str(Path(sys.executable).with_name("edgeopt-fleet"))


@pytest.fixture
def other(tmp_path: Path) -> Home:
    """Return the directory of another fleet than that of ``mine``."""
    home = Home(tmp_path / "other")
    create_fleet(home, FleetConfig(http_port=free_port("127.0.0.1"), mqtt_port=free_port("127.0.0.1")))
    return home


@pytest.fixture
def mine(new_address: Callable[[], Address], tmp_path: Path) -> tuple[Address, Path]:
    """Return the database of a fleet, and its keys."""
    address, keys = new_address(), tmp_path / "keys"
    with contextlib.closing(Database.open(address)) as database:
        make_repository(database, keys)
    return address, keys


def start(verb: str, home: Home, address: Address) -> subprocess.CompletedProcess[str]:
    """Run a process in ``home`` over the database at ``address`` until it refuses."""
    environment = dict(os.environ)
    if isinstance(address, Path):
        shutil.copy(address, home.database)
    else:
        environment["EDGEOPT_FLEET_DATABASE"] = str(address)
    return subprocess.run(
        [COMMAND, verb, str(home.directory)], env=environment, capture_output=True, text=True, check=False, timeout=180
    )


@pytest.mark.parametrize("verb", ["worker", "api"])
def test_a_directory_of_another_fleet_is_refused(verb: str, mine: tuple[Address, Path], other: Home) -> None:
    """Its certificates would be refused by every broker and device, its signatures by every device: say so at once."""
    before = {path: path.stat().st_mtime_ns for path in other.ca.iterdir()}
    done = start(verb, other, mine[0])
    assert 2 == done.returncode, done.stderr
    assert "this directory is another fleet's" in done.stderr
    assert "copy fleet.toml, ca and keys" in done.stderr
    assert "Traceback" not in done.stderr
    assert before == {path: path.stat().st_mtime_ns for path in other.ca.iterdir()}, "nothing was written"


def test_the_fleets_own_keys_are_taken(mine: tuple[Address, Path], other: Home) -> None:
    """Also among others; without any the message says so."""
    address, keys = mine
    with contextlib.closing(Database.open(address)) as database:
        Repository(database, keys).check_keys()
        for path in keys.iterdir():
            shutil.copy(path, other.keys)
        Repository(database, other.keys).check_keys()
        shutil.rmtree(keys)
        with pytest.raises(UsageError, match="got no key"):
            Repository(database, keys).check_keys()
