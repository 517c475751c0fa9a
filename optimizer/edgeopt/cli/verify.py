"""``edgeopt verify``: whether a bundle is what its manifest says, and what is in it. It changes nothing.

Example::

    edgeopt verify build/digits
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from edgeopt.inspection import Inspection

__all__ = ["verify"]

_EPILOG = """\b
Example:
  edgeopt verify build/digits
  edgeopt verify build/digits --json
"""


@click.command(epilog=_EPILOG)
@click.argument("directory", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print what is in the bundle as JSON.")
def verify(directory: Path, as_json: bool) -> None:  # noqa: FBT001  # click gives options by name
    """Check every file of the bundle in DIRECTORY against its manifest, and its evidence against its files.

    Exit code 0 when all is as it was written, 2 when a file is missing or was changed.
    """
    import msgspec

    from edgeopt.inspection import inspect_bundle

    found = inspect_bundle(directory)
    if as_json:
        click.echo(msgspec.json.format(msgspec.json.encode(found.plain()), indent=2).decode())
    else:
        _show(found)


def _show(found: Inspection) -> None:
    from edgeopt.wording import size

    manifest = found.bundle.manifest
    variants = ", ".join(variant.name for variant in manifest.variants)
    click.echo(f"{manifest.name} {manifest.version} is intact: {len(manifest.files)} files, variants {variants}")
    click.echo(f"digest {found.bundle.digest}")
    width = max(len(entry.path) for entry in manifest.files)
    for entry in manifest.files:
        click.echo(f"  {entry.path:<{width}}  {entry.role:<8}  {size(entry.size):>9}  {entry.sha256[:12]}")
    if found.evidence is None:
        click.echo("no evidence to check: an earlier edgeopt made this bundle")
    else:
        gets = ", ".join(f"{target} gets {chosen or 'none'}" for target, chosen in found.evidence.items())
        click.echo(f"the evidence agrees with the files: {gets}")
    if found.beside:
        click.echo(f"beside the bundle, not part of it: {', '.join(found.beside)}")
