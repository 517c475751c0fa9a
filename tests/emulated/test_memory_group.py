from __future__ import annotations

import subprocess
import sys

import pytest

from devices.emulator.memory_group import MemoryGroup, no_memory_groups

pytestmark = pytest.mark.skipif(no_memory_groups() is not None, reason=no_memory_groups() or "")

_TWO = "import os\nif os.fork() == 0: held = b'x' * {eaten}\nelse: print(os.waitstatus_to_exitcode(os.wait()[1]))"


def _eaten(group: MemoryGroup, size: int) -> int:
    """Let a child in the group use memory; return the child's exit code."""
    command = group.command(sys.executable, "-c", _TWO.format(eaten=size))
    return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def test_who_eats_too_much_is_killed_and_counted() -> None:
    """Below the limit all is well; above, the largest process dies and its parent lives to tell."""
    group = MemoryGroup.create("test", limit_bytes=96 << 20)
    try:
        assert 0 == _eaten(group, 30 << 20)
        assert 0 == group.kills()
        assert 30 << 20 < group.peak_bytes() < 96 << 20
        assert -9 == _eaten(group, 200 << 20)
        assert 1 == group.kills()
    finally:
        group.remove()
    assert not group.path.exists()
