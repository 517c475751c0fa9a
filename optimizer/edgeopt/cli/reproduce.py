"""``edgeopt reproduce``: build a bundle again from its own lineage and compare it byte by byte. It keeps nothing.

Example::

    edgeopt reproduce build/digits
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from edgeopt_contract.errors import ExitCode, MissingExtraError

if TYPE_CHECKING:
    from edgeopt.reproduce import Reproduction

__all__ = ["reproduce"]

_EPILOG = """\b
Example:
  edgeopt reproduce build/digits
  edgeopt reproduce build/digits --data elsewhere/pictures

\b
Exit codes: 0 every file is identical, 1 one is not, 2 bad input or another edgeopt's bundle.
"""
_MARK = {"identical": "=", "not rebuilt": " "}


@click.command(epilog=_EPILOG)
@click.argument("directory", metavar="BUNDLE", type=click.Path(path_type=Path))
@click.option("--model", metavar="MODEL", help="The model, if it lies elsewhere now.")
@click.option("--data", metavar="DATA", help="The data that edgeopt split, if they lie elsewhere now.")
@click.option("--calibration-data", metavar="DATA", help="The same for your own three splits.")
@click.option("--selection-data", metavar="DATA", help="The same.")
@click.option("--certification-data", metavar="DATA", help="The same.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def reproduce(directory: Path, model: str | None, as_json: bool, **data: str | None) -> int:  # noqa: FBT001  # click's
    """Build the bundle in BUNDLE again from what its lineage says, and compare each file.

    Run it where the bundle was made: in the same folder, at the same commit. Nothing is timed or searched, and nothing
    is written. A difference comes with what is known to be another now: code, packages, data, CPU.
    """
    try:
        import msgspec
        from rich.console import Console

        from edgeopt import reproduce as work
        from edgeopt.machine import describe_machine
        from edgeopt.rebuilding import rebuild
    except ModuleNotFoundError as error:
        raise MissingExtraError(error.name or "onnx", "optimizer") from error
    from edgeopt.inspection import inspect_bundle

    bundle = inspect_bundle(directory).bundle
    moved = {name.removesuffix("_data"): source for name, source in data.items() if source is not None}
    with Console(stderr=True).status("building again …"):
        found = work.reproduce(
            bundle,
            lambda manifest: rebuild(manifest, directory),
            work.Moved(model=model, data=moved),
            (work.machine_of(directory), describe_machine()),
        )
    if as_json:
        plain = {"identical": found.identical, "files": found.files, "causes": found.causes, "digest": bundle.digest}
        click.echo(msgspec.json.format(msgspec.json.encode(plain), indent=2).decode())
    else:
        _show(found)
    return int(ExitCode.GOOD if found.identical else ExitCode.UNEXPECTED)


def _show(found: Reproduction) -> None:
    width = max(len(one.path) for one in found.files)
    for one in found.files:
        click.echo(f"{_MARK.get(one.outcome, '!')} {one.path:<{width}}  {one.outcome}")
    rebuilt = [one for one in found.files if one.outcome != "not rebuilt"]
    if found.identical:
        click.echo(f"reproduced: {len(rebuilt)} files are the same to the last bit")
        return
    different = sum(one.outcome != "identical" for one in rebuilt)
    click.echo(f"not reproduced: {different} of {len(rebuilt)} files differ")
    for cause in found.causes:
        click.echo(f"  {cause}")
