"""A broker, a fake fleet and agents as real processes; and the parts that unit tests share."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import paho.mqtt.client as mqtt
import pytest

from edgeopt_agent.credentials.identity import Identity
from edgeopt_contract.bundle import MANIFEST_NAME, Bundle
from edgeopt_contract.codec import decode, encode
from edgeopt_contract.enrolment import EnrolResponse, MqttAccess
from edgeopt_contract.manifest import Capabilities
from edgeopt_contract.messages import (
    Ack,
    Desired,
    Reported,
    Shadow,
    Status,
    Telemetry,
)
from edgeopt_contract.topics import Topics
from tests.metadata import MetadataFleet

T = TypeVar("T")
DEVICE = "cam-1"


def wait_until(what: str, probe: Callable[[], T | None], seconds: float = 30.0) -> T:
    """Return the first truthy value of ``probe``."""
    deadline = time.monotonic() + seconds
    while not (value := probe()):
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited {seconds:.0f} s for {what}")
        time.sleep(0.02)
    return value


def free_port() -> int:
    """Return a port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Signer:
    """Signs as a fleet does: every bundle may be left for any that was signed before it."""

    def __init__(self) -> None:
        self.metadata = MetadataFleet(offline=(1, 1))

    @property
    def root(self) -> str:
        """What a device trusts from its enrolment on."""
        return self.metadata.root_text

    def sign(self, bundle: str, length: int = 1000) -> None:
        """Sign a bundle, once."""
        if bundle not in self.metadata.digests():
            self.metadata.add(bundle, length)

    def desired(self, bundle: str, job: str = "job-1", **fields: Any) -> Desired:
        """Return a desired state."""
        return Desired(**{"job": job, "bundle": bundle, "bake_seconds": 0.2} | fields)


