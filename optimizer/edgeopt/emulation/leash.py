"""Become a program that dies when its parent dies, however the parent dies (Linux: PR_SET_PDEATHSIG).

The process id stays. Nothing else is watched. The parent is, to Linux, the thread that started the process. Example::

    python leash.py <pid of the parent> qemu-x86_64-static -cpu Haswell python worker.py
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

__all__ = ["leashed", "main", "tie"]

_PR_SET_PDEATHSIG = 1


def leashed(*command: str) -> list[str]:
    """Return the command line that runs ``command`` on the leash of this process."""
    return [sys.executable, "-P", __file__, str(os.getpid()), *command]


def main(arguments: list[str]) -> None:
    """Tie this process to its parent and become the program; ends at once if the parent is gone already."""
    parent, *command = arguments
    tie(int(parent))
    os.execvp(command[0], command)  # noqa: S606  (replacing this process is the purpose)


def tie(parent: int) -> None:
    """Let this process die with ``parent``, the process that started it; at once if that is gone already."""
    if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG) failed")
    if os.getppid() != parent:
        sys.exit()


if __name__ == "__main__":
    main(sys.argv[1:])
