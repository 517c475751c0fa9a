"""Simulated devices that speak the real protocol, thousands in one process, each over a connection of its own.

A device is born, takes desired states, fetches blocks as retained messages and verifies each, reports every state,
numbers what it sends, keeps it until the fleet has acknowledged it, and sends it again after a reconnect. Left out is
what does not concern the fleet: the model, the disk, TUF (metadata are published and counted, not verified). Example::

    swarm = Swarm(Setting(port=1883, window=window_of(bundle)), count=5000)
    await swarm.connect(per_second=500)
    await swarm.send_telemetry(per_second=5000, seconds=60)
    swarm.latencies.quantile(0.99)
"""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import random
import time
from dataclasses import dataclass, field

import msgspec

from edgeopt_contract.codec import decode, encode
from edgeopt_contract.manifest import Capabilities, Manifest, Role
from edgeopt_contract.messages import Ack, Desired, DeviceState, Reported, Result, Status
from edgeopt_contract.topics import Topics
from edgeopt_fleet.mqtt.packets import (
    Hello,
    Kind,
    Splitter,
    connect_packet,
    kind_of_packet,
    parse_publish,
    puback_packet,
    publish_packet,
    subscribe_packet,
    unsubscribe_packet,
)

__all__ = ["CAPABILITIES", "Device", "Setting", "Swarm", "device_name"]

SESSION = 1_795_300_000_123
CAPABILITIES = Capabilities(
    arch="aarch64", features=("neon",), runtimes={"onnxruntime": "1.22"}, cores=4, memory_bytes=2**30
)
_WINDOW_BLOCKS = 16
_KEEPALIVE_SECONDS = 300
_PORTS_AN_ADDRESS = 20_000  # connections from one source address
_RESEND_SECONDS = 10.0  # after a message went out and was not acknowledged; the agent's default
_MOST_SENT = 64  # oldest numbered messages, as the agent's
_LONGEST_BACKOFF_SECONDS = 60.0
_ACK = msgspec.json.Decoder(dict[str, int | float | list[int] | None])
_UPDATE = (
    DeviceState.VERIFYING, DeviceState.STAGED, DeviceState.SELF_TEST, DeviceState.ACTIVATING, DeviceState.BAKING,
)  # fmt: skip


def device_name(number: int) -> str:
    """Return the id of the device with this number."""
    return f"sim-{number:05}"


@dataclass(slots=True, kw_only=True)
class Setting:
    """What all devices of a swarm share."""

    port: int
    window: bytes  # a telemetry message with the number 1 and the bundle's digest in it
    bundle: str
    reconnect_window_seconds: float = 1.0
    faulty: frozenset[str] = frozenset()  # bundles that every device fails to start
    manifests: dict[str, tuple[str, ...]] = field(default_factory=dict)  # blocks that a device fetches, by digest


@dataclass(slots=True)
class Tally:
    """What the swarm counted."""

    connects: list[float] = field(default_factory=list)  # when a connection was accepted
    attempts: list[float] = field(default_factory=list)
    sent: int = 0
    resent: int = 0
    acknowledged: int = 0
    latencies: list[float] = field(default_factory=list)  # seconds, of telemetry: from sending to the fleet's Ack
    blocks: int = 0
    block_bytes: int = 0
    bad_blocks: int = 0


@dataclass(slots=True)
class Spooled:
    """A message that the fleet has not acknowledged."""

    made_at: float  # on the monotonic clock, as the other
    sent_at: float  # last
    topic: str
    payload: bytes


