"""The outbox against a link that takes, loses and refuses."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from edgeopt_agent.reports.clerk import Clerk
from edgeopt_agent.reports.outbox import Outbox
from edgeopt_agent.reports.spool import Spool
from edgeopt_contract.codec import decode, encode
from edgeopt_contract.errors import UnreachableError
from edgeopt_contract.messages import Ack, Telemetry
from edgeopt_contract.topics import Channel, Topics


class FakeLink:
    """Remembers what was published."""

    def __init__(self) -> None:
        self.published: list[int] = []
        self.births = 0
        self.up = True

    async def wait_until_connected(self) -> None:
        """Is always."""

    async def announce(self) -> None:
        """Count a birth."""
        self.births += 1

    async def publish(self, topic: str, payload: bytes) -> None:
        """Take a message, or refuse it."""
        if not self.up:
            raise UnreachableError("not connected")
        assert Topics.telemetry("cam-1") == topic
        self.published.append(decode(Telemetry, payload).number)


class Rig:
    """An outbox at work."""

    def __init__(self, root: Path, resend_seconds: float) -> None:
        self.spool = Spool.open(root / "agent.db", now_ms=1)
        self.link = FakeLink()
        self.clerk = Clerk(lambda: Spool.open(root / "agent.db", now_ms=1))
        self.outbox = Outbox(self.spool, self.clerk, self.link, "cam-1", resend_seconds=resend_seconds)  # type: ignore[arg-type]

    def append(self, count: int) -> None:
        """Number ``count`` windows."""

        def build(session: int, number: int) -> Telemetry:
            return Telemetry(
                session=session, number=number, bundle="ab" * 32, variant="v", start=0, end=0, rows=0, errors=0,
                cells={}, latency=(),
            )  # fmt: skip

        for _ in range(count):
            with self.spool.transaction():
                self.spool.append(Channel.TELEMETRY, build)
        self.outbox.wake()

    def ack(self, upto: int, session: int = 1, beyond: tuple[int, ...] = ()) -> None:
        """Acknowledge."""
        self.outbox.receive_ack(encode(Ack(session=session, upto=upto, beyond=beyond)))

    async def until(self, probe: Callable[[], bool]) -> None:
        """Let the outbox work until ``probe`` holds."""
        async with asyncio.timeout(10):
            while not probe():  # noqa: ASYNC110  # there is no event for what a test looks at
                await asyncio.sleep(0.005)


@pytest.fixture(params=[30.0])
async def rig(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Rig]:
    """A running outbox; it resends after half a minute unless a test says otherwise."""
    rig = Rig(tmp_path, request.param)
    task = asyncio.create_task(rig.outbox.run())
    yield rig
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await rig.clerk.close()
    rig.spool.close()


async def test_messages_are_sent_once_in_order(rig: Rig) -> None:
    """Without a loss nothing is sent twice."""
    rig.append(3)
    await rig.until(lambda: len(rig.link.published) == 3)
    rig.append(2)
    await rig.until(lambda: len(rig.link.published) == 5)
    assert [1, 2, 3, 4, 5] == rig.link.published


async def test_no_more_than_a_window_is_under_way(rig: Rig) -> None:
    """A device that comes back after weeks does not flood the broker; acknowledgements move the window."""
    rig.append(100)
    await rig.until(lambda: len(rig.link.published) >= 64)
    assert list(range(1, 65)) == rig.link.published
    rig.ack(60)
    await rig.until(lambda: len(rig.link.published) >= 100)
    assert list(range(1, 101)) == rig.link.published


@pytest.mark.parametrize("rig", [0.05], indirect=True)
async def test_unacknowledged_messages_are_sent_again(rig: Rig) -> None:
    """Silence of the fleet leads to a repetition, again and again, until the ack comes."""
    rig.append(2)
    await rig.until(lambda: rig.link.published.count(1) >= 3)
    rig.ack(2)
    await rig.until(lambda: [] == rig.spool.unacknowledged(10))


@pytest.mark.parametrize("rig", [0.05], indirect=True)
async def test_a_gap_is_sent_again_while_later_numbers_are_acknowledged(rig: Rig) -> None:
    """A lost report must not wait for telemetry to pause: acknowledgements of later numbers say nothing of it."""
    rig.append(1)
    for number in range(2, 40):
        rig.append(1)
        rig.ack(0, beyond=(number,))
        await rig.until(lambda number=number: not {number} & {m.number for m in rig.spool.unacknowledged(64)})
        await asyncio.sleep(0.005)
    assert rig.link.published.count(1) >= 2


async def test_new_connection_starts_over(rig: Rig) -> None:
    """What the old connection took may never have arrived."""
    rig.append(2)
    await rig.until(lambda: len(rig.link.published) == 2)
    rig.ack(1)
    await rig.until(lambda: [2] == [message.number for message in rig.spool.unacknowledged(10)])
    rig.outbox.start_over()
    await rig.until(lambda: len(rig.link.published) == 3)
    assert [1, 2, 2] == rig.link.published


@pytest.mark.parametrize("rig", [0.05], indirect=True)
async def test_link_that_refuses_is_tried_again(rig: Rig) -> None:
    """A lost connection does not end the outbox."""
    rig.link.up = False
    rig.append(1)
    await asyncio.sleep(0)
    rig.link.up = True
    await rig.until(lambda: 1 in rig.link.published)


async def test_malformed_and_foreign_acks_change_nothing(rig: Rig) -> None:
    """Nonsense on the ack topic, or an ack of another session, forgets no message."""
    rig.append(2)
    rig.outbox.receive_ack(b"nonsense")
    rig.outbox.receive_ack(b"")
    rig.ack(2, session=99)
    await rig.clerk.do(lambda: None)
    assert 2 == len(rig.spool.unacknowledged(10))


async def test_birth_is_said_again_when_asked_and_not_otherwise(rig: Rig) -> None:
    """Each change is announced once; a new connection has announced it already."""
    rig.outbox.announce()
    await rig.until(lambda: rig.link.births == 1)
    rig.outbox.announce()
    rig.outbox.start_over()
    rig.append(1)
    await rig.until(lambda: rig.link.published == [1])
    assert 1 == rig.link.births
