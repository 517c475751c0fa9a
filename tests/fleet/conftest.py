"""A small bundle, a fleet in memory-speed pieces, and a device that speaks the protocol without an agent."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import aiomqtt
import httpx
import numpy as np
import pytest
from fastapi import FastAPI

from edgeopt_contract.bundle import Bundle, BundleContents, write_bundle
from edgeopt_contract.codec import decode, encode
from edgeopt_contract.enrolment import EnrolResponse
from edgeopt_contract.manifest import Capabilities, Role, TensorSpec, Variant
from edgeopt_contract.messages import (
    Ack,
    Desired,
    DeviceState,
    Reported,
    Status,
    Telemetry,
)
from edgeopt_contract.profile import (
    CONFIDENCE_EDGES,
    FeatureSpec,
    ReferenceFeature,
    ReferenceProfile,
    Source,
    Summary,
    count_values,
)
from edgeopt_contract.topics import Topics
from edgeopt_fleet.api.app import create_app
from edgeopt_fleet.api.operations import Operations
from edgeopt_fleet.api.services import Reach, Services
from edgeopt_fleet.api.watchers import Watchers
from edgeopt_fleet.ca import DeviceAuthority
from edgeopt_fleet.drift import DriftRules
from edgeopt_fleet.filters import DeviceFilter
from edgeopt_fleet.metrics import Metrics
from edgeopt_fleet.rates import Limits
from edgeopt_fleet.rights import Role as PersonRole
from edgeopt_fleet.serial import Serial
from edgeopt_fleet.store.alert_book import AlertBook
from edgeopt_fleet.store.alerts import Alerts
from edgeopt_fleet.store.audit import AuditLog
from edgeopt_fleet.store.bearers import Bearers
from edgeopt_fleet.store.blocks import dump_blocks
from edgeopt_fleet.store.bundles import Bundles
from edgeopt_fleet.store.cohorts import Cohorts, find_cohort
from edgeopt_fleet.store.database import Address, Database
from edgeopt_fleet.store.downloads import Downloads
from edgeopt_fleet.store.feed import Feed
from edgeopt_fleet.store.idempotency import AnswerBook
from edgeopt_fleet.store.identities import Enrolment, Identities, Secrets
from edgeopt_fleet.store.inbox import Inbox, Incoming
from edgeopt_fleet.store.looks import Looks
from edgeopt_fleet.store.outbox import Outbox
from edgeopt_fleet.store.registry import Registry
from edgeopt_fleet.store.rollouts import Rollouts
from edgeopt_fleet.store.shadow_looks import ShadowLooks
from edgeopt_fleet.store.shadows import Shadows
from edgeopt_fleet.store.tokens import TokenGrant, Tokens
from edgeopt_fleet.store.users import Users
from edgeopt_fleet.tuf.keys import create_server_key
from edgeopt_fleet.tuf.metadata import ROLES
from edgeopt_fleet.tuf.repository import Repository
from edgeopt_fleet.watch import Part, Watch
from edgeopt_fleet.worker import Worker
from tests.identity import DeviceKey, enrol_request, issue

CAPABILITIES = Capabilities(
    arch="x86_64", features=("avx2",), runtimes={"onnxruntime": "1.31"}, cores=4, memory_bytes=2**30
)
CONFIDENCE = FeatureSpec(
    name="confidence", source=Source.OUTPUT, tensor="y", summary=Summary.CONFIDENCE, edges=CONFIDENCE_EDGES
)
BRIGHTNESS = FeatureSpec(
    name="brightness",
    source=Source.INPUT,
    tensor="x",
    summary=Summary.MEAN,
    edges=tuple(float(edge) for edge in np.linspace(0, 1, 17)),
)


def reference_profile(seed: int = 0) -> ReferenceProfile:
    """Return a profile of 500 rows: brightness around 0.5, confidence around 0.85."""
    generator = np.random.default_rng(seed)
    features = []
    for spec, centre in ((BRIGHTNESS, 0.5), (CONFIDENCE, 0.85)):
        values = np.clip(generator.normal(centre, 0.1, 500), 0, 1)
        counts = tuple(int(n) for n in count_values(spec, values))
        features.append(ReferenceFeature(spec=spec, counts=counts, mean=float(values.mean()), std=float(values.std())))
    return ReferenceProfile(rows=500, features=tuple(features))


def make_bundle(directory: Path, version: str) -> Bundle:
    """Write a bundle whose model is a few kilobytes of noise: the fleet never looks inside."""
    generator = np.random.default_rng(int(hashlib.sha256(version.encode()).hexdigest()[:8], 16))
    variant = Variant(
        name="int8",
        file="int8.onnx",
        runtime="onnxruntime",
        minimum_runtime="1.20",
        arch=(),
        features=(),
        certified_for=(),
        tolerance=0.1,
    )
    return write_bundle(
        directory,
        BundleContents(
            name="digits",
            version=version,
            inputs=(TensorSpec(name="x", dtype="float32", shape=(8, 8)),),
            outputs=(TensorSpec(name="y", dtype="float32", shape=(10,)),),
            labels=(),
            variants=(variant,),
            lineage={"made_by": "a test"},
            files={
                "int8.onnx": (Role.VARIANT, generator.bytes(200_000)),
                "golden.npz": (Role.GOLDEN, generator.bytes(100)),
                "profile.json": (Role.PROFILE, encode(reference_profile())),
                "report.html": (Role.EVIDENCE, b"<p>PASS</p>" + version.encode()),
            },
        ),
    )


def window(bundle: str, number: int, *, rows: int = 60, brightness: float = 0.5, confidence: float = 0.85) -> Telemetry:
    """Return a telemetry window of ``rows`` rows around the given values."""
    generator = np.random.default_rng(number)
    cells = {}
    for spec, centre in ((BRIGHTNESS, brightness), (CONFIDENCE, confidence)):
        values = np.clip(generator.normal(centre, 0.1, rows), 0, 1)
        cells[spec.name] = tuple(int(n) for n in count_values(spec, values))
    return Telemetry(
        session=1,
        number=number,
        bundle=bundle,
        variant="int8",
        start=100 + number,
        end=101 + number,
        rows=rows,
        errors=0,
        cells=cells,
        latency=(rows,),
    )


async def eventually(probe: Callable[[], Awaitable[Any]], what: str, seconds: float = 120.0) -> Any:
    """Return the first truthy value of ``probe``; fail after a deadline, naming ``what``."""
    try:
        async with asyncio.timeout(seconds):
            while True:
                try:
                    value = await probe()
                except httpx.TransportError:
                    value = None
                if value:
                    return value
                await asyncio.sleep(0.03)
    except TimeoutError as error:
        raise AssertionError(f"{what}: not within {seconds:.0f} s") from error


@dataclass
class Kit:
    """The stores of one fleet over a real database, with a clock that stands still until it is moved."""

    database: Database
    address: Address
    directory: Path
    registry: Registry
    cohorts: Cohorts
    users: Users
    tokens: Tokens
    audit: AuditLog
    identities: Identities
    authority: DeviceAuthority
    bundles: Bundles
    rollouts: Rollouts
    alerts: Alerts
    inbox: Inbox
    outbox: Outbox
    metadata: Repository
    now: float = 1000.0
    numbers: dict[str, int] = field(default_factory=dict)

    def enrol(self, *devices: str, **tags: str) -> None:
        """Enrol devices with these tags and report each online."""
        for device in devices:
            token = self.tokens.create(TokenGrant(uses=1, expires_at=2**31), self.now)
            self.identities.enrol(token, self.enrolment(device, **tags), int(self.now))
            self.status(device)

    def enrolment(self, device: str, key: DeviceKey | None = None, *, bearer: str = "", **tags: str) -> Enrolment:
        """Return a device that wants in, with a certificate for ``key`` (by default a new one)."""
        return Enrolment(
            device=device,
            tags=tags,
            capabilities=CAPABILITIES,
            issued=issue(self.authority, device, key or DeviceKey(), now=self.now),
            secrets=Secrets(bearer_sha256=hashlib.sha256(bearer.encode()).hexdigest()),
        )

    def put_cohort(self, name: str, **tags: str) -> None:
        """Save a cohort of the devices with these tags."""
        self.cohorts.put(name, DeviceFilter(tags=tags), self.now, lambda _present: None)

    def members(self, cohort: str) -> tuple[str, ...]:
        """Return who belongs to a cohort now."""
        with self.database.reading() as session:
            return find_cohort(session, cohort).devices

    def publish(self, version: str) -> str:
        """Publish a bundle with all its blocks and return its digest."""
        bundle = make_bundle(self.directory / f"bundle-{version}", version)
        for entry in bundle.manifest.files:
            data = bundle.path_of(entry).read_bytes()
            offset = 0
            for block in entry.blocks:
                self.bundles.put_block(block.sha256, data[offset : offset + block.size])
                offset += block.size
        posted = self.bundles.post((bundle.directory / "manifest.json").read_bytes(), self.now)
        assert posted.missing == ()
        return posted.digest

    def status(self, device: str, *, online: bool = True, running: str | None = None, boot: int = 1) -> None:
        """Store a birth or death."""
        record = Status(
            device=device,
            boot=boot,
            online=online,
            agent_version="0",
            running=running,
            capabilities=CAPABILITIES,
        )
        self.inbox.store([Incoming(device=device, record=record)], self.now)

    def next_number(self, device: str) -> int:
        """Count the messages of a device."""
        self.numbers[device] = self.numbers.get(device, 0) + 1
        return self.numbers[device]

    def report(
        self, device: str, state: DeviceState, runs: str | None, job: str | None = None, *, detail: str = ""
    ) -> Reported:
        """Store a report on the job that the device was given last."""
        row = self.registry.device(device)
        record = Reported(
            session=1,
            number=self.next_number(device),
            at=int(self.now),
            job=job or row.desired_job or "none",
            bundle=row.desired_bundle or "0" * 64,
            state=state,
            running=runs,
            detail=detail,
        )
        self.inbox.store([Incoming(device=device, record=record)], self.now)
        return record

    def serve(self, device: str, bundle: str, **values: Any) -> Telemetry:
        """Store a telemetry window."""
        record = window(bundle, self.next_number(device), **values)
        self.inbox.store([Incoming(device=device, record=record)], self.now)
        return record


def make_repository(database: Database, keys: Path, now: float = 1000.0) -> Repository:
    """Make the metadata of a fleet that holds all keys itself."""
    keys.mkdir(mode=0o700)
    repository = Repository(database, keys)
    repository.create({role: (create_server_key(keys),) for role in ROLES}, now)
    return repository


def stored_blocks(database: Database, directory: Path) -> dict[str, bytes]:
    """Return all blocks of a fleet by name, wherever its kind of database has them."""
    if database.is_sqlite:
        return {path.name: path.read_bytes() for path in directory.iterdir()}
    assert [] == list(directory.iterdir())
    with database.reading() as session:
        return dict(dump_blocks(session))


@contextlib.contextmanager
def make_kit(directory: Path, address: Address) -> Iterator[Kit]:
    """Make the stores of an empty fleet whose files lie in ``directory``."""
    (directory / "blocks").mkdir()
    (directory / "ca").mkdir()
    DeviceAuthority.create(directory / "ca", 1000.0)
    database = Database.open(address)
    metadata = make_repository(database, directory / "keys")
    bundles = Bundles(database, directory / "blocks", metadata)
    yield Kit(
        database=database,
        address=address,
        directory=directory,
        registry=Registry(database),
        cohorts=Cohorts(database),
        users=Users(database),
        tokens=Tokens(database),
        audit=AuditLog(database),
        identities=Identities(database),
        authority=DeviceAuthority.load(directory / "ca"),
        bundles=bundles,
        rollouts=Rollouts(database),
        alerts=Alerts(database, DriftRules()),
        inbox=Inbox(database),
        outbox=Outbox(database, bundles, metadata),
        metadata=metadata,
    )
    database.close()


@pytest.fixture
def kit(tmp_path: Path, new_address: Callable[[], Address]) -> Iterator[Kit]:
    """Make the stores of an empty fleet."""
    with make_kit(tmp_path, new_address()) as made:
        yield made


@dataclass
class FakeBroker:
    """Counts what the API asks of the broker."""

    reloads: int = 0
    cut: list[str] = field(default_factory=list)

    async def reload(self) -> None:
        """Count."""
        self.reloads += 1

    async def cut_off(self, device: str) -> None:
        """Note the device."""
        self.cut.append(device)


@dataclass
class Api:
    """The API over a kit, and what it asked of worker and broker."""

    kit: Kit
    client: httpx.AsyncClient
    worker: Worker
    announced: list[set[str]]
    broker: FakeBroker

    async def call(self, method: str, path: str, expect: int, **options: Any) -> Any:
        """Call ``/api/v1/<path>``, check status and content type, and return the JSON."""
        answer = await self.client.request(method, f"/api/v1/{path}", **options)
        assert expect == answer.status_code, answer.text
        if expect >= 400:
            assert "application/problem+json" == answer.headers["content-type"]
            assert expect == answer.json()["status"]
        return answer.json() if answer.content else None


def make_app(kit: Kit, serial: Serial, worker: Worker, broker: FakeBroker) -> FastAPI:
    """Return the application over a kit, with a watch that has not looked yet."""
    app = create_app(
        Services(
            serial=serial,
            registry=kit.registry,
            cohorts=kit.cohorts,
            identities=kit.identities,
            bearers=Bearers(kit.database),
            bundles=kit.bundles,
            downloads=Downloads(kit.bundles),
            rollouts=kit.rollouts,
            looks=Looks(kit.database),
            shadows=Shadows(kit.database),
            shadow_looks=ShadowLooks(kit.database),
            alert_book=AlertBook(kit.database),
            answers=AnswerBook(kit.database),
            feed=Feed(kit.database),
            watchers=Watchers(),
            users=kit.users,
            tokens=kit.tokens,
            audit=kit.audit,
            limits=Limits.of(per_user=0, per_address=0, enrolments=0, clock=lambda: kit.now),
            four_eyes=False,
            worker=worker,
            is_connected=lambda: True,
            broker=broker,
            authority=kit.authority,
            reach=Reach(mqtt_host="", mqtt_port=8883, mqtt_tls=True, certificate_seconds=90 * 86400),
            metadata=kit.metadata,
            clock=lambda: kit.now,
        )
    )
    metrics = Metrics()
    app.state.operations = Operations(metrics, Watch(kit.database, serial, metrics, Part(hears=lambda: True)))
    return app


@pytest.fixture
async def api(kit: Kit) -> AsyncIterator[Api]:
    """Serve the API in this process with an operator's key."""
    serial = Serial()
    announced: list[set[str]] = []
    broker = FakeBroker()

    async def announce(devices: Any) -> None:
        announced.append(set(devices))

    worker = Worker(kit.rollouts, serial, announce, lambda: kit.now)
    app = make_app(kit, serial, worker, broker)
    await app.state.operations.watch.look()
    key = kit.users.create("test", PersonRole.ADMIN, 0.0).key
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(app), base_url="http://fleet.test", headers={"Authorization": f"Bearer {key}"}
    ) as client:
        yield Api(kit, client, worker, announced, broker)
    serial.close()