class Broker:
    """A broker process on a port of its own, which keeps its port and its store when it is started again."""

    def __init__(self, directory: Path, kind: str, host: str = "127.0.0.1") -> None:
        self.host = host
        self.port = free_port()
        self.knows_shadows = True
        self._directory = directory
        self._kind = kind
        self._process: subprocess.Popen[bytes] | None = None
        directory.mkdir(parents=True)

    def start(self) -> None:
        """Start it and wait for its port."""
        command = self._nats() if self._kind == "nats" else self._mosquitto()
        with (self._directory / "log").open("ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log)
        wait_until("the broker's port", self._listens)

    def kill(self) -> None:
        """``kill -9``."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def _listens(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex((self.host, self.port)) == 0

    def _nats(self) -> list[str]:
        own = f"edgeopt.v1.devices.{DEVICE}"
        read = [f"{own}.{channel}" for channel in ("desired", "ack", *(["shadow"] if self.knows_shadows else []))]
        device = {
            "user": DEVICE,
            "password": "secret",
            "permissions": {
                "publish": [f"{own}.{channel}" for channel in ("reported", "telemetry", "status")],
                "subscribe": [
                    *read,
                    "edgeopt.v1.blocks.*",
                    "edgeopt.v1.tuf",
                    "$MQTT.sub.>",
                ],
            },
        }
        config = {
            "server_name": "test",
            "host": "127.0.0.1",
            "port": free_port(),
            "jetstream": {"store_dir": str(self._directory / "store"), "limits": {"default_max_consumers": -1}},
            "mqtt": {"host": self.host, "port": self.port},
            "authorization": {"users": [{"user": "fleet", "password": "secret"}, device]},
        }
        path = self._directory / "nats.json"
        path.write_text(json.dumps(config))
        return [str(Path(sys.executable).parent / "nats-server"), "-c", str(path)]

    def _mosquitto(self) -> list[str]:
        path = self._directory / "mosquitto.conf"
        limits = "max_queued_messages 100\nmax_packet_size 2000000\nset_tcp_nodelay true\n"
        path.write_text(f"listener {self.port} {self.host}\nallow_anonymous true\n{limits}")
        return [MOSQUITTO or "mosquitto", "-c", str(path)]


MOSQUITTO = shutil.which("mosquitto", path=f"{os.environ.get('PATH', '')}:/usr/sbin")


@dataclass
class FakeFleet:
    """Publishes blocks and desired states, stores what a device says, and acknowledges it."""

    port: int
    host: str = "127.0.0.1"
    signer: Signer = field(default_factory=Signer)
    acknowledges: bool = True
    stored: dict[tuple[int, int], Reported | Telemetry] = field(default_factory=dict)
    statuses: list[Status] = field(default_factory=list)
    bundles: list[Bundle] = field(default_factory=list)
    last_desired: bytes = b""
    refused: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _client: mqtt.Client | None = None

    def connect(self) -> None:
        """Connect and stay connected."""
        client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, client_id="fleet")
        client.username_pw_set("fleet", "secret")
        client.on_connect = self._on_connect
        client.on_message = self._on_message
        client.on_subscribe = self._on_subscribe
        client.reconnect_delay_set(0.05, 0.2)
        client.connect(self.host, self.port, keepalive=20)
        client.loop_start()
        self._client = client
        wait_until("the fleet's connection", client.is_connected)

    def close(self) -> None:
        """Disconnect."""
        assert self._client is not None
        self._client.disconnect()
        self._client.loop_stop()

    def publish(self, topic: str, payload: bytes) -> None:
        """Publish a retained message and wait until the broker has it."""
        assert self._client is not None
        wait_until("the fleet's connection", self._client.is_connected)
        self._client.publish(topic, payload, qos=1, retain=True).wait_for_publish(30)

    def publish_bundle(self, bundle: Bundle, leave_out: tuple[str, ...] = ()) -> None:
        """Sign the bundle, and publish the metadata, the manifest and the blocks that a device fetches."""
        self.bundles.append(bundle)
        self.signer.sign(bundle.digest, (bundle.directory / MANIFEST_NAME).stat().st_size)
        self.publish_metadata()
        for sha256, data in blocks_of(bundle).items():
            if sha256 not in leave_out:
                self.publish(Topics.block(sha256), data)

    def publish_metadata(self) -> None:
        """Publish the TUF metadata as they are."""
        self.publish(Topics.TUF, self.signer.metadata.message())

    def desire(self, bundle: Bundle, job: str = "job-1", **fields: Any) -> None:
        """Offer ``bundle`` to the device."""
        self.signer.sign(bundle.digest, (bundle.directory / MANIFEST_NAME).stat().st_size)
        self.publish_metadata()
        self.last_desired = encode(self.signer.desired(bundle.digest, job, **fields))
        self.publish(Topics.desired(DEVICE), self.last_desired)

    def shadow(self, bundle: Bundle, job: str = "shadow-1", *, share: float = 1.0, seconds: float = 3600) -> None:
        """Order the device to run ``bundle`` beside what serves."""
        self.signer.sign(bundle.digest, (bundle.directory / MANIFEST_NAME).stat().st_size)
        self.publish_metadata()
        self.order_shadow(bundle, job, share=share, seconds=seconds)

    def order_shadow(self, bundle: Bundle, job: str, *, share: float, seconds: float) -> None:
        """Publish an order, whether the bundle is signed or not."""
        order = Shadow(job=job, bundle=bundle.digest, share=share, until=int(time.time() + seconds))
        self.publish(Topics.shadow(DEVICE), encode(order))

    def end_shadow(self) -> None:
        """Withdraw the order."""
        self.publish(Topics.shadow(DEVICE), b"")

    def shadow_windows(self, job: str = "shadow-1") -> list[Telemetry]:
        """Return the windows of a shadow."""
        return [window for window in self.telemetry() if window.extra.get("shadow") == job]

    def reports(self, job: str = "job-1") -> list[Reported]:
        """Return the reports about ``job`` in the order of their numbers."""
        with self._lock:
            found = [m for m in self.stored.values() if isinstance(m, Reported) and m.job == job]
        return sorted(found, key=lambda report: (report.session, report.number))

    def states(self, job: str = "job-1") -> list[str]:
        """Return the states that were reported about ``job``."""
        return [str(report.state) for report in self.reports(job)]

    def telemetry(self, bundle: str | None = None) -> list[Telemetry]:
        """Return the windows, of one bundle if asked."""
        with self._lock:
            windows = [m for m in self.stored.values() if isinstance(m, Telemetry)]
        return sorted((w for w in windows if bundle in (None, w.bundle)), key=lambda w: w.number)

    def wait_for(self, state: str, job: str = "job-1", seconds: float = 30.0) -> Reported:
        """Wait until ``state`` was reported about ``job`` and return that report."""
        try:
            return wait_until(
                f"{job} to be {state}", lambda: next((r for r in self.reports(job) if r.state == state), None), seconds
            )
        except TimeoutError as error:
            raise TimeoutError(
                f"{error}; reported so far: {[(r.state, r.detail) for r in self.reports(job)]}; "
                f"{len(self.stored)} messages, {self.refused} refused subscriptions"
            ) from None

    def _on_connect(self, client: mqtt.Client, *_: Any) -> None:
        client.subscribe([(Topics.ANY_REPORTED, 1), (Topics.ANY_TELEMETRY, 1), (Topics.ANY_STATUS, 1)])

    def _on_subscribe(self, client: mqtt.Client, _: Any, __: int, codes: list[Any], ___: Any) -> None:
        self.refused += sum(code.is_failure for code in codes)
        if any(code.is_failure for code in codes):  # a broker that has just started may not be ready
            self._on_connect(client)

    def republish(self) -> None:
        """Publish everything again, as a fleet does when it is connected anew."""
        self.publish_metadata()
        for bundle in list(self.bundles):
            for sha256, data in blocks_of(bundle).items():
                self.publish(Topics.block(sha256), data)
        self.publish(Topics.desired(DEVICE), self.last_desired)

    def _on_message(self, client: mqtt.Client, _: Any, message: mqtt.MQTTMessage) -> None:
        if message.topic.endswith("/status"):
            self.statuses.append(decode(Status, message.payload))
            return
        kind: Any = Reported if message.topic.endswith("/reported") else Telemetry
        record = decode(kind, message.payload)
        with self._lock:
            known = self.stored.setdefault((record.session, record.number), record)
            assert known == record, "the same number was used for two messages"
            numbers = sorted(number for session, number in self.stored if session == record.session)
        upto = next((i for i, number in enumerate(numbers) if number != i + 1), len(numbers))
        if self.acknowledges:
            ack = Ack(session=record.session, upto=upto, beyond=tuple(n for n in numbers if n > upto))
            client.publish(Topics.ack(DEVICE), encode(ack), qos=1)


def blocks_of(bundle: Bundle) -> dict[str, bytes]:
    """Return the manifest and every block that a device fetches, by their SHA-256."""
    blocks = {bundle.digest: (bundle.directory / MANIFEST_NAME).read_bytes()}
    for entry in bundle.manifest.files_for(bundle.manifest.variants[0]):
        data, offset = bundle.path_of(entry).read_bytes(), 0
        for block in entry.blocks:
            blocks[block.sha256] = data[offset : offset + block.size]
            offset += block.size
    return blocks


@dataclass
class Device:
    """An enrolled device and its agent process."""

    data: Path
    options: tuple[str, ...] = ()
    prefix: tuple[str, ...] = ()  # what comes before the command, such as another network namespace
    process: subprocess.Popen[bytes] | None = None

    @property
    def log(self) -> Path:
        """What the agent printed."""
        return self.data.with_suffix(".log")

    def start(self, *options: str) -> None:
        """Start the agent."""
        command = [str(Path(sys.executable).parent / "edgeopt-agent"), "run", "--data", str(self.data)]
        fast = ("--window", "0.3", "--resend", "1", "--block-timeout", "1", "--interval", "0.005")
        self.options = options or self.options
        with self.log.open("ab") as log:
            self.process = subprocess.Popen([*self.prefix, *command, *fast, *self.options], stdout=log, stderr=log)

    def kill(self) -> None:
        """``kill -9``."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def stop(self) -> int:
        """SIGTERM; return the exit code."""
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(30)

    def status(self) -> Any:
        """What ``edgeopt-agent status --json`` says."""
        command = [str(Path(sys.executable).parent / "edgeopt-agent"), "status", "--data", str(self.data), "--json"]
        return json.loads(subprocess.run(command, check=True, capture_output=True).stdout)

    def said(self, command: str) -> str:
        """What ``edgeopt-agent COMMAND`` prints for people; the doctor's exit code may say that something is wrong."""
        words = [str(Path(sys.executable).parent / "edgeopt-agent"), command, "--data", str(self.data)]
        return subprocess.run(words, check=False, capture_output=True, text=True).stdout

    def runners(self) -> list[int]:
        """Return the process ids of the agent's runners; its sources and short-lived children are not among them."""
        assert self.process is not None
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        return [int(child) for child in children if b"edgeopt_agent.runner" in command_of(child)]

    def logged(self, text: str) -> bool:
        """Say whether ``text`` stands in the log."""
        return text in self.log.read_text()


def command_of(pid: str) -> bytes:
    """Return the command line of a process; empty when it has ended."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def plain_identity(signer: Signer, port: int, host: str = "127.0.0.1") -> Identity:
    """Return the identity of a device whose broker takes passwords; it is never renewed."""
    access = EnrolResponse(
        device=DEVICE,
        mqtt=MqttAccess(host=host, port=port, tls=False, password="secret"),
        certificate="none",
        serial="1",
        valid_from=0,
        valid_until=2**40,
        ca="none",
        bearer="bearer",
        root=signer.root,
        reconnect_window_seconds=0.05,
    )
    return Identity(server="http://127.0.0.1:1", key="0" * 12, access=access)


def write_identity(data: Path, signer: Signer, port: int, host: str = "127.0.0.1") -> Identity:
    """Enrol a device without a fleet's HTTP."""
    identity = plain_identity(signer, port, host)
    data.mkdir(parents=True)
    (data / "device.json").write_bytes(encode(identity))
    return identity


@pytest.fixture(params=["nats"])
def broker(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Broker]:
    """A running broker; a test may ask for 'mosquitto' by indirect parametrization."""
    with running_broker(tmp_path / "broker", request.param) as broker:
        yield broker


@contextlib.contextmanager
def running_broker(directory: Path, kind: str) -> Iterator[Broker]:
    """Start a broker, or skip the test where there is none."""
    if kind == "mosquitto" and MOSQUITTO is None:
        pytest.skip("mosquitto is not installed (apt-get install mosquitto)")
    broker = Broker(directory, kind)
    broker.start()
    yield broker
    broker.kill()


@pytest.fixture
def fleet(broker: Broker) -> Iterator[FakeFleet]:
    """A fake fleet, connected."""
    fleet = FakeFleet(broker.port)
    fleet.connect()
    yield fleet
    fleet.close()


@pytest.fixture
def device(fleet: FakeFleet, tmp_path: Path) -> Iterator[Device]:
    """An enrolled device whose agent the test starts."""
    device = Device(tmp_path / "device", ("--source", "tests.tiny:field"))
    write_identity(device.data, fleet.signer, fleet.port)
    yield device
    if device.process is not None and device.process.poll() is None:
        try:
            device.stop()
        finally:
            device.kill()


@pytest.fixture
def signer() -> Signer:
    """A fleet that signs."""
    return Signer()


@pytest.fixture
def capabilities() -> Capabilities:
    """What a plain test machine can run."""
    return Capabilities(arch="x86_64", features=(), runtimes={"onnxruntime": "1.30.0"}, cores=2, memory_bytes=1 << 30)