class Device(asyncio.Protocol):
    """One device."""

    __slots__ = (
        "_blocks_left", "_failures", "_packet", "_pending", "_splitter", "_transport", "boot", "device", "enabled",
        "job", "number", "online", "running", "setting", "spool", "tally", "wanted",
    )  # fmt: skip

    def __init__(self, device: str, setting: Setting, tally: Tally) -> None:
        self.device = device
        self.setting = setting
        self.tally = tally
        self.running: str | None = setting.bundle
        self.boot = 0
        self.number = 0
        self.spool: dict[int, Spooled] = {}  # by number
        self.job = ""
        self.wanted: Desired | None = None
        self.enabled = True
        self.online = False
        self._transport: asyncio.Transport | None = None
        self._splitter = Splitter()
        self._packet = 0
        self._failures = 0
        self._blocks_left: list[str] = []
        self._pending: set[str] = set()

    # --- connection ------------------------------------------------------------------------------------------------

    async def connect(self) -> None:
        """Connect once; a failure plans the next attempt."""
        if not self.enabled or self._transport is not None:  # a second connection would drive the first out
            return
        self.tally.attempts.append(time.monotonic())
        host = f"127.0.0.{2 + int(self.device[4:]) // _PORTS_AN_ADDRESS}"
        try:
            await asyncio.get_running_loop().create_connection(
                lambda: self, "127.0.0.1", self.setting.port, local_addr=(host, 0)
            )
        except OSError:
            self._plan()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Say hello."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._splitter = Splitter()
        self.boot += 1
        will = (Topics.status(self.device), self._status(online=False))
        transport.write(connect_packet(Hello(client_id=self.device, keepalive_seconds=_KEEPALIVE_SECONDS, will=will)))

    def connection_lost(self, exc: Exception | None) -> None:
        """Come back, within a window the first time."""
        del exc  # any end is the same
        self._transport = None
        if self.online or self.enabled:
            self.online = False
            self._plan()

    def _plan(self) -> None:
        if not self.enabled:
            return
        if self._failures == 0:
            delay = random.uniform(0, self.setting.reconnect_window_seconds)  # noqa: S311 - jitter
        else:  # full jitter, from the window up
            most = min(self.setting.reconnect_window_seconds * 2**self._failures, _LONGEST_BACKOFF_SECONDS)
            delay = random.uniform(0, most)  # noqa: S311 - jitter
        self._failures += 1
        loop = asyncio.get_running_loop()
        loop.call_later(delay, lambda: loop.create_task(self.connect()))

    def drop(self) -> None:
        """Vanish without a word, and stay away until told otherwise."""
        self.enabled = False
        if self._transport is not None:
            self._transport.abort()
        self.online = False

    # --- what comes ------------------------------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        """Take what the broker sends."""
        answers = []
        for first, body in self._splitter.feed(data):
            kind = kind_of_packet(first)
            if kind == Kind.PUBLISH:
                topic, payload, packet_id = parse_publish(first, body)
                if packet_id:
                    answers.append(puback_packet(packet_id))
                self._take(topic, payload)
            elif kind == Kind.CONNACK:
                self._accepted()
        if answers:
            self._write(b"".join(answers))

    def _accepted(self) -> None:
        self.online = True
        self._failures = 0
        self.tally.connects.append(time.monotonic())
        me = self.device
        self._write(
            subscribe_packet(self._next(), [(Topics.desired(me), 1), (Topics.ack(me), 0)])
            + publish_packet(Topics.status(me), self._status(online=True), packet_id=self._next(), retain=True)
        )
        self.repeat_lost(after_seconds=0.0)
        self._pending.clear()
        self._ask()

    def _take(self, topic: str, payload: bytes) -> None:
        if topic.endswith("/ack"):
            self._acknowledged(payload)
        elif topic.endswith("/desired"):
            if payload:
                self._desired(decode(Desired, payload))
        else:
            self._block(topic.rsplit("/", 1)[1], payload)

    def _acknowledged(self, payload: bytes) -> None:
        ack = _ACK.decode(payload)
        upto, now = ack["upto"], time.monotonic()
        assert isinstance(upto, int)
        covered = [number for number in self.spool if number <= upto]
        if ack["beyond"]:
            covered += [number for number in self.spool if number > upto and decode(Ack, payload).covers(number)]
        for number in covered:
            message = self.spool.pop(number)
            self.tally.acknowledged += 1
            if message.topic.endswith("y"):  # telemetry
                self.tally.latencies.append(now - message.made_at)

    # --- an update -------------------------------------------------------------------------------------------------

    def _desired(self, desired: Desired) -> None:
        if desired.job == self.job:
            return
        self.job, self.wanted = desired.job, desired
        self._pending.clear()
        self._blocks_left = []
        self.report(DeviceState.OFFERED)
        if desired.bundle == self.setting.bundle:  # it has that one in its other slot
            self._install(desired)
            return
        self.report(DeviceState.DOWNLOADING)
        self._blocks_left = list(self.setting.manifests.get(desired.bundle, (desired.bundle,)))
        self._ask()

    def _ask(self) -> None:
        """Subscribe to the next blocks, a window at a time."""
        room = _WINDOW_BLOCKS - len(self._pending)
        some = [block for block in self._blocks_left if block not in self._pending][:room]
        if some and self.online:
            self._pending.update(some)
            self._write(subscribe_packet(self._next(), [(Topics.block(block), 0) for block in some]))

    def _block(self, name: str, payload: bytes) -> None:
        if name not in self._pending:
            return
        if hashlib.sha256(payload).hexdigest() != name:
            self.tally.bad_blocks += 1
            return
        self.tally.blocks += 1
        self.tally.block_bytes += len(payload)
        self._pending.discard(name)
        self._blocks_left.remove(name)
        self._write(unsubscribe_packet(self._next(), [Topics.block(name)]))
        assert self.wanted is not None  # it has asked
        if name == self.wanted.bundle and name not in self.setting.manifests:
            self.setting.manifests[name] = (name, *_blocks_of(decode(Manifest, payload)))
        if name == self.wanted.bundle:
            self._blocks_left += [block for block in self.setting.manifests[name] if block != name]
            self._blocks_left = list(dict.fromkeys(self._blocks_left))
        if not self._blocks_left:
            self._install(self.wanted)
        elif len(self._pending) <= _WINDOW_BLOCKS // 2:
            self._ask()

    def _install(self, desired: Desired) -> None:
        for state in _UPDATE:
            self.report(state)
        if desired.bundle in self.setting.faulty:
            self.report(DeviceState.ROLLED_BACK, Result.RUNS_OLD_RESTORED)
            return
        self.running = desired.bundle
        self.report(DeviceState.CONFIRMED, Result.RUNS_NEW)

    # --- what goes -------------------------------------------------------------------------------------------------

    def report(self, state: DeviceState, result: Result | None = None) -> None:
        """Report a state of the job at hand."""
        assert self.wanted is not None  # there is a job
        self.number += 1
        record = Reported(
            session=SESSION,
            number=self.number,
            at=int(time.time()),
            job=self.job,
            bundle=self.wanted.bundle,
            state=state,
            running=self.running,
            result=result,
        )
        self._send(Topics.reported(self.device), encode(record))

    def tell(self) -> None:
        """Send a telemetry window."""
        self.number += 1
        payload = self.setting.window.replace(b'"number":1,', b'"number":%d,' % self.number)
        if self.running is not None and self.running != self.setting.bundle:
            payload = payload.replace(self.setting.bundle.encode(), self.running.encode())
        self._send(f"edgeopt/v1/devices/{self.device}/telemetry", payload)

    def repeat_lost(self, after_seconds: float = _RESEND_SECONDS) -> None:
        """Send again what went out so long ago; as the agent does, for each message by itself.

        Acknowledgements of later numbers say nothing of a gap: whoever takes them for progress never fills it.
        """
        if self.online and self.spool:
            now = time.monotonic()
            for message in itertools.islice(self.spool.values(), _MOST_SENT):
                if now - message.sent_at >= after_seconds:
                    message.sent_at = now
                    self.tally.resent += 1
                    self._write(publish_packet(message.topic, message.payload, packet_id=self._next()))

    def _send(self, topic: str, payload: bytes) -> None:
        now = time.monotonic()
        self.spool[self.number] = Spooled(now, now, topic, payload)
        self.tally.sent += 1
        self._write(publish_packet(topic, payload, packet_id=self._next()))

    def _status(self, *, online: bool) -> bytes:
        return encode(
            Status(
                device=self.device,
                boot=self.boot,
                online=online,
                agent_version="sim",
                running=self.running,
                capabilities=CAPABILITIES,
            )
        )

    def _next(self) -> int:
        self._packet = self._packet % 65535 + 1
        return self._packet

    def _write(self, data: bytes) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(data)


