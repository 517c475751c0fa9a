"""A fleet with thousands of enrolled devices, its server and its broker as real processes, for measuring.

Devices are enrolled straight in the database: enrolment itself (a signature each) is not what is measured. Example::

    with Rig.make(Path("build/fleet"), devices=5000, database="") as rig:
        rig.kill_broker()
        rig.usage()                          # Usage(cpu_seconds=…, memory_bytes=…) of server and broker
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import pwd
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import msgspec
import numpy as np
import psutil  # type: ignore[import-untyped]  # it publishes no types
import psycopg
from sqlmodel import col, func, select

from benchmarks.fleet.devices import CAPABILITIES, SESSION, device_name
from edgeopt_contract.bundle import BundleContents, write_bundle
from edgeopt_contract.codec import encode
from edgeopt_contract.errors import MissingExtraError, UnreachableError
from edgeopt_contract.features import (
    CONFIDENCE_EDGES,
    LATENCY_EDGES_US,
    FeatureSpec,
    ReferenceFeature,
    ReferenceProfile,
    Source,
    Summary,
)
from edgeopt_contract.manifest import Role, TensorSpec, Variant
from edgeopt_contract.messages import Telemetry
from edgeopt_contract.profile import count_values
from edgeopt_contract.values import digest_of
from edgeopt_fleet.config import FleetConfig, Home
from edgeopt_fleet.founding import create_fleet
from edgeopt_fleet.store.bulk import insert_rows
from edgeopt_fleet.store.bundles import Bundles
from edgeopt_fleet.store.database import Database
from edgeopt_fleet.store.tables import CertificateRow, DeviceRow, WindowRow
from edgeopt_fleet.tuf.repository import Repository
from edgeopt_fleet.web import free_port

__all__ = ["Rig", "bearer_of", "enrol", "raise_file_limit", "window_of"]

_READY_SECONDS = 60.0
_MODEL_BYTES = 1_000_000
_DEVICE = (
    "id", "tags", "capabilities", "machine", "hardware", "gauges", "enrolled_at", "running", "malformed", "changed",
    "password_hash", "online", "boot", "agent_version", "desired_bake_seconds", "desired_pending", "report_spool",
    "report_number", "detail", "gauges_spool", "gauges_number", "newest_window", "windows", "rows", "errors",
)  # fmt: skip


_CERTIFICATE = (
    "serial", "device", "public_key", "public_key_sha256", "pem", "valid_from", "valid_until", "bearer_sha256",
    "changed",
)  # fmt: skip


def bearer_of(device: str) -> str:
    """Return the bearer that a simulated device downloads with."""
    return hashlib.sha256(f"bearer of {device}".encode()).hexdigest()


def raise_file_limit(wanted: int) -> int:
    """Raise the limit of open files of this process and its children as far as allowed; return what it is."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    for limit in (wanted, hard):
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (limit, max(limit, hard)))
            return limit
    return hard


def _features() -> list[tuple[FeatureSpec, float]]:
    edges = tuple(float(edge) for edge in np.linspace(0, 1, 17))
    return [
        (FeatureSpec(name="brightness", source=Source.INPUT, tensor="x", summary=Summary.MEAN, edges=edges), 0.5),
        (
            FeatureSpec(
                name="confidence", source=Source.OUTPUT, tensor="y", summary=Summary.CONFIDENCE, edges=CONFIDENCE_EDGES
            ),
            0.85,
        ),
    ]


