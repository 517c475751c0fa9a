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
from edgeopt_fleet.metrics import Metrics
from tests.fleet.conftest import CAPABILITIES, Kit, eventually, window


class Running:
    """An ingest over a kit, and what it acknowledged."""

    def __init__(self, kit: Kit) -> None:
        self.metrics = Metrics()
        self.ingest = Ingest(kit.inbox, self.metrics, clock=lambda: kit.now)
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
    await asyncio.gather(running.task, return_exceptions=True)


async def test_many_messages_share_a_transaction_and_an_acknowledgement(kit: Kit, running: Running) -> None:
    """A burst of a hundred is one batch with one Ack for the whole session."""
    digest = kit.publish("1")
    for number in range(1, 101):
        running.ingest.receive([(Topics.telemetry("cam"), encode(window(digest, number, rows=1)))])
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
            running.ingest.receive([(Topics.telemetry("cam"), payload)])
        running.ingest.receive([(Topics.status("cam"), b'{"schema": 1}')])
        running.ingest.receive([(Topics.desired("cam"), b"{}")])
        running.ingest.receive([("edgeopt/v1/elsewhere", b"{}")])
        running.ingest.receive([(Topics.telemetry("cam"), encode(window("1" * 64, 1)))])
        await running.until_batches(1)
    assert 8 == running.ingest.malformed["cam"]
    assert 1 == sum("malformed" in record.message for record in caplog.records)
    assert (1, 8) == (kit.registry.device("cam").windows, kit.registry.device("cam").malformed)
    counted = running.metrics.registry.get_sample_value
    by_type = [
        counted("edgeopt_fleet_ingest_malformed_total", {"type": kind}) for kind in ("telemetry", "status", "unknown")
    ]
    assert [6.0, 1.0, 2.0] == by_type


async def test_a_status_on_another_device_s_topic_is_refused(kit: Kit, running: Running) -> None:
    """The payload must name the device of the topic."""
    kit.enrol("other")
    forged = Status(device="other", boot=9, online=False, agent_version="0", running=None, capabilities=CAPABILITIES)
    running.ingest.receive([(Topics.status("cam"), encode(forged))])
    await running.until_batches(1)
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
    running.ingest.receive([(Topics.telemetry("cam"), message)])
    await running.until_batches(1)
    assert [] == running.acks
    running.ingest.receive([(Topics.telemetry("cam"), message)])
    await running.until_batches(2)
    assert [1] == [ack.upto for _, ack in running.acks]


async def test_a_full_queue_asks_for_a_pause(kit: Kit) -> None:
    """More than fits is taken, for it was read already, but the answer says that nothing more should be read."""
    ingest = Ingest(kit.inbox)
    assert ingest.receive([("x", b"")] * 9_999)
    assert not ingest.receive([("x", b"")])


async def test_what_waits_is_stored_at_an_orderly_end(kit: Kit) -> None:
    """Draining commits and acknowledges all that was taken in, in as many batches as it needs."""
    kit.enrol("cam")
    ingest, acked = Ingest(kit.inbox), []

    async def acknowledge(acks: dict[str, list[Ack]]) -> None:
        acked.append(acks["cam"][0].upto)

    ingest.receive([(Topics.telemetry("cam"), encode(window("1" * 64, number))) for number in range(1, 1502)])
    await ingest.drain(acknowledge)
    assert [1000, 1501] == acked
    assert 1501 == kit.registry.device("cam").windows
