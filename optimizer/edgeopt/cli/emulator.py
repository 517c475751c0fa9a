"""``edgeopt emulator``: what this machine needs to run models on other kinds of CPU.

``build`` is the one command of the optimizer that fetches anything. It judges nothing. Example::

    edgeopt emulator build
    edgeopt emulator show devices/raspberry-pi-4.toml
"""

from __future__ import annotations

from pathlib import Path

import click

__all__ = ["emulator"]

_EPILOG = """\b
Example:
  edgeopt emulator build
  edgeopt emulator show devices/raspberry-pi-4.toml
"""
_FOLDER = click.Path(path_type=Path, file_okay=False)


@click.group(epilog=_EPILOG)
def emulator() -> None:
    """Prepare this machine to certify models on other kinds of CPU."""


@emulator.command(epilog=_EPILOG)
@click.argument("directory", type=_FOLDER, required=False)
@click.option("--arch", default="aarch64", show_default=True, help="The architecture to emulate.")
@click.option("--mirror", help="Address of a Debian mirror; the one that this machine's apt uses unless given.")
@click.option("--wheel", "wheels", multiple=True, help="One more Python package for it; may be repeated.")
def build(directory: Path | None, arch: str, mirror: str | None, wheels: tuple[str, ...]) -> None:
    """Make a small system of another architecture, in DIRECTORY or in the cache.

    About 15 seconds, 200 MB, and a network: Python from Debian, NumPy and ONNX Runtime in the versions installed here.
    Nothing is installed on this machine.
    """
    from edgeopt.emulation.building import Request, build_root
    from edgeopt.emulation.root import roots_folder

    request = Request(arch=arch, folder=roots_folder(directory), mirror=mirror, wheels=wheels)
    root = build_root(request, on_step=lambda step: click.echo(step, err=True))
    packages = ", ".join(f"{name} {version}" for name, version in sorted(root.record.packages.items()))
    click.echo(f"{root.path}: {arch}, Python {root.record.python}, {packages}")


@emulator.command(epilog=_EPILOG)
@click.argument("profiles", type=click.Path(path_type=Path, dir_okay=False), nargs=-1, required=True)
@click.option("--emulator", "directory", type=_FOLDER, help="Where 'edgeopt emulator build' put its systems.")
def show(profiles: tuple[Path, ...], directory: Path | None) -> None:
    """Say on what models for each device profile would be certified here."""
    from edgeopt.emulation.execution import execution_for
    from edgeopt.targets import host_target, read_target

    host = host_target()
    for target in map(read_target, profiles):
        click.echo(f"{target.name}: {execution_for(target, host, directory).title}")