def window_of(bundle: str, rows: int = 60) -> bytes:
    """Return a telemetry message of the size that agents send: two features, latencies, three gauges."""
    generator = np.random.default_rng(1)
    cells = {
        spec.name: tuple(int(n) for n in count_values(spec, np.clip(generator.normal(centre, 0.1, rows), 0, 1)))
        for spec, centre in _features()
    }
    latency = [0] * (len(LATENCY_EDGES_US) + 1)
    latency[20], latency[21] = rows - 9, 9
    return encode(
        Telemetry(
            session=SESSION,
            number=1,
            bundle=bundle,
            variant="int8",
            start=1_795_300_000,
            end=1_795_300_060,
            rows=rows,
            errors=0,
            cells=cells,
            latency=tuple(latency),
            infrastructure={"memory_bytes": 1.2e8, "temperature_celsius": 51.5, "cpu_percent": 12.0},
        )
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """What server and broker have used: CPU seconds since their start, resident bytes now."""

    server_cpu_seconds: float
    server_bytes: int
    broker_cpu_seconds: float
    broker_bytes: int


class Rig:
    """Broker and server of one fleet."""

    apart = False  # API and worker are processes of their own

    def __init__(self, directory: Path, broker_port: int, config: FleetConfig, bundles: tuple[str, ...]) -> None:
        self.directory = directory
        self.broker_port = broker_port
        self.config = config
        self.bundles = bundles  # digests: what the devices run, then new versions of a megabyte
        self.key: str = json.loads((directory / "fleet" / "operator.json").read_text())["key"]
        self._broker: subprocess.Popen[bytes] | None = None
        self._servers: list[subprocess.Popen[bytes]] = []

    @classmethod
    @contextlib.contextmanager
    def make(cls, directory: Path, *, devices: int, database: str = "", apart: bool = False) -> Iterator[Rig]:
        """Make a fleet in an empty ``directory``, start it, and stop it at the end."""
        shutil.rmtree(directory, ignore_errors=True)
        directory.mkdir(parents=True)
        broker_port = free_port("127.0.0.1")
        config = FleetConfig(
            http_port=free_port("127.0.0.1"),
            mqtt_port=broker_port,
            broker="mosquitto",
            broker_reload="true",
            database=database,
            requests_per_second_per_user=0.0,
            requests_per_second_per_address=0.0,
        )
        home = Home(directory / "fleet")
        create_fleet(home, config)
        rig = cls(directory, broker_port, config, _seed(home, config, directory, devices))
        rig.apart = apart
        try:
            rig.start_broker()
            rig.start_server()
            yield rig
        finally:
            rig.stop_server()
            rig._stop(rig._broker, signal.SIGKILL)
            if database:  # it was empty before
                with psycopg.connect(database, autocommit=True) as connection:
                    connection.execute("DROP SCHEMA public CASCADE")
                    connection.execute("CREATE SCHEMA public")

    @property
    def url(self) -> str:
        """Where the API answers."""
        return f"http://127.0.0.1:{self.config.http_port}"

    def start_broker(self) -> None:
        """Start Mosquitto as ``edgeopt-fleet init`` configures it, without TLS and rules."""
        settings = [
            f"listener {self.broker_port} 127.0.0.1", "allow_anonymous true", "max_queued_messages 100000",
            "max_packet_size 2000000", "log_dest none", "max_connections -1", f"user {_me()}",
        ]  # fmt: skip
        path = self.directory / "mosquitto.conf"
        path.write_text("\n".join(settings) + "\n")
        executable = shutil.which("mosquitto", path=f"{os.environ['PATH']}:/usr/sbin")
        if executable is None:
            raise MissingExtraError("mosquitto", "the Debian package mosquitto")
        self._broker = subprocess.Popen([executable, "-c", str(path)], stdout=subprocess.DEVNULL)

    def kill_broker(self) -> None:
        """Kill the broker with -9 and start another one, which knows nothing."""
        self._stop(self._broker, signal.SIGKILL)
        self.start_broker()

    def start_server(self) -> None:
        """Start the server and wait until it hears the broker. Raises :class:`UnreachableError`."""
        command = [sys.executable, "-m", "benchmarks.fleet.serve", str(self.directory / "fleet"), str(self.broker_port)]
        with (self.directory / "server.log").open("ab") as log:
            for part in ("worker", "api") if self.apart else ("all",):
                self._servers.append(subprocess.Popen([*command, part], stderr=log, stdout=log))
        end = time.monotonic() + _READY_SECONDS
        while time.monotonic() < end:
            with contextlib.suppress(httpx.TransportError):
                if httpx.get(f"{self.url}/healthz").json().get("broker") == "connected":
                    return
            time.sleep(0.1)
        raise UnreachableError(
            f"the server was not ready after {_READY_SECONDS:.0f} s; see {self.directory}/server.log"
        )

    def call(self, method: str, path: str, **options: Any) -> Any:
        """Call the API as the operator and return the JSON."""
        headers = {"Authorization": f"Bearer {self.key}"}
        answer = httpx.request(method, f"{self.url}/api/v1/{path}", headers=headers, timeout=120, **options)
        if answer.status_code >= 400:
            raise UnreachableError(f"{method} {path}: {answer.status_code} {answer.text[:500]}")
        return answer.json()

    def usage(self) -> Usage:
        """Return what server and broker have used so far."""
        assert self._broker is not None  # started
        servers, broker = [psutil.Process(server.pid) for server in self._servers], psutil.Process(self._broker.pid)
        return Usage(
            server_cpu_seconds=sum(sum(server.cpu_times()[:2]) for server in servers),
            server_bytes=sum(server.memory_info().rss for server in servers),
            broker_cpu_seconds=sum(broker.cpu_times()[:2]),
            broker_bytes=broker.memory_info().rss,
        )

    def stored(self) -> tuple[int, int]:
        """Return how many windows are stored, and how many the devices' totals say."""
        database = Database.open(Home(self.directory / "fleet").address(self.config))
        try:
            with database.reading() as session:
                rows = session.exec(select(func.count(col(WindowRow.id)))).one()
                told = session.exec(select(func.sum(DeviceRow.windows))).one()
        finally:
            database.close()
        return int(rows), int(told)

    def database_bytes(self) -> int:
        """Return how large the database is, with what is being written to it."""
        if self.config.database:
            with psycopg.connect(self.config.database) as connection:
                row = connection.execute("SELECT pg_database_size(current_database())").fetchone()
                assert row is not None  # a function's result
                return int(row[0])
        return sum(path.stat().st_size for path in (self.directory / "fleet").glob("fleet.db"))

    def online(self) -> int:
        """Return how many devices the fleet takes for online."""
        database = Database.open(Home(self.directory / "fleet").address(self.config))
        try:
            with database.reading() as session:
                return session.exec(select(func.count(col(DeviceRow.id))).where(col(DeviceRow.online))).one()
        finally:
            database.close()

    def stop_server(self) -> None:
        """Stop the server in order."""
        for server in self._servers:
            self._stop(server, signal.SIGTERM)
        self._servers.clear()

    @staticmethod
    def _stop(process: subprocess.Popen[bytes] | None, number: int) -> None:
        if process is not None and process.poll() is None:
            process.send_signal(number)
            try:
                process.wait(15)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _me() -> str:
    return pwd.getpwuid(os.getuid()).pw_name


def _seed(home: Home, config: FleetConfig, directory: Path, devices: int) -> tuple[str, ...]:
    """Publish three bundles and enrol the devices, which run the first."""
    database = Database.open(home.address(config))
    try:
        bundles = Bundles(database, home.blocks, Repository(database, home.keys))
        digests = tuple(_publish(bundles, directory / f"bundle-{version}", version) for version in ("1", "2", "3"))
        enrol(database, devices, digests[0])
    finally:
        database.close()
    return digests


def _publish(bundles: Bundles, directory: Path, version: str) -> str:
    generator = np.random.default_rng(int(version))
    features = []
    for spec, centre in _features():
        values = np.clip(generator.normal(centre, 0.1, 500), 0, 1)
        counts = tuple(int(n) for n in count_values(spec, values))
        features.append(ReferenceFeature(spec=spec, counts=counts, mean=float(values.mean()), std=float(values.std())))
    variant = Variant(
        name="int8", file="int8.onnx", runtime="onnxruntime", minimum_runtime="1.20", arch=(), features=(),
        certified_for=(), tolerance=0.1,
    )  # fmt: skip
    bundle = write_bundle(
        directory,
        BundleContents(
            name="simulated",
            version=version,
            inputs=(TensorSpec(name="x", dtype="float32", shape=(8, 8)),),
            outputs=(TensorSpec(name="y", dtype="float32", shape=(10,)),),
            labels=(),
            variants=(variant,),
            lineage={"made_by": "benchmarks.fleet"},
            files={
                "int8.onnx": (Role.VARIANT, generator.bytes(_MODEL_BYTES)),
                "golden.npz": (Role.GOLDEN, generator.bytes(100)),
                "profile.json": (Role.PROFILE, encode(ReferenceProfile(rows=500, features=tuple(features)))),
            },
        ),
    )
    for entry in bundle.manifest.files:
        data, offset = bundle.path_of(entry).read_bytes(), 0
        for block in entry.blocks:
            bundles.put_block(block.sha256, data[offset : offset + block.size])
            offset += block.size
    return bundles.post((bundle.directory / "manifest.json").read_bytes(), time.time()).digest


def enrol(database: Database, devices: int, running: str) -> None:
    """Write ``devices`` that run one bundle into the database, each with a certificate."""
    now = int(time.time())
    can = json.dumps(msgspec.to_builtins(CAPABILITIES))
    names = [device_name(number) for number in range(devices)]
    rows = [
        (name, '{"site":"lab"}', can, "{}", "aarch64-neon", "{}", now, running, 0, 0, "", False, 0, "", 0.0, False,
         0, 0, "", 0, 0, 0, 0, 0, 0)
        for name in names
    ]  # fmt: skip
    bearers = [digest_of(bearer_of(name).encode()) for name in names]
    certificates = [
        (name, name, name.encode(), digest_of(name.encode()), "", now, now + 10**7, bearer, 0)
        for name, bearer in zip(names, bearers, strict=True)
    ]
    with database.transaction() as session:
        insert_rows(session, DeviceRow, _DEVICE, rows)
        insert_rows(session, CertificateRow, _CERTIFICATE, certificates)
