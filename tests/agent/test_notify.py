"""What systemd hears, on a socket as it makes one."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path

import pytest

from edgeopt_agent.device.notify import Notifier


@pytest.mark.parametrize("abstract", [False, True])
async def test_ready_and_signs_of_life(tmp_path: Path, abstract: bool) -> None:  # noqa: FBT001
    """READY once, then WATCHDOG again and again, on a socket in the file system or in the abstract name space."""
    name = f"edgeopt-test-{tmp_path.name}" if abstract else str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(f"\0{name}" if abstract else name)
        systemd.settimeout(10)
        notifier = Notifier({"NOTIFY_SOCKET": f"@{name}" if abstract else name, "WATCHDOG_USEC": "20000"})
        task = asyncio.create_task(notifier.run())
        heard = [await asyncio.to_thread(systemd.recv, 100) for _ in range(3)]
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    assert [b"READY=1", b"WATCHDOG=1", b"WATCHDOG=1"] == heard


async def test_nothing_happens_outside_systemd(tmp_path: Path) -> None:
    """No socket, one that nobody listens on, or no watchdog: no error, and the task ends."""
    for environment in ({}, {"NOTIFY_SOCKET": str(tmp_path / "none")}, {"WATCHDOG_USEC": "soon"}):
        notifier = Notifier(environment)
        notifier.tell("READY=1")
        await asyncio.wait_for(notifier.run(), 10)
