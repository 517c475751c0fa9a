"""What a process does about its memory at its start, seen in a process of its own."""

from __future__ import annotations

import platform
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

POOLS = """
import ctypes, sys, threading
if sys.argv[1] == "settled":
    from edgeopt_fleet.memory import settle_memory
    settle_memory()
libc = ctypes.CDLL(None)
libc.malloc.restype = libc.fopen.restype = ctypes.c_void_p
together = threading.Barrier(8)
def take():
    together.wait()
    libc.malloc(ctypes.c_size_t(1000))
    together.wait()
threads = [threading.Thread(target=take) for _ in range(8)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
file = ctypes.c_void_p(libc.fopen(sys.argv[2].encode(), b"w"))
libc.malloc_info(0, file)
libc.fclose(file)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="this C library is not glibc")
def test_threads_share_two_pools_of_freed_memory(tmp_path: Path) -> None:
    """Without that each of eight threads has one of its own."""
    pools = {}
    for name in ("settled", "plain"):
        path = tmp_path / name
        subprocess.run([sys.executable, "-c", POOLS, name, str(path)], check=True)
        pools[name] = len(ET.parse(path).findall("heap"))
    assert pools["settled"] <= 2 < pools["plain"]


def test_what_is_loaded_is_not_looked_through_again() -> None:
    """The objects of all modules are out of the collector's sight."""
    program = (
        "import gc, edgeopt_fleet.server\n"
        "from edgeopt_fleet.memory import settle_memory\n"
        "before = len(gc.get_objects())\n"
        "settle_memory()\n"
        "print(before, len(gc.get_objects()), gc.get_threshold()[0])"
    )
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    before, after, threshold = map(int, done.stdout.split())
    assert after < before / 100
    assert threshold > 700  # Python's own
