"""What all boards start from: the arm64 system, the agent of this checkout, and QEMU. Made for one run.

The agent is copied as it is when the run starts, and compiled, because Python takes twice as long to start without.
Example::

    with board_image(on_step=print) as image:
        Board(profile, Path("pi4"), image)
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from devices.emulator.arm_root import CHECKOUT, arm_root
from edgeopt.emulation.building import compile_modules
from edgeopt.emulation.execution import find_qemu
from edgeopt_contract.errors import UsageError

__all__ = ["NAMESPACES", "Image", "board_image", "no_boards"]

NAMESPACES = (
    *("unshare", "--user", "--map-root-user", "--mount", "--pid", "--ipc", "--uts"),
    *("--fork", "--kill-child"),  # who kills the first process kills all
)
_QEMU = "qemu-aarch64"
_PACKAGES = ("contract/edgeopt_contract", "agent/edgeopt_agent")
_TRIAL = "mount -t proc proc /proc && mount -t binfmt_misc binfmt_misc /proc/sys/fs/binfmt_misc"


@dataclass(frozen=True, slots=True)
class Image:
    """Where the parts lie on this machine."""

    root: Path
    program: Path
    qemu: Path


def no_boards() -> str | None:
    """Return why boards cannot be emulated here, in one sentence, or ``None`` when they can (given a root)."""
    qemu = find_qemu(_QEMU)
    if qemu is None or not qemu.endswith("-static"):
        return f"emulated boards need {_QEMU}-static (Debian: apt-get install qemu-user-static)"
    if shutil.which("unshare") is None:
        return "emulated boards need the tool unshare (Debian: apt-get install util-linux)"
    tried = subprocess.run([*NAMESPACES, "sh", "-c", _TRIAL], capture_output=True, text=True, check=False)
    if tried.returncode != 0:
        said = tried.stderr.strip() or f"exit code {tried.returncode}"
        return f"emulated boards need user namespaces with a binfmt_misc of their own (Linux 6.7 or newer): {said}"
    return None


@contextmanager
def board_image(on_step: Callable[[str], None]) -> Iterator[Image]:
    """Give an image until the block ends. Raises :class:`UsageError` where boards cannot be emulated, with the reason.

    The first time it needs a network; raises :class:`UnreachableError` when that fails.
    """
    reason = no_boards()
    if reason is not None:
        raise UsageError(reason)
    qemu = find_qemu(_QEMU)
    assert qemu is not None  # no_boards has looked
    with arm_root(on_step) as root, tempfile.TemporaryDirectory(prefix="edgeopt-boards-") as folder:
        program = Path(folder)
        program.chmod(0o755)
        for package in _PACKAGES:
            source = CHECKOUT / package
            shutil.copytree(source, program / source.name, ignore=shutil.ignore_patterns("__pycache__"))
        compile_modules(program)
        yield Image(root, program, Path(qemu))
