"""Delivery over HTTP against a server that cuts off, damages, refuses and ignores what it was asked."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

import pytest

from edgeopt_agent.delivery.errand import DeliveryCounts, Errand, Wanted
from edgeopt_agent.delivery.fetching import Delivery, DeliveryOptions
from edgeopt_agent.delivery.flow import Budget
from edgeopt_agent.delivery.http_download import HttpAccess
from edgeopt_agent.delivery.over_http import HttpCarrier, gaps_of
from edgeopt_agent.delivery.store import Incoming
from edgeopt_agent.update.slots import Slots
from edgeopt_contract.bundle import Bundle
from edgeopt_contract.errors import UnreachableError
from edgeopt_contract.manifest import Capabilities, Role
from edgeopt_fleet.ranges import wanted_bytes
from tests.agent.conftest import blocks_of, wait_until
from tests.tiny import Recipe, tiny_bundle

BEARER = "s3cret"


@dataclass
class FakeServer:
    """Serves one bundle as the fleet does, with mishaps in between."""

    bundle: Bundle
    requests: list[str] = field(default_factory=list)
    ranges: list[str] = field(default_factory=list)
    sent: int = 0
    cut_after: list[int] = field(default_factory=list)  # bytes of body after which the next answers are cut off
    damage_at: int | None = None  # position in the model's file where a byte is wrong, once
    ignores_ranges: bool = False
    port: int = 0

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer requests until the client leaves or a mishap ends the connection."""
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                if not await self._respond(head.decode(), writer):
                    break
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    async def _respond(self, head: str, writer: asyncio.StreamWriter) -> bool:
        line, *rest = head.strip().split("\r\n")
        headers = {name.lower(): value for name, _, value in (entry.partition(": ") for entry in rest)}
        path = line.split()[1].removeprefix("/api/v1/")
        self.requests.append(path)
        if headers.get("authorization") != f"Bearer {BEARER}":
            writer.write(b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 12\r\n\r\nrenew please")
            return True
        data, tag = self._file(path)
        wanted = None
        if "range" in headers and headers["if-range"] == f'"{tag}"' and not self.ignores_ranges:
            self.ranges.append(headers["range"])
            wanted = wanted_bytes(headers["range"], len(data))
        status, extra = "200 OK", ""
        if wanted is not None:
            data, status, extra = data[wanted.first : wanted.last + 1], "206 Partial", f"Content-Range: {wanted}\r\n"
        writer.write(f"HTTP/1.1 {status}\r\nContent-Length: {len(data)}\r\n{extra}\r\n".encode())
        cut = self.cut_after.pop(0) if self.cut_after else None
        body = data if cut is None else data[:cut]
        self.sent += len(body)
        writer.write(body)
        await writer.drain()
        return cut is None

    def _file(self, path: str) -> tuple[bytes, str]:
        if path == f"blocks/{self.bundle.digest}":
            return (self.bundle.directory / "manifest.json").read_bytes(), self.bundle.digest
        name = path.removeprefix(f"bundles/{self.bundle.digest}/files/")
        entry = next(entry for entry in self.bundle.manifest.files if entry.path == name)
        data = bytearray(self.bundle.path_of(entry).read_bytes())
        if self.damage_at is not None and entry.role is Role.VARIANT:
            data[self.damage_at] ^= 1
            self.damage_at = None
        return bytes(data), entry.sha256


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[FakeServer]:
    """A bundle of about twenty blocks, served."""
    fake = FakeServer(tiny_bundle(tmp_path / "bundle", Recipe(padding_bytes=1_200_000)))
    async with await asyncio.start_server(fake.answer, "127.0.0.1", 0) as listening:
        fake.port = listening.sockets[0].getsockname()[1]
        yield fake


@pytest.fixture
def slots(tmp_path: Path, capabilities: Capabilities) -> Slots:
    """Empty slots."""
    slots = Slots(tmp_path / "slots", capabilities)
    slots.prepare()
    return slots


def carrier_to(server: FakeServer, bearer: str = BEARER, budget: Budget | None = None) -> HttpCarrier:
    """A carrier from the fake server."""
    access = HttpAccess(server=f"http://127.0.0.1:{server.port}", bearer=bearer, ca="")
    return HttpCarrier(lambda: access, budget or Budget(None))


def delivery_by(carrier: HttpCarrier, slots: Slots, tmp_path: Path, capabilities: Capabilities) -> Delivery:
    """A delivery with short pauses."""
    options = DeliveryOptions(
        incoming=tmp_path / "incoming", disk_reserve_bytes=0, retry_base_seconds=0.001, retry_cap_seconds=0.002
    )
    return Delivery([carrier], slots, options, capabilities, Random(1))


def errand_for_the_model(server: FakeServer, incoming: Incoming) -> Errand:
    """The largest file of the bundle, of which nothing is there."""
    incoming.prepare()
    model = max(server.bundle.manifest.files, key=lambda entry: entry.size)
    wanted = [Wanted(block.sha256, block.size) for block in model.blocks]
    return Errand(server.bundle.digest, wanted, incoming, DeliveryCounts(), [model])


async def test_files_come_whole_in_one_request_each(
    server: FakeServer, slots: Slots, tmp_path: Path, capabilities: Capabilities
) -> None:
    """The manifest, then one request a file; evidence stays where it is; the result is the bundle."""
    delivery = delivery_by(carrier_to(server), slots, tmp_path, capabilities)
    counts = await delivery.fetch(server.bundle.digest)
    needed = server.bundle.manifest.files_for(server.bundle.manifest.variants[0])
    expected = [
        f"blocks/{server.bundle.digest}",
        *(f"bundles/{server.bundle.digest}/files/{entry.path}" for entry in needed),
    ]
    assert expected == server.requests
    assert server.sent == counts.fetched_bytes
    slots.fill("a", delivery.manifest_bytes(server.bundle.digest), delivery.read)
    assert slots.holds("a", server.bundle.digest)
    assert [] == list((tmp_path / "incoming").glob("*.part"))


async def test_a_download_goes_on_at_the_byte_where_it_was_cut_off(
    server: FakeServer, slots: Slots, tmp_path: Path, capabilities: Capabilities
) -> None:
    """Cut off four times in the middle of blocks: no byte is sent twice."""
    server.cut_after = [100_000_000, 70_001, 5, 123_456, 300_000]
    delivery = delivery_by(carrier_to(server), slots, tmp_path, capabilities)
    counts = await delivery.fetch(server.bundle.digest)
    assert server.sent == counts.fetched_bytes
    slots.fill("a", delivery.manifest_bytes(server.bundle.digest), delivery.read)
    assert any(not wanted.startswith("bytes=0-") for wanted in server.ranges)


async def test_a_new_delivery_goes_on_where_the_last_one_was_killed(
    server: FakeServer, slots: Slots, tmp_path: Path, capabilities: Capabilities
) -> None:
    """The beginning of a block lies on the disk; one that is damaged there costs that block."""
    server.cut_after = [70_001]
    errand = errand_for_the_model(server, Incoming(tmp_path / "incoming"))
    with pytest.raises(UnreachableError, match="cut off"):
        await carrier_to(server).bring(errand)
    (part,) = (tmp_path / "incoming").glob("*.part")
    part.write_bytes(b"\0" * part.stat().st_size)  # what a power cut may leave

    delivery = delivery_by(carrier_to(server), slots, tmp_path, capabilities)
    counts = await delivery.fetch(server.bundle.digest)

    assert 1 == counts.damaged
    slots.fill("a", delivery.manifest_bytes(server.bundle.digest), delivery.read)


async def test_a_damaged_block_costs_that_block(
    server: FakeServer, slots: Slots, tmp_path: Path, capabilities: Capabilities
) -> None:
    """One wrong byte: its block is fetched once more, the rest of the answer is used."""
    server.damage_at = 400_000
    counts = await delivery_by(carrier_to(server), slots, tmp_path, capabilities).fetch(server.bundle.digest)
    assert 1 == counts.damaged
    assert server.sent - counts.fetched_bytes <= 128 * 1024
    assert 2 == sum("onnx" in path for path in server.requests)


async def test_a_server_that_ignores_ranges_is_no_way(
    server: FakeServer, slots: Slots, tmp_path: Path, capabilities: Capabilities
) -> None:
    """Rather another way than the whole file again and again."""
    server.cut_after = [100_000_000, 70_001]
    server.ignores_ranges = True
    task = asyncio.create_task(
        delivery_by(carrier_to(server), slots, tmp_path, capabilities).fetch(server.bundle.digest)
    )
    await asyncio.to_thread(wait_until, "a few attempts", lambda: len(server.requests) >= 5)
    server.ignores_ranges = False
    counts = await task
    blocks = blocks_of(server.bundle)
    assert (len(blocks), 0) == (counts.fetched, counts.damaged)
    assert sum(map(len, blocks.values())) == counts.fetched_bytes


@pytest.mark.parametrize(
    ("bearer", "port", "reason"), [("wrong", None, "401 renew please"), (BEARER, 1, "no fleet answers at http://127")]
)
async def test_refusals_say_why(server: FakeServer, tmp_path: Path, bearer: str, port: int | None, reason: str) -> None:
    """A bearer that is not accepted, and nobody there."""
    server.port = port or server.port
    wanted = [Wanted(server.bundle.digest, 1 << 20, exact=False)]
    errand = Errand(server.bundle.digest, wanted, Incoming(tmp_path / "incoming"), DeliveryCounts())
    with pytest.raises(UnreachableError, match=reason):
        await carrier_to(server, bearer).bring(errand)


def test_gaps_are_runs_of_missing_blocks(tmp_path: Path) -> None:
    """Blocks that are there divide the requests; a block that stands twice is asked for once."""
    bundle = tiny_bundle(tmp_path / "bundle", Recipe(padding_bytes=1_200_000))
    model = max(bundle.manifest.files, key=lambda entry: entry.size)
    hashes = [block.sha256 for block in model.blocks]
    there = hashes[3]
    gaps = gaps_of([model, model], set(hashes) - {there})
    sizes = [block.size for block in model.blocks]
    assert [(0, sum(sizes[:3])), (sum(sizes[:4]), model.size)] == [(gap.offset, gap.end) for gap in gaps]
