"""One agent on one data directory, as another process sees it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgeopt_agent.device.lock import agent_of, only_agent_of
from edgeopt_contract.errors import UsageError

HOLDER = """
import sys
from pathlib import Path
from edgeopt_agent.device.lock import only_agent_of
with only_agent_of(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def holder(tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Another process that holds the lock of ``tmp_path``."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    assert b"held\n" == process.stdout.readline()
    yield process
    process.kill()
    process.communicate()


def test_nobody_holds_what_was_never_locked_or_is_free_again(tmp_path: Path) -> None:
    """Without an agent there is no process id, before the first start and after the last end."""
    assert agent_of(tmp_path) is None
    with only_agent_of(tmp_path):
        pass
    assert agent_of(tmp_path) is None


def test_second_agent_is_refused_and_the_first_is_named(tmp_path: Path, holder: subprocess.Popen[bytes]) -> None:
    """The lock tells who runs, and lets no other in."""
    assert holder.pid == agent_of(tmp_path)
    with pytest.raises(UsageError, match="another edgeopt-agent runs on"), only_agent_of(tmp_path):
        pass


def test_kill_frees_the_lock(tmp_path: Path, holder: subprocess.Popen[bytes]) -> None:
    """The kernel forgets a holder that dies, so nothing needs to be tidied up."""
    holder.kill()
    holder.wait()
    assert agent_of(tmp_path) is None
    with only_agent_of(tmp_path):
        pass
