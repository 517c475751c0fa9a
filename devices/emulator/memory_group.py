"""A limit on the memory of a board and all that runs on it: a control group of its own (Linux's version 1).

Not the address space of one process, which QEMU hides from its guests: what all of them have touched. When it is used
up, the kernel kills the largest process. Needs root. Example::

    group = MemoryGroup.create("pi4", limit_bytes=256 << 20)
    subprocess.Popen(group.command("python3", "hungry.py"))
    group.kills(), group.peak_bytes()
    group.remove()
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from edgeopt_contract.errors import UsageError

__all__ = ["MemoryGroup", "no_memory_groups"]

_ENDING_SECONDS = 10.0
_CONTROLLER = Path("/sys/fs/cgroup/memory")


def no_memory_groups() -> str | None:
    """Return why memory cannot be limited here, in one sentence, or ``None`` when it can."""
    if not (_CONTROLLER / "memory.limit_in_bytes").exists():
        return f"limits on a board's memory need version 1 of the memory control groups, which {_CONTROLLER} has not"
    if not os.access(_own(), os.W_OK):
        return f"limits on a board's memory need root: {_own()} may not be written"
    return None


@dataclass(frozen=True, slots=True)
class MemoryGroup:
    """A control group below that of this process."""

    path: Path

    @classmethod
    def create(cls, name: str, *, limit_bytes: int) -> Self:
        """Make a group. Raises :class:`UsageError` where that cannot be."""
        reason = no_memory_groups()
        if reason is not None:
            raise UsageError(reason)
        group = cls(_own() / f"edgeopt-{os.getpid()}-{name}")
        group.path.mkdir()
        (group.path / "memory.limit_in_bytes").write_text(str(limit_bytes))
        return group

    def command(self, *command: str) -> list[str]:
        """Return the command line that runs ``command`` in the group from its first instruction on."""
        return ["sh", "-c", 'echo $$ >"$0" && exec "$@"', str(self.path / "cgroup.procs"), *command]

    def kills(self) -> int:
        """Return how many processes the kernel killed because the memory was used up."""
        lines = (self.path / "memory.oom_control").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("oom_kill "))

    def peak_bytes(self) -> int:
        """Return the most memory that was in use, with the files that the kernel kept in memory for the group."""
        return int((self.path / "memory.max_usage_in_bytes").read_text())

    def remove(self) -> None:
        """Remove the group when what was killed in it is gone. Raises ``OSError`` if something goes on running."""
        deadline = time.monotonic() + _ENDING_SECONDS
        while (self.path / "cgroup.procs").read_text() and time.monotonic() < deadline:
            time.sleep(0.01)
        self.path.rmdir()


def _own() -> Path:
    """Return the group of this process."""
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        if "memory" in controllers.split(","):
            return _CONTROLLER / path.lstrip("/")
    return _CONTROLLER
