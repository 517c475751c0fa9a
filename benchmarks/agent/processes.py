"""What a process holds in memory and how long it computed, as the kernel tells.

- RSS: all its pages; those that it shares with others are counted whole;
- PSS: each shared page divided by the number of processes that have it, so it depends on what else runs;
- USS: the pages that no other process has;
- *added*: what the machine would have free if this process ended and the other went on: its anonymous pages, and of
  each mapped file (libraries, the interpreter) the pages beyond those that the other has of it.

Example::

    memory_of(agent_pid).rss, added_memory(agent_pid, beside=runner_pid)
"""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Memory", "added_memory", "cpu_seconds", "memory_of"]

_KIB = 1024


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes."""

    rss: int
    pss: int
    uss: int


@dataclass(frozen=True, slots=True)
class _Pages:
    """Bytes of memory by what is behind them."""

    anonymous: int
    files: Counter[str]


def memory_of(pid: int) -> Memory:
    """Read ``/proc/PID/smaps_rollup``."""
    fields = _fields(Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:])
    return Memory(rss=fields["Rss"], pss=fields["Pss"], uss=fields["Private_Clean"] + fields["Private_Dirty"])


def added_memory(pid: int, *, beside: int) -> int:
    """Return the bytes that process ``pid`` adds to what the process ``beside`` holds anyway."""
    mine, theirs = _pages(pid), _pages(beside)
    return mine.anonymous + sum(max(0, size - theirs.files[name]) for name, size in mine.files.items())


def cpu_seconds(pid: int) -> float:
    """Return the time that all threads of a process computed, from ``/proc/PID/stat``."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _pages(pid: int) -> _Pages:
    """Read ``/proc/PID/smaps``: a line ``address perms offset device inode path``, then a line for each figure."""
    anonymous, files, name = 0, Counter[str](), ""
    for line in Path(f"/proc/{pid}/smaps").read_text().splitlines():
        words = line.split()
        if not words[0].endswith(":"):
            name = words[5] if len(words) > 5 and words[4] != "0" else ""
            rss = 0
        elif words[0] == "Rss:":
            rss = int(words[1]) * _KIB
        elif words[0] == "Anonymous:":  # of a mapped file: the pages that were written to
            own = int(words[1]) * _KIB
            anonymous += own
            files[name] += rss - own
    return _Pages(anonymous, files)


def _fields(lines: list[str]) -> Counter[str]:
    fields: Counter[str] = Counter()
    for line in lines:
        name, _, rest = line.partition(":")
        fields[name] += int(rest.split()[0]) * _KIB
    return fields
