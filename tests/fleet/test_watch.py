from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import pytest
from prometheus_client import CollectorRegistry

from edgeopt_contract.errors import StorageError
from edgeopt_fleet.leases import Role
from edgeopt_fleet.metrics import Metrics
from edgeopt_fleet.serial import Serial
from edgeopt_fleet.store.database import Database
from edgeopt_fleet.store.leases import Leases
from edgeopt_fleet.watch import CONNECTED, Part, Watch


@dataclass
class Process:
    """One process of a fleet, whose state a test sets, and who looks at it with a clock that stands still."""

    database: Database
    owner: str = "me"
    duties: tuple[Role, ...] = tuple(Role)
    held: set[Role] = field(default_factory=set)
    hears: bool | None = None
    now: float = 100.0

    def __post_init__(self) -> None:
        self.metrics = Metrics()
        part = Part(owner=self.owner, duties=self.duties, held=lambda: self.held, hears=lambda: self.hears)
        self.watch = Watch(self.database, Serial(), self.metrics, part, clock=lambda: self.now)

    def take(self, *roles: Role, owner: str = "me", note: str = "") -> None:
        """Take roles in the database as ``owner``."""
        leases = Leases(self.database, owner=owner, seconds=60.0)
        taken = [lease for role in roles if (lease := leases.acquire(role)) is not None]
        assert len(roles) == len(taken)
        if note:
            leases.renew([replace(lease, note=note) for lease in taken])

    async def failing(self) -> set[str]:
        """Look, and return the checks that this process needs and that fail."""
        await self.watch.look()
        return {check.name for check in self.watch.readiness().checks if check.needed and not check.ok}

    def value(self, name: str, **labels: str) -> float | None:
        """Return one number for Prometheus."""
        registry: CollectorRegistry = self.metrics.registry
        return registry.get_sample_value(f"edgeopt_fleet_{name}", labels)


@pytest.fixture
def process(make_database: Callable[[], Database]) -> Process:
    """A process that does everything, of a fleet in which nobody holds a role yet."""
    return Process(make_database())


async def test_nothing_is_ready_before_it_has_looked(process: Process) -> None:
    """A balancer that asks in the first moment gets no."""
    found = process.watch.readiness()
    assert not found.ready
    assert "it was not asked yet" == found.checks[0].detail
    assert not process.watch.is_connected()


async def test_a_process_of_its_own_is_ready_when_all_roles_are_held_and_devices_are_heard(process: Process) -> None:
    """Each step on the way is named; only the last one makes it ready."""
    assert {f"role {role}" for role in Role} == await process.failing()
    process.take(*Role)
    process.held = set(Role)
    assert {"broker"} == await process.failing(), "the work has the role, and has not begun to connect"
    process.hears = False
    assert {"broker"} == await process.failing()
    process.hears = True
    assert set() == await process.failing()
    assert process.watch.readiness().ready


async def test_what_its_predecessor_held_does_not_make_it_ready(process: Process) -> None:
    """Killed and started again under the same name: the old leases stand for seconds, and say 'connected'."""
    process.take(*Role, note=CONNECTED)
    assert {f"role {role}" for role in Role} == await process.failing()
    assert not process.watch.is_connected()


async def test_a_standby_is_ready_while_others_work(process: Process) -> None:
    """It reaches the database, and what it may do is done; how the broker is, is the other one's to say."""
    process.take(*Role, owner="other")
    assert set() == await process.failing()
    told = {check.name: check for check in process.watch.readiness().checks}
    assert (False, False) == (told["broker"].ok, told["broker"].needed)
    assert "another process does not hear the devices" == told["broker"].detail
    assert not process.watch.is_connected()


async def test_what_the_holder_notes_is_believed(process: Process) -> None:
    """An API process knows from the lease whether the devices are heard; from an old look it knows nothing."""
    process.take(Role.INGEST, owner="other", note=CONNECTED)
    await process.watch.look()
    assert process.watch.is_connected()
    process.now += 3600
    assert not process.watch.is_connected()


async def test_an_api_process_needs_the_database_only(make_database: Callable[[], Database]) -> None:
    """Else one broken worker would take all of them out of the balancer; what is vacant is told."""
    api = Process(make_database(), owner="", duties=())
    assert set() == await api.failing()
    checks = {check.name: check for check in api.watch.readiness().checks}
    assert (False, "held by nobody that is known") == (checks["role ingest"].ok, checks["role ingest"].detail)
    assert 1.0 == api.value("role_vacant", role="ingest")


async def test_a_worker_needs_its_own_roles_only(make_database: Callable[[], Database]) -> None:
    """With the setting ``roles`` it cannot do the others'."""
    worker = Process(make_database(), duties=(Role.DRIFT,))
    assert {"role drift"} == await worker.failing()
    worker.take(Role.DRIFT)
    worker.held = {Role.DRIFT}
    assert set() == await worker.failing()


async def test_a_database_that_fails_or_hangs_is_noticed(process: Process, monkeypatch: pytest.MonkeyPatch) -> None:
    """A failure at once, with its words; a look that never returns after a while; then no number of the fleet is told.

    What is told by nobody raises an alert; what is told though it is old does not.
    """
    process.take(*Role)
    process.held, process.hears = set(Role), True
    assert set() == await process.failing()
    assert (1.0, 0.0) == (process.value("database_up"), process.value("devices", state="online"))
    assert 0.0 == process.value("shadow_devices")
    process.now += 3600  # nobody looks
    assert not process.watch.readiness().ready
    assert "it does not answer" == process.watch.readiness().checks[0].detail
    assert (0.0, None) == (process.value("database_up"), process.value("devices", state="online"))

    def fail(_database: Database) -> None:
        raise StorageError("the disk is gone")

    with monkeypatch.context() as patch:
        patch.setattr("edgeopt_fleet.watch.count", fail)
        await process.watch.look()
    assert "the disk is gone" == process.watch.readiness().checks[0].detail
    assert 0.0 == process.value("database_up")
    assert set() == await process.failing(), "it comes back by itself"


async def test_it_looks_until_it_is_cancelled(process: Process, monkeypatch: pytest.MonkeyPatch) -> None:
    """Again and again."""
    looks = asyncio.Semaphore(0)

    async def look() -> None:
        looks.release()

    monkeypatch.setattr("edgeopt_fleet.watch._LOOK_SECONDS", 0.0)
    monkeypatch.setattr(process.watch, "look", look)
    task = asyncio.create_task(process.watch.run())
    async with asyncio.timeout(60):
        for _ in range(3):
            await looks.acquire()
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()


async def test_each_shadow_says_how_it_agrees(process: Process) -> None:
    """Mean and what it surely reaches, each under its own name."""
    await process.watch.look()
    assert process.watch.census is not None
    process.watch.census = replace(process.watch.census, agreements={"next": (0.97, 0.94)}, shadow_devices=7)
    assert 0.97 == process.value("shadow_agreement_ratio", shadow="next")
    assert 0.94 == process.value("shadow_agreement_lower_ratio", shadow="next")
    assert 7.0 == process.value("shadow_devices")
