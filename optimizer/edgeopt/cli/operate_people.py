"""The operator's commands about who may do what: users and their keys, tokens for devices, the audit log.

Each speaks to one operation of the fleet's HTTP API, which decides. A key that is made is printed once, or written to a
file like operator.json. Example::

    edgeopt users create alice --role operator --output alice.json
    edgeopt --fleet alice.json rollout list
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from edgeopt.cli.operate_options import (
    ListByDefault,
    connect,
    duration,
    example,
    fleet_options,
    print_json,
    show,
    tag_option,
)

__all__ = ["audit", "token", "users"]

_ROLES = ("viewer", "operator", "approver", "admin")


@click.group(cls=ListByDefault, epilog=example("edgeopt token create --uses 5 --tag site=oslo", "edgeopt token list"))
def token() -> None:
    """Make, list and revoke the tokens with which devices enrol."""


@token.command(
    "create",
    epilog=example(
        "edgeopt token create --uses 5 --expires 2h --tag site=oslo",
        'TOKEN="$(edgeopt token create)"',
    ),
)
@click.option("--uses", type=click.IntRange(min=1), default=1, show_default=True, help="How many devices may use it.")
@click.option("--expires", type=duration, default="1d", show_default=True, help="For how long it may be used.")
@click.option("--cohort", default="", help="A cohort whose tags the devices get, so that they belong to it.")
@tag_option("A tag that devices get when they enrol with it, like site=oslo; may be given several times.")
@fleet_options
def token_create(
    uses: int, expires: float, cohort: str, tags: tuple[tuple[str, str], ...], fleet: Path | None, *, as_json: bool
) -> None:
    """Make a token and print it. It is shown once."""
    with connect(fleet) as client:
        answer = client.create_token(uses, int(expires), dict(tags), cohort)
    if as_json:
        print_json(answer)
    else:
        click.echo(answer["token"])


@token.command("list", epilog=example("edgeopt token list"))
@fleet_options
def token_list(fleet: Path | None, *, as_json: bool) -> None:
    """List tokens, newest first, without their secrets."""
    with connect(fleet) as client:
        answer = client.tokens()
    if as_json:
        print_json(answer)
        return
    from edgeopt.cli.operate_cells import moment, table, tags

    columns = ("token", "used", "expires", "revoked", "made by", "tags")
    show(table(columns, [
        (
            one["id"],
            f"{one['uses'] - one['uses_left']} of {one['uses']}",
            moment(one["expires_at"]),
            moment(one["revoked_at"]),
            one["created_by"],
            tags(one["tags"]),
        )
        for one in answer
    ]))  # fmt: skip


@token.command("revoke", epilog=example("edgeopt token revoke 3fa94c0d1e2b5a68"))
@click.argument("token_id", metavar="ID")
@fleet_options
def token_revoke(token_id: str, fleet: Path | None, *, as_json: bool) -> None:
    """Make a token worthless, by the id that 'token list' shows. Devices that enrolled with it stay."""
    with connect(fleet) as client:
        answer = client.revoke_token(token_id)
    if as_json:
        print_json(answer)
    else:
        click.echo(f"token {token_id} is revoked")


@click.group(cls=ListByDefault, epilog=example("edgeopt users", "edgeopt users create alice --role operator"))
def users() -> None:
    """Say who may do what: people, their roles and their keys."""


@users.command("list", epilog=example("edgeopt users list"))
@fleet_options
def users_list(fleet: Path | None, *, as_json: bool) -> None:
    """List users, with the beginnings of their keys."""
    with connect(fleet) as client:
        answer = client.users()
    if as_json:
        print_json(answer)
        return
    from edgeopt.cli.operate_cells import moment, table

    show(table(("user", "role", "revoked", "keys"), [
        (
            user["name"],
            user["role"],
            moment(user["revoked_at"]),
            ", ".join(_key(key) for key in user["keys"] if key["revoked_at"] is None) or "-",
        )
        for user in answer
    ]))  # fmt: skip


@users.command("whoami", epilog=example("edgeopt users whoami"))
@fleet_options
def users_whoami(fleet: Path | None, *, as_json: bool) -> None:
    """Show whose key this is, and the role."""
    with connect(fleet) as client:
        answer = client.me()
    if as_json:
        print_json(answer)
    else:
        click.echo(f"{answer['name']}, {answer['role']}, by the key {answer['prefix']}…")


_lifetime = click.option("--expires", type=duration, help="How long the key lasts.  [default: until it is revoked]")
_output = click.option(
    "--output", type=click.Path(path_type=Path), metavar="FILE", help="Write address and key here (mode 0600)."
)


@users.command("create", epilog=example("edgeopt users create alice --role operator --output alice.json"))
@click.argument("name")
@click.option(
    "--role", type=click.Choice(_ROLES), required=True, help="What the user may do; each includes the one before."
)
@_lifetime
@_output
@fleet_options
def users_create(
    name: str, role: str, expires: float | None, output: Path | None, fleet: Path | None, *, as_json: bool
) -> None:
    """Add the user NAME and print the key. It is shown once."""
    with connect(fleet) as client:
        answer = client.create_user(name, role, None if expires is None else int(expires))
    _hand_over(answer, output, fleet, as_json=as_json)


@users.command("role", epilog=example("edgeopt users role alice approver"))
@click.argument("name")
@click.argument("role", type=click.Choice(_ROLES))
@fleet_options
def users_role(name: str, role: str, fleet: Path | None, *, as_json: bool) -> None:
    """Give the user NAME another ROLE; it counts from the next request on."""
    with connect(fleet) as client:
        answer = client.change_role(name, role)
    if as_json:
        print_json(answer)
    else:
        click.echo(f"{name} is {role}")


@users.command("rotate", epilog=example("edgeopt users rotate --output operator.json", "edgeopt users rotate alice"))
@click.argument("name", required=False)
@click.option("--overlap", type=duration, default="1h", show_default=True, help="How long the keys before it go on.")
@_lifetime
@_output
@fleet_options
def users_rotate(
    name: str | None, overlap: float, expires: float | None, output: Path | None, fleet: Path | None, *, as_json: bool
) -> None:
    """Make a new key for yourself, or for the user NAME, and print it; the keys before it end after the overlap."""
    with connect(fleet) as client:
        answer = client.rotate_key(name, int(overlap), None if expires is None else int(expires))
    _hand_over(answer, output, fleet, as_json=as_json)


@users.command("revoke", epilog=example("edgeopt users revoke alice", "edgeopt users revoke alice --key eok_Q3xk7ZpL"))
@click.argument("name")
@click.option("--key", default="", metavar="PREFIX", help="Only this key, by the beginning that 'users list' shows.")
@fleet_options
def users_revoke(name: str, key: str, fleet: Path | None, *, as_json: bool) -> None:
    """Take the user NAME out with all keys, or one key, at once."""
    with connect(fleet) as client:
        answer = client.revoke_user(name, key)
    if as_json:
        print_json(answer)
    else:
        click.echo(f"{f'the key {key} of {name}' if key else name} is revoked")


@click.group(cls=ListByDefault, epilog=example("edgeopt audit --subject rollout/v2", "edgeopt audit verify"))
def audit() -> None:
    """Show who did what, and check that nobody changed the record."""


@audit.command("list", epilog=example("edgeopt audit list --actor alice"))
@click.option("--actor", default="", help="Who: a user, device/ID, or edgeopt-fleet itself.")
@click.option("--operation", default="", help="What, like rollout.pause.")
@click.option("--subject", default="", help="To which thing, like rollout/v2.")
@click.option("--limit", type=click.IntRange(1, 1000), default=50, show_default=True, help="At most so many.")
@fleet_options
def audit_list(actor: str, operation: str, subject: str, limit: int, fleet: Path | None, *, as_json: bool) -> None:
    """List the audit log, newest first."""
    with connect(fleet) as client:
        answer = client.audit(actor=actor, operation=operation, subject=subject, limit=limit)
    if as_json:
        print_json(answer)
        return
    from edgeopt.cli.operate_views import audit_log

    show(audit_log(answer))


@audit.command("export", epilog=example("edgeopt audit export --output audit.jsonl"))
@click.option("--output", type=click.Path(path_type=Path), required=True, metavar="FILE", help="Where to.")
@fleet_options
def audit_export(output: Path, fleet: Path | None, *, as_json: bool) -> None:
    """Write the whole log as lines of JSON, and check it. 'edgeopt-fleet audit verify FILE' checks it anywhere."""
    from edgeopt_contract.storage import write_atomically

    content = _verified(fleet, "", as_json=as_json)
    write_atomically(output, content)


@audit.command("verify", epilog=example("edgeopt audit verify", "edgeopt audit verify --head 9f86d081884c7d65…"))
@click.option("--head", default="", metavar="SHA256", help="A head that was noted before: the log must contain it.")
@fleet_options
def audit_verify(head: str, fleet: Path | None, *, as_json: bool) -> None:
    """Check every entry of the log on this machine; note the head elsewhere, and give it the next time."""
    _verified(fleet, head, as_json=as_json)


def _verified(fleet: Path | None, head: str, *, as_json: bool) -> bytes:
    from edgeopt_contract.audit import verify_export

    with connect(fleet) as client:
        content = client.export_audit()
    found = verify_export(content.splitlines(keepends=True), head)
    if as_json:
        print_json({"entries": found.entries, "head": found.sha256})
    else:
        click.echo(f"{found.entries} entries, unbroken; head {found.sha256}")
    return content


def _hand_over(answer: dict[str, Any], output: Path | None, fleet: Path | None, *, as_json: bool) -> None:
    """Print a new key once, or write it where only its owner reads it."""
    if output is not None:
        from edgeopt.fleet_access import load_access
        from edgeopt_contract.storage import write_atomically
        from edgeopt_contract.values import canonical_json

        assert fleet is not None  # connect() has asked for it
        access = load_access(fleet)
        content = {"url": access.url, "key": answer["key"]} | ({"ca": access.ca} if access.ca else {})
        write_atomically(output, canonical_json(content) + b"\n", mode=0o600)
        answer = {name: value for name, value in answer.items() if name != "key"}
        click.echo(f"the access of {answer['name']} ({answer['role']}) is in {output}", err=True)
    if as_json:
        print_json(answer)
    elif output is None:
        click.echo(answer["key"])


def _key(key: dict[str, Any]) -> str:
    from edgeopt.cli.operate_cells import moment

    return f"{key['prefix']}…" + ("" if key["expires_at"] is None else f" until {moment(key['expires_at'])}")