@dataclass
class FakeDevice:
    """Speaks the device's side of the protocol: takes jobs, fetches blocks, confirms, serves, spools."""

    identity: EnrolResponse
    tls: ssl.SSLContext | None
    running: str | None = None
    confidence: float = 0.85
    spool: dict[int, Reported | Telemetry] = field(default_factory=dict)
    number: int = 0
    boot: int = 0
    jobs: list[str] = field(default_factory=list)
    stopped: bool = False
    pause_seconds: float = 0.1  # between two windows

    async def run(self) -> None:
        """Live until cancelled; connect again when the connection breaks."""
        while not self.stopped:  # an error of the connection may take a cancellation's place
            try:
                await self._live()
            except* (aiomqtt.MqttError, TimeoutError):
                await asyncio.sleep(0.1)

    async def _live(self) -> None:
        me, mqtt = self.identity.device, self.identity.mqtt
        self.boot += 1
        async with aiomqtt.Client(
            mqtt.host,
            mqtt.port,
            username=None if mqtt.tls else me,
            password=mqtt.password,
            tls_context=self.tls,
            identifier=me,
            protocol=aiomqtt.ProtocolVersion.V311,
        ) as client:
            await client.subscribe([(Topics.desired(me), 1), (Topics.ack(me), 1)])
            await client.publish(Topics.status(me), encode(self._status()), qos=1, retain=True)
            async with asyncio.TaskGroup() as group:
                group.create_task(self._serve(client))
                blocks: dict[str, asyncio.Future[bytes]] = {}  # what it waits for, by topic
                async for message in client.messages:
                    topic, payload = str(message.topic), bytes(message.payload)
                    if topic == Topics.ack(me):
                        ack = decode(Ack, payload)
                        self.spool = {n: m for n, m in self.spool.items() if not ack.covers(n)}
                    elif topic == Topics.desired(me) and payload:
                        group.create_task(self._update(client, decode(Desired, payload), blocks))
                    elif topic in blocks and not blocks[topic].done():  # a fleet that came back sends all once more
                        blocks[topic].set_result(payload)

    async def _update(self, client: aiomqtt.Client, desired: Desired, blocks: dict[str, asyncio.Future[bytes]]) -> None:
        if desired.job in self.jobs:
            return  # the same desired state may come again, also while it is being carried out
        self.jobs.append(desired.job)
        topic = Topics.block(desired.bundle)
        block = blocks.setdefault(topic, asyncio.get_running_loop().create_future())
        try:
            await client.subscribe(topic, 0)
            payload = await asyncio.wait_for(asyncio.shield(block), 60)
        except BaseException:  # the connection ended: the next one brings the job again
            self.jobs.remove(desired.job)
            raise
        assert hashlib.sha256(payload).hexdigest() == desired.bundle
        self.running = desired.bundle
        self._spool(
            lambda number: Reported(
                session=7,
                number=number,
                at=1,
                job=desired.job,
                bundle=desired.bundle,
                state=DeviceState.CONFIRMED,
                running=desired.bundle,
            )
        )

    async def _serve(self, client: aiomqtt.Client) -> None:
        """Make a window now and then; send all that is not acknowledged, every other one twice."""
        me = self.identity.device
        while True:
            if self.running is not None:
                made = window(self.running, self.number + 1, confidence=self.confidence)
                self._spool(lambda number, made=made: replace(made, session=7, number=number))
            for number, record in list(self.spool.items()):
                topic = Topics.reported(me) if isinstance(record, Reported) else Topics.telemetry(me)
                for _ in range(1 + number % 2):
                    await client.publish(topic, encode(record), qos=1)
            await asyncio.sleep(self.pause_seconds)

    def _spool(self, make: Callable[[int], Reported | Telemetry]) -> None:
        self.number += 1
        self.spool[self.number] = make(self.number)

    def _status(self) -> Status:
        return Status(
            device=self.identity.device,
            boot=self.boot,
            online=True,
            agent_version="0",
            running=self.running,
            capabilities=CAPABILITIES,
        )


def enrol_body(token: str, device: str, key: DeviceKey | None = None, **tags: str) -> bytes:
    """Return the body of an enrolment."""
    return encode(enrol_request(token, device, key or DeviceKey(), CAPABILITIES, **tags))


def operator_access(home: Path) -> dict[str, str]:
    """Return what ``init`` wrote for the operator."""
    access: dict[str, str] = json.loads((home / "operator.json").read_text())
    return access
