"""``edgeopt verify``: whether a bundle is what its manifest says. It changes nothing.

Example::

    edgeopt verify build/digits
"""

from __future__ import annotations

from pathlib import Path

import click

from edgeopt_contract.bundle import open_bundle

__all__ = ["verify"]

_EPILOG = """\b
Example:
  edgeopt verify build/digits
"""


@click.command(epilog=_EPILOG)
@click.argument("directory", type=click.Path(path_type=Path))
def verify(directory: Path) -> None:
    """Check every file of the bundle in DIRECTORY against its manifest.

    Exit code 0 when all is as it was written, 2 when a file is missing or was changed.
    """
    bundle = open_bundle(directory)
    manifest = bundle.manifest
    variants = ", ".join(variant.name for variant in manifest.variants)
    click.echo(f"{manifest.name} {manifest.version} is intact: {len(manifest.files)} files, variants {variants}")
    click.echo(f"digest {bundle.digest}")
