"""``edgeopt-fleet keys``: the keys of the fleet's TUF roles: made, listed, replaced, and what they must sign.

It works on the fleet's directory, whether the server runs or not; a running one publishes the change within seconds.
Private keys that people hold are made where those people are, and never come here: only ``.pub`` files do. Example::

    edgeopt-fleet keys make alice.pem
    edgeopt-fleet keys rotate fleet targets --add alice.pub --add bob.pub --threshold 2 --drop-server-keys
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from edgeopt_contract.errors import UsageError

if TYPE_CHECKING:
    from edgeopt_fleet.tuf.repository import Repository
    from edgeopt_fleet.tuf.rows import Standing

__all__ = ["keys"]

_ROLES = ("root", "targets", "snapshot", "timestamp")
_DIRECTORY = click.argument("directory", type=click.Path(path_type=Path))


def _example(*lines: str) -> str:
    return "\b\nExample:\n" + "\n".join(f"  {line}" for line in lines)


@click.group(epilog=_example("edgeopt-fleet keys list fleet", "edgeopt-fleet keys make alice.pem"))
def keys() -> None:
    """Make, list and replace the keys that sign what devices install."""


@keys.command(epilog=_example("edgeopt-fleet keys make alice.pem --passphrase"))
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--passphrase", is_flag=True, help="Ask for a passphrase and encrypt the private key with it.")
def make(file: Path, *, passphrase: bool) -> None:
    """Make a key pair on this machine: FILE with mode 0600 stays here, FILE's .pub goes to the fleet."""
    from edgeopt_fleet.tuf.keys import create_key, public_path

    secret = click.prompt("Passphrase", hide_input=True, confirmation_prompt=True) if passphrase else None
    key = create_key(file, secret)
    click.echo(f"{key.keyid}")
    click.echo(
        f"keep {file} to yourself; give {public_path(file)} to whoever runs: edgeopt-fleet keys rotate", err=True
    )


@keys.command("list", epilog=_example("edgeopt-fleet keys list fleet"))
@_DIRECTORY
def list_keys(directory: Path) -> None:
    """Show each role: how many signatures it needs, its keys and where they are, and when its metadata expire."""
    with _repository(directory) as repository:
        views, waiting = repository.roles(), repository.standing()
    for view in views:
        expires = time.strftime("%Y-%m-%d", time.gmtime(view.expires))
        click.echo(f"{view.role}: version {view.version} until {expires}, {view.threshold} of {len(view.keys)} keys")
        for keyid, here in view.keys.items():
            click.echo(f"  {keyid}  {'on this server' if here else 'elsewhere'}")
    _show_waiting(waiting)
    if all(here for view in views for here in view.keys.values()):
        click.echo(
            "all keys are on this server: whoever owns it owns the devices; see: edgeopt-fleet keys rotate --help"
        )


@keys.command(
    epilog=_example(
        "edgeopt-fleet keys rotate fleet targets --add alice.pub --add bob.pub --threshold 2 --drop-server-keys",
        "edgeopt-fleet keys rotate fleet timestamp",
    )
)
@_DIRECTORY
@click.argument("role", type=click.Choice(_ROLES))
@click.option("--add", "added", multiple=True, type=click.Path(path_type=Path), metavar="FILE", help="A .pub file.")
@click.option("--remove", "removed", multiple=True, metavar="KEYID", help="A key's id, or its beginning.")
@click.option("--threshold", type=click.IntRange(1, 16), help="How many keys must sign.  [default: as before]")
@click.option("--drop-server-keys", is_flag=True, help="Remove all keys of this role that are on this server.")
def rotate(
    directory: Path,
    role: str,
    added: Sequence[Path],
    removed: Sequence[str],
    threshold: int | None,
    *,
    drop_server_keys: bool,
) -> None:
    """Replace keys of ROLE. Without --add, snapshot and timestamp get a new key on this server instead of the old one.

    The new root comes into force when enough of the old and of the new root keys have signed it; what this server
    cannot sign itself waits for 'edgeopt sign'.
    """
    from edgeopt_fleet.config import Home
    from edgeopt_fleet.tuf.keys import create_server_key, read_public
    from edgeopt_fleet.tuf.metadata import ONLINE_ROLES, Change

    with _repository(directory) as repository:
        view = next(one for one in repository.roles() if one.role == role)
        gone = [_one(beginning, tuple(view.keys)) for beginning in removed]
        gone += [keyid for keyid, here in view.keys.items() if drop_server_keys and here and keyid not in gone]
        add = [read_public(path) for path in added]
        if role in ONLINE_ROLES and not add:
            add = [create_server_key(Home(directory).keys)]
            gone = gone or list(view.keys)
        if not add and not gone and threshold is None:
            raise UsageError("nothing to change: give --add, --remove, --threshold or --drop-server-keys")
        change = Change(role=role, add=tuple(add), remove=tuple(gone), threshold=threshold)
        _report(repository, repository.change_keys((change,), time.time()))


