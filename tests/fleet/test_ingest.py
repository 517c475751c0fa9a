from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator

import pytest

from edgeopt_contract.codec import encode
from edgeopt_contract.errors import StorageError
from edgeopt_contract.messages import Ack, Status
from edgeopt_contract.topics import Topics
from edgeopt_fleet.ingest import Ingest
from edgeopt_fleet.serial import Serial
from tests.fleet.conftest import CAPABILITIES, Kit, eventually, window


class Running:
    """An ingest over a kit, and what it acknowledged."""

    def __init__(self, kit: Kit) -> None:
        self.serial = Serial()
        self.ingest = Ingest(kit.inbox, self.serial, clock=lambda: kit.now)
        self.acks: list[tuple[str, Ack]] = []
        self.batches = 0
        self.task = asyncio.create_task(self.ingest.run(self._acknowledge))

    async def _acknowledge(self, acks: dict[str, list[Ack]]) -> None:
        self.batches += 1
        self.acks += [(device, ack) for device, several in acks.items() for ack in several]

    async def until_batches(self, count: int) -> None:
        """Wait until so many batches were stored."""
        await eventually(lambda: asyncio.sleep(0, self.batches >= count), f"{count} batches")


@pytest.fixture
async def running(kit: Kit) -> AsyncIterator[Running]:
    """Run an ingest for the device ``cam``."""
    kit.enrol("cam")
    running = Running(kit)
    yield running
    running.task.cancel()
    running.serial.close()


async def test_many_messages_share_a_transaction_and_an_acknowledgement(kit: Kit, running: Running) -> None:
    """A burst of a hundred is one batch with one Ack for the whole session."""
    digest = kit.publish("1")
    for number in range(1, 101):
        await running.ingest.receive(Topics.telemetry("cam"), encode(window(digest, number, rows=1)))
    await running.until_batches(1)
    assert running.batches <= 3
    assert ("cam", 100) == (running.acks[-1][0], running.acks[-1][1].upto)
    assert 100 == kit.registry.device("cam").windows


async def test_malformed_messages_are_counted_and_logged_once(
    kit: Kit, running: Running, caplog: pytest.LogCaptureFixture
) -> None:
    """They are not stored, raise nothing, and do not hold up good ones."""
    with caplog.at_level(logging.WARNING, "edgeopt_fleet"):
        for payload in (b"", b"{", b"[]", b'{"schema": 2}', b"\xff\xfe", b"x" * 100_000):
            await running.ingest.receive(Topics.telemetry("cam"), payload)
        await running.ingest.receive(Topics.status("cam"), b'{"schema": 1}')
        await running.ingest.receive(Topics.desired("cam"), b"{}")
        await running.ingest.receive("edgeopt/v1/elsewhere", b"{}")
        await running.ingest.receive(Topics.telemetry("cam"), encode(window("1" * 64, 1)))
        await running.until_batches(1)
    assert 8 == running.ingest.malformed["cam"]
    assert 1 == sum("malformed" in record.message for record in caplog.records)
    assert 1 == kit.registry.device("cam").windows


async def test_a_status_on_another_device_s_topic_is_refused(kit: Kit, running: Running) -> None:
    """The payload must name the device of the topic."""
    kit.enrol("other")
    forged = Status(device="other", boot=9, online=False, agent_version="0", running=None, capabilities=CAPABILITIES)
    await running.ingest.receive(Topics.status("cam"), encode(forged))
    assert 1 == running.ingest.malformed["cam"]
    assert kit.registry.device("other").online


async def test_what_cannot_be_stored_is_not_acknowledged(
    kit: Kit, running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full disk: the batch is dropped unacknowledged and the device sends it again later."""
    original, failures = kit.inbox.store, iter([StorageError("the disk is full")])

    def store(*arguments: object) -> object:
        for failure in failures:
            raise failure
        return original(*arguments)  # type: ignore[arg-type]  # passed through

    monkeypatch.setattr(kit.inbox, "store", store)
    monkeypatch.setattr("edgeopt_fleet.ingest._DISK_RETRY_SECONDS", 0.01)
    message = encode(window("1" * 64, 1))
    await running.ingest.receive(Topics.telemetry("cam"), message)
    await running.until_batches(1)
    assert [] == running.acks
    await running.ingest.receive(Topics.telemetry("cam"), message)
    await running.until_batches(2)
    assert [1] == [ack.upto for _, ack in running.acks]
