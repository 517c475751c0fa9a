"""``edgeopt sign``: shows what the offline keys would sign, asks, signs, and hands it to the fleet.

The keys stay on this machine. Without a DIR it signs what waits for signatures. Example::

    edgeopt sign digits-bundle --key alice.pem
    edgeopt sign --key bob.pem
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgeopt.cli.operate_options import connect, example, fleet_options, print_json
from edgeopt_contract.errors import UsageError

if TYPE_CHECKING:
    from edgeopt.signing.drafts import Additions, Desk
    from edgeopt.signing.keys import OfflineKey

__all__ = ["sign"]

_VARIABLE = "EDGEOPT_KEY_PASSPHRASE"


@click.command(
    epilog=example(
        "edgeopt sign digits-bundle --key alice.pem --allow-rollback 3fa94c",
        "edgeopt sign --key bob.pem",
        "edgeopt sign --input unsigned.json --key alice.pem --output signed.json",
    )
)
@click.argument("directories", nargs=-1, type=click.Path(path_type=Path), metavar="[DIR]...")
@click.option(
    "--key", "keys", multiple=True, required=True, type=click.Path(path_type=Path), metavar="FILE",
    help="A private key; may be given several times. A passphrase is asked for, or read from EDGEOPT_KEY_PASSPHRASE.",
)  # fmt: skip
@click.option(
    "--allow-rollback", "rollback", multiple=True, metavar="DIGEST",
    help="A device that runs the bundle may go back to this one; may be given several times. "
    "[default: the bundle of the same name that was signed last]",
)  # fmt: skip
@click.option("--no-rollback", is_flag=True, help="A device that runs the bundle may go back to nothing older.")
@click.option("--retire", multiple=True, metavar="DIGEST", help="Take a bundle out: it cannot be installed any more.")
@click.option("--yes", is_flag=True, help="Sign without asking.")
@click.option("--input", "source", type=click.Path(path_type=Path), metavar="FILE", help="Sign what this file holds.")
@click.option("--output", type=click.Path(path_type=Path), metavar="FILE", help="Where to, instead of to the fleet.")
@fleet_options
def sign(  # noqa: PLR0913  # one parameter an option
    directories: tuple[Path, ...],
    keys: tuple[Path, ...],
    fleet: Path | None,
    source: Path | None,
    output: Path | None,
    *,
    rollback: tuple[str, ...],
    no_rollback: bool,
    retire: tuple[str, ...],
    yes: bool,
    as_json: bool,
) -> None:
    """Sign the bundles in DIR..., or what waits for signatures, with keys that stay on this machine.

    With --input and --output no network is needed: 'edgeopt-fleet keys export' writes the one file, and
    'edgeopt-fleet keys accept' takes the other.
    """
    if no_rollback and rollback:
        raise UsageError("give --no-rollback or --allow-rollback, not both")
    if (source is None) is not (output is None):
        raise UsageError("give --input and --output together, or neither to work with the fleet directly")
    loaded = [_load_key(path) for path in keys]
    additions = _additions(directories, None if not (rollback or no_rollback) else rollback, retire)
    if source is not None and output is not None:
        answer = _sign_file(source, output, additions, _Pen(loaded, yes=yes))
    else:
        with connect(fleet) as client:
            signed = _Pen(loaded, yes=yes).sign(_desk(client.metadata_to_sign()), additions)
            answer = [client.put_metadata(role, text) for role, text in signed.items()]
            left = client.metadata_to_sign()  # root and targets may have come into force together
            for standing in answer:
                standing["in_force"] = left.get(f"{standing.get('role')}_draft") is None
    if as_json:
        print_json(answer)
    elif output is None:
        for standing in answer:
            state = "in force" if standing["in_force"] else "waits for more signatures"
            click.echo(
                f"{standing['role']} version {standing['version']}: {standing['signatures']} of "
                f"{standing['threshold']} signatures, {state}"
            )


class _Pen:
    """Signs with some keys, after showing what and asking."""

    def __init__(self, keys: list[OfflineKey], *, yes: bool) -> None:
        self._keys = keys
        self._yes = yes

    def sign(self, desk: Desk, additions: Additions) -> dict[str, str]:
        """Return signed metadata by role. Raises :class:`UsageError` when there is nothing that these keys may sign."""
        from tuf.api.serialization.json import JSONSerializer

        from edgeopt.signing.drafts import names_key, read_metadata

        root = read_metadata(desk.root_draft or desk.root)
        signed = {}
        for role, metadata in _to_sign(desk, additions).items():
            old_root = [read_metadata(desk.root)] if role == "root" else []
            for key in self._keys:
                if any(names_key(one, role, key.keyid) for one in (root, *old_root)):
                    self._show_and_sign(key, metadata)
                    signed[role] = metadata.to_bytes(JSONSerializer(compact=True)).decode()
        if not signed:
            named = ", ".join(key.keyid[:12] for key in self._keys)
            raise UsageError(
                f"nothing to sign: no metadata wait that the fleet's root lets {named} sign; give a bundle's DIR, "
                "or see: edgeopt-fleet keys list"
            )
        return signed

    def _show_and_sign(self, key: OfflineKey, metadata: Any) -> None:
        from edgeopt.signing.drafts import explain

        click.echo(f"{key.path} would sign (+ new, ~ changed, - gone since it signed last):", err=True)
        for line in explain(metadata, key.seen):
            click.echo(f"  {line}", err=True)
        if not self._yes and not click.confirm("Sign this?", err=True):
            raise UsageError("not signed")
        key.sign(metadata)


def _to_sign(desk: Desk, additions: Additions) -> dict[str, Any]:
    """Return what there is to sign, by role; a draft keeps the signatures that it has."""
    from edgeopt.signing.drafts import draft_targets, read_metadata

    wanted = {}
    if desk.root_draft is not None:
        wanted["root"] = read_metadata(desk.root_draft)
    if additions.bundles or additions.retire:
        wanted["targets"] = draft_targets(desk, additions, time.time())
    elif desk.targets_draft is not None:
        wanted["targets"] = read_metadata(desk.targets_draft)
    return wanted


def _additions(directories: tuple[Path, ...], rollback: tuple[str, ...] | None, retire: tuple[str, ...]) -> Additions:
    """Look at the bundles themselves: what is signed is what lies here, not what a server says about it."""
    from edgeopt.signing.drafts import Additions, Facts
    from edgeopt_contract.bundle import MANIFEST_NAME, open_bundle

    facts = []
    for directory in directories:
        bundle = open_bundle(directory)
        length = (directory / MANIFEST_NAME).stat().st_size
        facts.append(
            Facts(digest=bundle.digest, length=length, name=bundle.manifest.name, version=bundle.manifest.version)
        )
    return Additions(bundles=tuple(facts), rollback=rollback, retire=retire)


def _sign_file(source: Path, output: Path, additions: Additions, pen: _Pen) -> list[dict[str, Any]]:
    import msgspec

    from edgeopt_contract.storage import write_atomically

    try:
        exported = msgspec.json.decode(source.read_bytes())
    except (OSError, msgspec.MsgspecError) as error:
        raise UsageError(f"{source}: expected the file that 'edgeopt-fleet keys export' wrote: {error}") from error
    signed = pen.sign(_desk(exported), additions)
    write_atomically(output, msgspec.json.encode(signed, order="sorted"))
    click.echo(f"signed; take {output} to the fleet: edgeopt-fleet keys accept DIRECTORY {output}", err=True)
    return [{"role": role} for role in signed]


def _desk(answer: Any) -> Desk:
    import msgspec

    from edgeopt.signing.drafts import Desk

    try:
        return msgspec.convert(answer, Desk)
    except msgspec.ValidationError as error:
        raise UsageError(f"expected root and targets to sign ({error}); update the older program") from error


def _load_key(path: Path) -> OfflineKey:
    import os

    from edgeopt.signing.keys import OfflineKey, is_encrypted

    passphrase = None
    if is_encrypted(path):
        passphrase = os.environ.get(_VARIABLE) or click.prompt(f"Passphrase of {path}", hide_input=True, err=True)
    return OfflineKey.load(path, passphrase)
