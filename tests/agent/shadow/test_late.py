"""The shadow's part of the agent comes late, and takes nobody along when it goes."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys

import pytest

from edgeopt_agent.shadow.late import LateShadow

_SCRIPT = """
import json, sys
from edgeopt_agent.lean import keep_lean
keep_lean()
import edgeopt_agent.app
print(json.dumps([name for name in sys.modules if name.startswith("edgeopt_agent.shadow.")]))
"""


class Part:
    """Notes what it is told, and runs until told to fail."""

    def __init__(self) -> None:
        self.told: list[object] = []
        self.fails = asyncio.Event()

    def receive(self, payload: bytes) -> None:
        """Note it."""
        self.told.append(payload)

    def update_changed(self) -> None:
        """Note it."""
        self.told.append("update")

    def ends_on_purpose(self) -> None:
        """Note it."""
        self.told.append("end")

    async def run(self) -> None:
        """Wait and fail."""
        await self.fails.wait()
        raise RuntimeError("a fault of ours")


def test_agent_without_a_shadow_imports_none_of_it() -> None:
    """It would take memory on every device."""
    done = subprocess.run([sys.executable, "-c", _SCRIPT], capture_output=True, text=True, check=True)
    assert ["edgeopt_agent.shadow.late"] == json.loads(done.stdout)


async def test_made_for_the_first_order_and_told_what_came_before() -> None:
    """Nothing, to a device that was never given a shadow, makes nothing."""
    made: list[Part] = []

    def make() -> Part:
        made.append(Part())
        return made[-1]

    late = LateShadow(make, was_given=False)
    running = asyncio.create_task(late.run())
    late.receive(b"")
    late.update_changed()
    late.ends_on_purpose()
    await asyncio.sleep(0.01)
    assert not made
    late.receive(b"one")
    late.receive(b"")
    await asyncio.sleep(0.01)
    late.receive(b"two")
    late.update_changed()
    late.ends_on_purpose()
    assert [b"one", b"", b"two", "update", "end"] == made[0].told
    running.cancel()


async def test_device_that_was_given_one_makes_it_at_once() -> None:
    """A shadow that was cut off goes on without another order."""
    part = Part()
    running = asyncio.create_task(LateShadow(lambda: part, was_given=True).run())
    await asyncio.sleep(0.01)
    assert not running.done()
    running.cancel()


async def test_fault_of_ours_ends_the_shadow_and_not_the_agent(caplog: pytest.LogCaptureFixture) -> None:
    """Said with where it happened; orders that come later reach nobody."""
    part = Part()
    late = LateShadow(lambda: part, was_given=True)
    part.fails.set()
    await late.run()
    late.receive(b"more")
    assert '"event":"shadow_given_up"' in caplog.text
    assert [] == part.told
