"""Peers whose requirements do not go together with this project's: each has an environment of its own.

The environment lies on top of the one that runs the benchmark: what is there already (torch, onnx, onnxruntime) is
shared, what the peer needs besides or in another version is installed into it, with pip, and only when it is asked
for (``--with-olive``, ``--with-inc``). Nothing is ever installed into the environment below. Example::

    python = interpreter(Path("~/.cache/edgeopt-benchmark").expanduser(), OLIVE)
"""

from __future__ import annotations

import subprocess
import sys
import sysconfig
import venv
from dataclasses import dataclass
from pathlib import Path

from benchmarks.optimizer.peers.port import Refused

__all__ = ["INC", "OLIVE", "Apart", "interpreter"]

_LAST_LINES = 3


@dataclass(frozen=True, slots=True)
class Apart:
    """An environment: its name, and what pip installs into it."""

    name: str
    requirements: tuple[str, ...]


OLIVE = Apart("olive", ("olive-ai==0.13.0",))
INC = Apart("inc", ("onnx-neural-compressor==1.0", "prettytable"))  # it does not declare that it needs prettytable


def interpreter(cache: Path, apart: Apart) -> Path:
    """Return the Python of the environment under ``cache``, made on first use. Raises :class:`Refused`."""
    folder = cache / apart.name
    python, ready = folder / "bin" / "python", folder / "ready"
    if ready.exists() and ready.read_text() == repr(apart.requirements):
        return python
    venv.create(folder, clear=True, with_pip=True, symlinks=True)
    below = sysconfig.get_path("purelib")
    found = next((folder / "lib").glob("python*/site-packages"))
    (found / "below.pth").write_text(f"import site; site.addsitedir({below!r})\n")
    command = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *apart.requirements]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        said = " ".join(done.stderr.strip().splitlines()[-_LAST_LINES:])
        raise Refused(
            f"pip install {' '.join(apart.requirements)} failed under Python {sys.version.split()[0]}: {said}"
        )
    ready.write_text(repr(apart.requirements))
    return python