@keys.command(epilog=_example("edgeopt-fleet keys revoke fleet 3fa94c"))
@_DIRECTORY
@click.argument("keyid")
def revoke(directory: Path, keyid: str) -> None:
    """Take a key out of every role that has it, for instance because it was stolen.

    A role that would have fewer keys than it needs signatures must be given another key first: see rotate.
    """
    from edgeopt_fleet.tuf.metadata import Change

    with _repository(directory) as repository:
        views = repository.roles()
        known = _one(keyid, tuple({known for view in views for known in view.keys}))
        changes = tuple(Change(role=view.role, remove=(known,)) for view in views if known in view.keys)
        _report(repository, repository.change_keys(changes, time.time()))


@keys.command(epilog=_example("edgeopt-fleet keys export fleet --output unsigned.json"))
@_DIRECTORY
@click.option("--output", required=True, type=click.Path(path_type=Path), metavar="FILE", help="Where to.")
def export(directory: Path, output: Path) -> None:
    """Write what is to be signed into a file, for 'edgeopt sign --input' on a machine without a network."""
    import dataclasses

    from edgeopt_contract.storage import write_atomically
    from edgeopt_contract.values import canonical_json

    with _repository(directory) as repository:
        write_atomically(output, canonical_json(dataclasses.asdict(repository.unsigned())))
        _show_waiting(repository.standing())


@keys.command(epilog=_example("edgeopt-fleet keys accept fleet signed.json"))
@_DIRECTORY
@click.argument("file", type=click.Path(path_type=Path))
def accept(directory: Path, file: Path) -> None:
    """Take in what 'edgeopt sign --output' wrote."""
    import msgspec

    try:
        signed = msgspec.json.decode(file.read_bytes(), type=dict[str, str])
    except (OSError, msgspec.MsgspecError) as error:
        raise UsageError(f"{file}: expected the file that 'edgeopt sign --output' wrote: {error}") from error
    with _repository(directory) as repository:
        for role in sorted(signed):  # root before targets
            if role not in ("root", "targets"):
                raise UsageError(f"{file}: only root and targets are signed elsewhere, got {role[:40]!r}")
            repository.accept(role, signed[role].encode(), time.time())
        _report(repository, repository.standing())


@keys.command(epilog=_example("edgeopt-fleet keys discard fleet"))
@_DIRECTORY
def discard(directory: Path) -> None:
    """Forget what waits for signatures; nothing of it was in force."""
    with _repository(directory) as repository:
        repository.discard_drafts(time.time())


@contextmanager
def _repository(directory: Path) -> Iterator[Repository]:
    from edgeopt_fleet.acting import acting_as, whoever_types
    from edgeopt_fleet.config import Home, read_config
    from edgeopt_fleet.store.database import Database
    from edgeopt_fleet.tuf.repository import Repository

    home = Home(directory)
    database = Database.open(home.address(read_config(home.config)))
    try:
        with acting_as(whoever_types()):
            yield Repository(database, home.keys)
    finally:
        database.close()


def _report(repository: Repository, waiting: Sequence[Standing]) -> None:
    if waiting:
        _show_waiting(waiting)
    else:
        _remove_unused_keys(repository)
        click.echo("in force; devices hear of it with the next metadata")


def _show_waiting(waiting: Sequence[Standing]) -> None:
    for standing in waiting:
        click.echo(
            f"{standing.role} version {standing.version} waits with {standing.signatures} of {standing.threshold} "
            "signatures; sign it with: edgeopt sign --key FILE"
        )


def _remove_unused_keys(repository: Repository) -> None:
    for name in repository.remove_unused_keys():
        click.echo(f"removed the private key {name[:12]} from this server: no role has it any more")


def _one(beginning: str, known: Sequence[str]) -> str:
    found = [keyid for keyid in known if keyid.startswith(beginning)]
    if len(found) != 1:
        raise UsageError(f"expected the beginning of one key id, got {beginning[:80]!r}; see: edgeopt-fleet keys list")
    return found[0]
