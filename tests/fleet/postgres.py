"""A real PostgreSQL for tests: from the Debian package, as a user without rights, in a temporary directory.

It listens on a free port of the loopback, trusts everybody there, and does not sync to the disk. Example::

    with running_postgres() as server:
        server.create("fleet", template="template1")
        Database.create(server.address("fleet"))
"""

from __future__ import annotations

import contextlib
import itertools
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import psycopg

__all__ = ["Postgres", "missing_postgres", "running_postgres"]

_USER = "edgeopt"
_START_SECONDS = 60.0


def _programs() -> Path | None:
    """Return the directory of the newest PostgreSQL programs, or None."""
    if (found := shutil.which("initdb")) is not None:
        return Path(found).parent
    versions = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    return versions[-1].parent if versions else None


def _owner() -> pwd.struct_passwd | None:
    """Return the user that the server runs as: this one, or for root, which PostgreSQL refuses, another."""
    if os.getuid() != 0:
        return pwd.getpwuid(os.getuid())
    for name in ("postgres", "nobody"):
        with contextlib.suppress(KeyError):
            return pwd.getpwnam(name)
    return None


def missing_postgres() -> str | None:
    """Return why no PostgreSQL can be started here; None when one can."""
    if _programs() is None:
        return "PostgreSQL is not installed (Debian: apt-get install postgresql)"
    return None if _owner() is not None else "PostgreSQL refuses root, and there is neither a user postgres nor nobody"


@dataclass(frozen=True)
class Postgres:
    """A server that runs, and what to do with its databases."""

    port: int
    process: subprocess.Popen[bytes]
    directory: Path
    numbers: Iterator[int] = field(default_factory=itertools.count)

    def address(self, database: str) -> str:
        """Return where a database is."""
        return f"postgresql://{_USER}@127.0.0.1:{self.port}/{database}"

    def execute(self, *statements: str) -> None:
        """Carry statements out that cannot be part of a transaction."""
        assert self.process.poll() is None, f"PostgreSQL ended with {self.process.returncode}: {self.log()}"
        with psycopg.connect(self.address("postgres"), autocommit=True) as connection:
            for statement in statements:
                connection.execute(statement.encode())

    def log(self) -> str:
        """Return what the server said last."""
        return (self.directory / "log").read_text(errors="replace")[-3000:]

    def create(self, database: str, template: str = "template0") -> str:
        """Make a database as a copy of another one and return its address."""
        self.execute(f'CREATE DATABASE "{database}" TEMPLATE "{template}"')
        return self.address(database)

    def drop(self, database: str) -> None:
        """Delete a database and end the connections to it."""
        self.execute(f'DROP DATABASE "{database}" WITH (FORCE)')


@contextlib.contextmanager
def running_postgres(*, durable: bool = False) -> Iterator[Postgres]:
    """Run a server; with ``durable`` it syncs what is committed, as in production."""
    programs, owner = _programs(), _owner()
    assert programs is not None
    assert owner is not None
    directory = Path(tempfile.mkdtemp(prefix="edgeopt-postgres-"))  # pytest's own are closed to other users
    os.chown(directory, owner.pw_uid, owner.pw_gid)
    try:
        data = directory / "data"
        rights = {"user": owner.pw_uid, "group": owner.pw_gid, "extra_groups": []} if os.getuid() == 0 else {}
        _initialize(programs, data, rights)
        with (directory / "log").open("wb") as log:
            port = _free_port()
            leash = ["setpriv", "--pdeathsig", "KILL"]  # it ends with this process, however that ends
            order = [programs / "postgres", "-D", data, *_settings(directory, port, durable=durable)]
            process = subprocess.Popen(  # in a session of its own: signals to pytest's process group are not for it
                [*leash, *order], stdout=log, stderr=log, cwd=directory, start_new_session=True, **rights
            )
        server = Postgres(port, process, directory)
        try:
            _wait(server)
            yield server
        finally:
            process.send_signal(signal.SIGQUIT if not durable else signal.SIGINT)
            process.wait(30)
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def _initialize(programs: Path, data: Path, rights: dict[str, object]) -> None:
    order = [programs / "initdb", "-D", data, "-U", _USER, "--auth=trust", "--no-sync", "--encoding=UTF8"]
    done = subprocess.run(
        [*order, "--locale=C.UTF-8"], cwd=data.parent, capture_output=True, timeout=120, check=False, **rights
    )
    assert done.returncode == 0, done.stderr.decode()


def _settings(directory: Path, port: int, *, durable: bool) -> list[str]:
    switch = "on" if durable else "off"
    settings = {
        "listen_addresses": "127.0.0.1",
        "port": port,
        "unix_socket_directories": directory,
        "max_connections": 100,
        "shared_buffers": "32MB",
        "fsync": switch,
        "full_page_writes": switch,
        "autovacuum": switch,  # between tests, it would hold the template while that is copied
        "max_wal_size": "256MB",
        "checkpoint_timeout": "1h",
    }
    return [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait(server: Postgres) -> None:
    """Return when the server answers; fail with its log when it does not."""
    end = time.monotonic() + _START_SECONDS
    while True:
        try:
            psycopg.connect(server.address("postgres"), connect_timeout=5).close()
        except psycopg.OperationalError:
            gone = server.process.poll() is not None or time.monotonic() > end
            assert not gone, server.log()
            time.sleep(0.05)
        else:
            return
