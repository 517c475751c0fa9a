"""Thousands of messages that are none, through the real ingest and database, with good ones in between."""

from __future__ import annotations

import asyncio
import json
import os
import random
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from sqlmodel import func, select

from edgeopt_contract.messages import Ack
from edgeopt_contract.topics import PREFIX
from edgeopt_fleet.decoding import kind_of
from edgeopt_fleet.ingest import Ingest
from edgeopt_fleet.metrics import Metrics
from edgeopt_fleet.store.tables import DeviceRow, ReportRow, SpoolRow, WindowRow
from tests.fleet.conftest import Kit
from tests.fuzz.hostile import DAMAGES, KINDS, spoil

pytestmark = pytest.mark.fuzz

GOLDEN = Path(__file__).parent.parent / "contract" / "golden"
MESSAGES = int(os.environ.get("EDGEOPT_FUZZ_MESSAGES", "1000"))  # of each type
EVERY = 20  # so many bad ones, then a good one
DEVICE = "cam-7"


def golden(kind: str) -> bytes:
    """Return the golden message of a kind."""
    return (GOLDEN / f"{kind}.v{KINDS[kind].SCHEMA}.json").read_bytes()


def good(kind: str, number: int) -> tuple[str, bytes]:
    """Return a good message of a kind; numbered ones have this number."""
    message: dict[str, Any] = json.loads(golden(kind))
    if kind == "status":
        message["boot"] = number
    else:
        message["number"] = number
    return f"{PREFIX}/devices/{DEVICE}/{kind}", json.dumps(message).encode()


def stored(kit: Kit) -> tuple[int, int, list[int], DeviceRow]:
    """Return how many reports and windows are stored, which numbers were seen, and the device."""
    with kit.database.reading() as session:
        reports = session.exec(select(func.count()).select_from(ReportRow)).one()
        windows = session.exec(select(func.count()).select_from(WindowRow)).one()
        spools = [row.upto for row in session.exec(select(SpoolRow)).all()]
        return reports, windows, spools, session.get_one(DeviceRow, DEVICE)


async def pour(kit: Kit, messages: list[tuple[str, bytes]]) -> tuple[Metrics, list[Ack]]:
    """Let the ingest take all messages; return what it counted and acknowledged."""
    metrics, acks = Metrics(), []

    async def acknowledge(several: dict[str, list[Ack]]) -> None:
        assert set(several) <= {DEVICE}
        acks.extend(several.get(DEVICE, []))

    ingest = Ingest(kit.inbox, metrics, clock=lambda: kit.now)
    for start in range(0, len(messages), 500):
        ingest.receive(messages[start : start + 500])
        await asyncio.wait_for(ingest.drain(acknowledge), 120)
    return metrics, acks


def counted(metrics: Metrics, name: str) -> Counter[str]:
    """Return a metric by type of message."""
    found: Counter[str] = Counter()
    for family in metrics.registry.collect():
        for sample in family.samples:
            if sample.name == name and sample.value:
                found[sample.labels["type"]] += int(sample.value)
    return found


@pytest.mark.parametrize("kind", sorted(KINDS))
async def test_malformed_messages_are_counted_and_nothing_else(
    kit: Kit, kind: str, record_property: pytest.RecordProperty
) -> None:
    """No exception, each counted by type and device, none stored or acknowledged; good ones in between are stored."""
    kit.enrol(DEVICE)
    generator = random.Random(f"{kind} 1")
    messages, expected, by_damage = [], Counter[str](), Counter[str]()
    goods = 0
    for index in range(MESSAGES):
        damage = sorted(DAMAGES)[index % len(DAMAGES)]
        message = spoil(generator, kind, golden(kind), DEVICE, damage)
        messages.append(message)
        expected[kind_of(message[0])] += 1
        by_damage[damage] += 1
        if index % EVERY == 0:
            goods += 1
            messages.append(good(kind, goods))
    metrics, acks = await pour(kit, messages)
    reports, windows, spools, device = stored(kit)
    assert expected == counted(metrics, "edgeopt_fleet_ingest_malformed_total")
    assert {kind: goods} == counted(metrics, "edgeopt_fleet_ingest_messages_total")
    assert (goods if kind == "reported" else 0, goods if kind == "telemetry" else 0) == (reports, windows)
    assert ([] if kind == "status" else [goods]) == spools
    assert (kind == "status") == (acks == [])
    assert all(ack.upto <= goods and not ack.beyond for ack in acks)
    assert (goods if kind == "status" else 1) == device.boot
    named = sum(topic.startswith(f"{PREFIX}/devices/{DEVICE}/") for topic, _ in messages) - goods
    assert 0 < device.malformed <= named
    record_property("malformed", sum(expected.values()))
    print(f"\n{kind}: {MESSAGES} malformed messages counted, none stored; {goods} good ones stored; {dict(by_damage)}")


async def test_a_good_message_would_have_been_counted_as_good(kit: Kit) -> None:
    """The damage is what is refused: the golden messages themselves are taken."""
    kit.enrol(DEVICE)
    metrics, _ = await pour(kit, [good(kind, 1) for kind in KINDS if kind != "reported"] + [good("reported", 2)])
    assert Counter() == counted(metrics, "edgeopt_fleet_ingest_malformed_total")
    assert (1, 1, [2]) == stored(kit)[:3]
