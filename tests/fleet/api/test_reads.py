"""What is remembered about devices that download: for how long, and what ends it at once."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, cast

import pytest

from edgeopt_contract.errors import StorageError
from edgeopt_fleet.api.reads import DeviceReads
from edgeopt_fleet.api.services import Services
from edgeopt_fleet.serial import Serial
from edgeopt_fleet.store.bearers import Bearers
from edgeopt_fleet.store.identities import Identities, Secrets
from edgeopt_fleet.store.tokens import TokenGrant
from edgeopt_fleet.tuf.repository import Repository
from tests.fleet.conftest import Kit, eventually
from tests.identity import DeviceKey, issue


@dataclass
class Parts:
    """What of the services is used."""

    identities: Identities
    bearers: Bearers
    metadata: Repository
    serial: Serial


@dataclass
class Remembering:
    """A process that answers devices, with a clock that stands still, and how often it asked the database."""

    kit: Kit
    reads: DeviceReads
    parts: Parts
    asked: list[str]
    serial: str  # of the certificate of ``cam``
    now: float = 100.0

    async def valid(self, bearer: str = "b") -> bool:
        """Ask whose bearer it is."""
        found = await self.reads.bearer(bearer, int(self.kit.now))
        return found is not None and found.valid

    async def settled(self) -> None:
        """Wait until the look that goes on beside is over."""
        await eventually(lambda: asyncio.sleep(0, self.reads._looking is None), "the look")


@pytest.fixture
def remembering(kit: Kit) -> Iterator[Remembering]:
    """Enrol ``cam`` with the bearer ``b``; the process has stores of its own, as one of several."""
    token = kit.tokens.create(TokenGrant(uses=1, expires_at=2**31), kit.now)
    enrolled = kit.identities.enrol(token, kit.enrolment("cam", bearer="b"), int(kit.now))
    asked: list[str] = []

    class Counting(Serial):
        async def read(self, call: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
            asked.append(call.__name__)
            return await super().read(call, *args, **kwargs)

    serial = Counting()
    parts = Parts(
        Identities(kit.database), Bearers(kit.database), Repository(kit.database, kit.directory / "keys"), serial
    )
    made = Remembering(kit, cast("Any", None), parts, asked, enrolled.certificate.serial)
    made.reads = DeviceReads(cast("Services", parts), lambda: made.now)
    yield made
    serial.close()


def enrol(kit: Kit, device: str, identities: Identities | None = None) -> None:
    """Enrol a device whose bearer is ``bearer of`` its name."""
    token = kit.tokens.create(TokenGrant(uses=1, expires_at=2**31), kit.now)
    wanted = kit.enrolment(device, bearer=f"bearer of {device}")
    (identities or kit.identities).enrol(token, wanted, int(kit.now))


async def test_a_bearer_is_looked_up_once(remembering: Remembering) -> None:
    """Asked for again and again, it costs no more lookups; one that is unknown costs one each time."""
    for _ in range(5):
        assert await remembering.valid()
        assert not await remembering.valid("stranger")
    await remembering.settled()
    assert (6, 1) == (remembering.asked.count("whose"), remembering.asked.count("worthy"))


async def test_a_revocation_by_this_process_counts_at_once(remembering: Remembering) -> None:
    """Without any time passing."""
    assert await remembering.valid()
    remembering.parts.identities.revoke("cam", int(remembering.kit.now))
    assert not await remembering.valid()


async def test_a_revocation_by_another_process_counts_within_half_a_second(remembering: Remembering) -> None:
    """The look that notices it begins with the first request after that time."""
    assert await remembering.valid()
    await remembering.settled()
    remembering.kit.identities.revoke("cam", int(remembering.kit.now))
    remembering.now += 0.6
    await remembering.valid()
    await remembering.settled()
    assert not await remembering.valid()


async def test_what_was_known_at_the_start_is_not_asked_for(remembering: Remembering) -> None:
    """One look brings all bearers that are worth something; a device that comes for the first time costs no more."""
    enrol(remembering.kit, "old")
    remembering.kit.identities.revoke("old", int(remembering.kit.now))
    await remembering.reads.look()
    assert await remembering.valid()
    assert ["worthy"] == remembering.asked
    assert not await remembering.valid("bearer of old")


async def test_a_revocation_between_a_lookup_and_the_first_look_counts(remembering: Remembering) -> None:
    """The first look brings what is worth something, and no word of what is not any more."""
    lookup = remembering.parts.bearers.whose

    def slow(*arguments: Any) -> Any:
        found = lookup(*arguments)
        remembering.kit.identities.revoke("cam", int(remembering.kit.now))
        return found

    remembering.parts.bearers.whose = slow  # type: ignore[method-assign]
    assert await remembering.valid(), "it was when it was read"
    remembering.parts.bearers.whose = lookup  # type: ignore[method-assign]
    await remembering.reads.look()
    assert not await remembering.valid()


@pytest.mark.parametrize("own", [True, False], ids=["own", "another process's"])
async def test_changes_of_others_leave_what_is_remembered(remembering: Remembering, own: bool) -> None:  # noqa: FBT001
    """Devices enrol and renew all the time in a large fleet; that must not cost a lookup of everybody else."""
    kit = remembering.kit
    await remembering.reads.look()
    for number in range(3):
        device = f"new-{number}"
        enrol(kit, device, remembering.parts.identities if own else kit.identities)
        assert await remembering.valid()
        remembering.now += 0.6
        assert await remembering.valid()
        await remembering.settled()
        remembering.asked.clear()
        assert (True, True) == (await remembering.valid(), await remembering.valid(f"bearer of {device}"))
        assert "whose" not in remembering.asked, "the look has brought the new one, too"


async def test_what_is_remembered_ends_with_the_certificate(remembering: Remembering) -> None:
    """Its time runs out although nothing changes."""
    assert await remembering.valid()
    remembering.kit.now = 2.0**40
    assert not await remembering.valid()


async def test_a_bearer_that_was_replaced_is_forgotten(remembering: Remembering) -> None:
    """Two renewals later the first certificate is retired, and its bearer with it."""
    kit = remembering.kit
    assert await remembering.valid()
    serial = remembering.serial
    for at, new in ((1, "c"), (2, "d")):
        issued = issue(kit.authority, "cam", DeviceKey(), now=kit.now + at)
        secrets = Secrets(bearer_sha256=hashlib.sha256(new.encode()).hexdigest())
        renewed = remembering.parts.identities.renew("cam", serial, issued, secrets, int(kit.now) + at)
        serial = renewed.certificate.serial
    assert (False, True, True) == (
        await remembering.valid("b"),
        await remembering.valid("c"),
        await remembering.valid("d"),
    )


async def test_nothing_is_remembered_when_the_database_does_not_answer(
    remembering: Remembering, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For two seconds it may be a hiccup; then whoever asks is told that the database fails."""

    def fail(*_arguments: object) -> None:
        raise StorageError("the database is away")

    for _ in range(2):
        assert await remembering.valid()
    await remembering.settled()
    monkeypatch.setattr(remembering.parts.bearers, "since", fail)
    monkeypatch.setattr(remembering.parts.bearers, "whose", fail)
    for after in (0.6, 1.0):
        remembering.now += after
        assert await remembering.valid()
        await remembering.settled()
    remembering.now += 1.0
    with pytest.raises(StorageError):
        await remembering.valid()


async def test_metadata_are_read_again_when_they_change(remembering: Remembering) -> None:
    """At once when this process signed, within half a second when another one did."""
    reads, kit = remembering.reads, remembering.kit
    first = await reads.metadata()
    assert first == await reads.metadata() == kit.metadata.message()
    remembering.parts.metadata.renew(kit.now + 50 * 86400)
    second = await reads.metadata()
    assert first != second == kit.metadata.message()
    await remembering.settled()
    kit.metadata.renew(kit.now + 100 * 86400)
    remembering.now += 0.6
    await reads.metadata()
    await remembering.settled()
    assert second != await reads.metadata() == kit.metadata.message()
    assert 3 == remembering.asked.count("numbered")
