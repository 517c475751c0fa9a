"""What is done about a fleet's storage: ``migrate``, ``backup``, ``restore`` and ``maintain``.

Example::

edgeopt-fleet backup fleet fleet.backup
edgeopt-fleet restore fleet.backup copy
"""

from __future__ import annotations

import contextlib
import time
from pathlib import Path

import click

__all__ = ["COMMANDS"]

_DIRECTORY = click.argument("directory", type=click.Path(path_type=Path))


@click.command(epilog="\b\nExample:\n  edgeopt-fleet migrate fleet")
@_DIRECTORY
def migrate(directory: Path) -> None:
    """Bring the database of the fleet in DIRECTORY to the version that this program needs.

    Back it up and stop all its servers first. A database that has the version already is not changed.
    """
    from edgeopt_fleet.config import Home, read_config
    from edgeopt_fleet.store.database import Database
    from edgeopt_fleet.store.schema import migrate as migrate_schema

    home = Home(directory)
    with contextlib.closing(Database.open_any(home.address(read_config(home.config)))) as database:
        with database.transaction() as session:
            before, after = migrate_schema(session.connection(), database.name)
        click.echo(f"{database.name} has version {after}" + ("" if before == after else f"; it had {before}"))


@click.command(epilog="\b\nExample:\n  edgeopt-fleet backup fleet fleet.backup")
@_DIRECTORY
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
def backup(directory: Path, file: Path) -> None:
    """Write the fleet in DIRECTORY into FILE, as of one moment; it may be served meanwhile.

    FILE holds the database, blocks, settings and all private keys that are on this server: keep it as safe as those.
    """
    from edgeopt_fleet.backup import back_up
    from edgeopt_fleet.config import Home

    rows = back_up(Home(directory), file, time.time())
    click.echo(f"wrote {sum(rows.values())} rows, settings, keys and blocks ({file.stat().st_size} bytes) to {file}")


@click.command(epilog="\b\nExample:\n  edgeopt-fleet restore fleet.backup copy")
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@_DIRECTORY
@click.option(
    "--database",
    default="",
    envvar="EDGEOPT_FLEET_DATABASE",
    help="postgresql://… of an empty database to restore into.  [default: SQLite in DIRECTORY]",
)
def restore(file: Path, directory: Path, database: str) -> None:
    """Make a fleet in the new DIRECTORY from a back-up, which is verified first.

    Devices go on with it, at the addresses that stand in its fleet.toml. The fleet that was backed up must not be
    served any more.
    """
    from edgeopt_fleet.backup import restore as restore_fleet
    from edgeopt_fleet.config import Home

    restored = restore_fleet(file, Home(directory), database, time.time())
    click.echo(f"restored {restored.rows} rows into {directory}; now run: edgeopt-fleet serve {directory}")
    for role in restored.unsigned_roles:
        click.echo(
            f"the keys of {role} are elsewhere: if {role} were signed after the back-up, publish those metadata again "
            "(edgeopt publish), else devices wait until the versions they have seen are passed"
        )


@click.command(epilog="\b\nExample:\n  edgeopt-fleet maintain fleet")
@_DIRECTORY
def maintain(directory: Path) -> None:
    """Roll up and delete what is older than the settings of the fleet in DIRECTORY say; it may be served meanwhile.

    A worker does the same each hour by itself.
    """
    from collections import Counter

    from edgeopt_fleet.acting import acting_as, whoever_types
    from edgeopt_fleet.config import Home, read_config
    from edgeopt_fleet.store.database import Database
    from edgeopt_fleet.store.retention import Retention

    home = Home(directory)
    config = read_config(home.config)
    done: Counter[str] = Counter()
    with contextlib.closing(Database.open(home.address(config))) as database, acting_as(whoever_types()):
        for step in Retention(database, home.blocks, config.keep).steps(time.time()):
            done[step.what] += step.rows
    click.echo(", ".join(f"{rows} {what}" for what, rows in done.items()) or "nothing was due")


COMMANDS = (migrate, backup, restore, maintain)