class Swarm:
    """All simulated devices, and what they counted together."""

    def __init__(self, setting: Setting, count: int) -> None:
        self.setting = setting
        self.tally = Tally()
        self.devices = [Device(device_name(number), setting, self.tally) for number in range(count)]

    @property
    def online(self) -> int:
        """How many are connected."""
        return sum(device.online for device in self.devices)

    async def connect(self, per_second: float) -> None:
        """Connect all that are not, at this rate, and return when they are."""
        for number, device in enumerate(self.devices):
            if not device.online:
                asyncio.get_running_loop().create_task(device.connect())
                if number % 10 == 9:
                    await asyncio.sleep(10 / per_second)
        while self.online < len(self.devices):  # noqa: ASYNC110 - counted, not signalled: there are thousands
            await asyncio.sleep(0.05)

    async def send_telemetry(self, per_second: float, seconds: float) -> None:
        """Let the devices send in turn, together at this rate."""
        begin = time.monotonic()
        sent, place, passed = 0, 0, 0.0
        while passed < seconds:
            await asyncio.sleep(0.005)
            passed = time.monotonic() - begin
            due = int(min(passed, seconds) * per_second)
            for _ in range(min(due - sent, len(self.devices))):
                self.devices[place].tell()
                place = (place + 1) % len(self.devices)
            sent = due

    async def repeat_lost(self) -> None:
        """Send again what nobody acknowledged for a while, until cancelled; as an agent does."""
        while True:
            await asyncio.sleep(1.0)
            for device in self.devices:
                device.repeat_lost()

    async def settle(self, seconds: float) -> int:
        """Wait until everything is acknowledged, at most so long; return how many messages are not."""
        end = time.monotonic() + seconds
        while (waiting := sum(len(device.spool) for device in self.devices)) and time.monotonic() < end:  # noqa: ASYNC110 - as above
            await asyncio.sleep(0.1)
        return waiting

    def close(self) -> None:
        """Let all vanish."""
        for device in self.devices:
            device.drop()


def _blocks_of(manifest: Manifest) -> list[str]:
    """Return what a device fetches: all but evidence."""
    return [block.sha256 for entry in manifest.files if entry.role is not Role.EVIDENCE for block in entry.blocks]
