"""The arm64 system of all boards: Debian's Python, and the wheels that the agent's extra asks for. Made once, kept.

:mod:`edgeopt.emulation.building` makes it (about 20 s, 210 MB, with a network); here it is kept below
``$XDG_CACHE_HOME/edgeopt/boards`` under a hash of all that it is made of, so that another version of a dependency leads
to another system and an old checkout keeps its own. Two builders wait for each other; what a killed one leaves is
removed by the next; a system that nobody has used for a week goes when another is made. Without a network a system that
was made before serves. Example::

    with arm_root(on_step=print) as root:
        root / "usr" / "bin" / "python3.11"
"""

from __future__ import annotations

import fcntl
import hashlib
import inspect
import os
import shutil
import time
import tomllib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement

from edgeopt.emulation import building, cpus
from edgeopt.emulation.building import Request, build_root
from edgeopt.emulation.root import RECORD, cache_folder

__all__ = ["CHECKOUT", "agent_requirements", "arm_root", "root_key"]

CHECKOUT = Path(__file__).resolve().parents[2]
_ARCH = "aarch64"
_KEPT_SECONDS = 7 * 86_400.0
_UNFINISHED = ".building-*"  # how build_root names what it has not finished


@contextmanager
def arm_root(on_step: Callable[[str], None], folder: Path | None = None) -> Iterator[Path]:
    """Give the system's root folder, which stays at least until the block ends; make it first if there is none.

    ``folder`` is where systems are kept, the cache unless given. Raises :class:`UsageError` where one cannot be made
    here, and :class:`UnreachableError` when the packages cannot be had.
    """
    kept = folder or cache_folder() / "boards"
    wheels = agent_requirements((CHECKOUT / "pyproject.toml").read_text("utf-8"))
    place = kept / root_key(wheels)
    place.mkdir(parents=True, exist_ok=True)
    with (place / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_SH)
        while not (place / _ARCH / RECORD).is_file():
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not (place / _ARCH / RECORD).is_file():
                _tidy(kept, place)
                build_root(Request(arch=_ARCH, folder=place, wheels=wheels), on_step)
            fcntl.flock(lock, fcntl.LOCK_SH)  # not atomic, so the loop looks again
        os.utime(place)
        yield place / _ARCH / "root"


def agent_requirements(pyproject: str) -> tuple[str, ...]:
    """Return what a device installs, from the text of ``pyproject.toml``, in the versions of this machine.

    What is not installed here, or in a version that is not asked for, comes as ``pyproject.toml`` says.
    """
    project = tomllib.loads(pyproject)["project"]
    asked = [*project["dependencies"], *project["optional-dependencies"]["agent"]]
    return tuple(sorted(_as_here(Requirement(line)) for line in asked))


def _as_here(asked: Requirement) -> str:
    try:
        here = metadata.version(asked.name)
    except metadata.PackageNotFoundError:
        return str(asked)
    extras = f"[{','.join(sorted(asked.extras))}]" if asked.extras else ""
    return f"{asked.name}{extras}=={here}" if asked.specifier.contains(here, prereleases=True) else str(asked)


def root_key(wheels: tuple[str, ...]) -> str:
    """Return the name of the system that is made of ``wheels`` by the builder as it stands."""
    made_of = (inspect.getsource(building), inspect.getsource(cpus), *wheels)
    return hashlib.sha256("\0".join(made_of).encode()).hexdigest()[:16]


def _tidy(kept: Path, place: Path) -> None:
    """Remove what a killed builder left in ``place``, and other systems that nobody uses or has used for long."""
    for unfinished in place.glob(_UNFINISHED):
        shutil.rmtree(unfinished)
    for other in kept.iterdir():
        if other != place and time.time() - other.stat().st_mtime > _KEPT_SECONDS:
            with (other / "lock").open("w") as lock:
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    continue  # it is in use
                shutil.rmtree(other)
