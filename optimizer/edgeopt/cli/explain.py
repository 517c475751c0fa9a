"""``edgeopt explain``: what a run found, in the terminal. It reads ``report.json`` and changes nothing.

Example::

    edgeopt explain build/digits
"""

from __future__ import annotations

from pathlib import Path

import click

from edgeopt_contract.errors import MissingExtraError, UsageError

__all__ = ["explain"]

_EPILOG = """\b
Example:
  edgeopt explain build/digits
  edgeopt explain build/digits/report.json --json
"""
_REPORT = "report.json"


@click.command(epilog=_EPILOG)
@click.argument("path", metavar="DIRECTORY", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print report.json itself.")
def explain(path: Path, as_json: bool) -> None:  # noqa: FBT001  # click gives options by name
    """Explain what the run that wrote DIRECTORY found: verdict, variants, what each rung gave, what to try next.

    DIRECTORY is what 'edgeopt quantize -o' wrote, whatever the verdict, or a report.json.
    """
    try:
        from edgeopt.explain import explain as explained
        from edgeopt.results import from_json
    except ModuleNotFoundError as error:
        raise MissingExtraError(error.name or "scipy", "optimizer") from error
    file = path / _REPORT if path.is_dir() else path
    try:
        data = file.read_bytes()
    except OSError as error:
        raise UsageError(
            f"cannot read {file} ({error.strerror}): give the directory that 'edgeopt quantize -o' wrote; a bundle "
            "that was fetched from elsewhere has no report, its model_card.md says the verdict"
        ) from error
    try:
        run = from_json(data)
    except UsageError as error:
        raise UsageError(f"{file}: {error}") from error
    click.echo(data.decode() if as_json else explained(run), nl=not as_json)
