"""``edgeopt-fleet users`` and ``edgeopt-fleet audit``: people when no admin has a key any more, and exports of the log.

Both work without the server: the first on the fleet's directory, by whoever may read it; the second on an export,
anywhere. Everyday work with people is in the ``edgeopt`` command. Example::

    edgeopt-fleet users create fleet rescue --role admin
    edgeopt-fleet audit verify audit.jsonl
"""

from __future__ import annotations

import time
from pathlib import Path

import click

from edgeopt_contract.errors import UsageError

__all__ = ["audit", "users"]

_ROLES = ("viewer", "operator", "approver", "admin")  # of edgeopt_fleet.rights, which --help need not import


@click.group(epilog="\b\nExample:\n  edgeopt-fleet users create fleet rescue --role admin")
def users() -> None:
    """Add users on the server itself, when no admin has a key any more."""


@users.command(epilog="\b\nExample:\n  edgeopt-fleet users create fleet rescue --role admin")
@click.argument("directory", type=click.Path(path_type=Path))
@click.argument("name")
@click.option("--role", type=click.Choice(_ROLES), default="admin", show_default=True, help="What the user may do.")
def create(directory: Path, name: str, role: str) -> None:
    """Add the user NAME to the fleet in DIRECTORY, whether it is served or not, and print the key. It is shown once."""
    from edgeopt_fleet.acting import acting_as, whoever_types
    from edgeopt_fleet.config import Home, read_config
    from edgeopt_fleet.rights import Role
    from edgeopt_fleet.store.database import Database
    from edgeopt_fleet.store.users import Users

    home = Home(directory)
    database = Database.open(home.address(read_config(home.config)))
    try:
        with acting_as(whoever_types()):
            made = Users(database).create(name, Role(role), time.time())
    finally:
        database.close()
    click.echo(made.key)


@click.group(epilog="\b\nExample:\n  edgeopt-fleet audit verify audit.jsonl")
def audit() -> None:
    """Check exports of the audit log."""


@audit.command(epilog="\b\nExample:\n  edgeopt-fleet audit verify audit.jsonl --head 9f86d081884c7d65…")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--head", default="", metavar="SHA256", help="A head that was noted before: the log must contain it.")
def verify(file: Path, head: str) -> None:
    """Check FILE, which 'edgeopt audit export' wrote: every byte of every entry, their order, and the end."""
    from edgeopt_contract.audit import verify_export

    try:
        with file.open("rb") as lines:
            found = verify_export(lines, head)
    except OSError as error:
        raise UsageError(f"{file} cannot be read: {error.strerror}") from error
    click.echo(f"{found.entries} entries, unbroken; head {found.sha256}")
