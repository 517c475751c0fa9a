"""One update of the real agent over an emulated link with loss and outages, measured at the near end.

Loss alone keeps one TCP connection with CUBIC near 1.2 x MSS / (round trip x sqrt(loss)) = 19 kB/s on the issue's link
(M. Mathis et al., "The Macroscopic Behavior of the TCP Congestion Avoidance Algorithm", ACM CCR 27(3), 1997), so 5 MB
take more than four minutes there. By hand::

    python -m tests.badlink.journey --megabytes 5 --congestion bbr
"""

from __future__ import annotations

import argparse
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from devices.emulator.link import Link, link
from tests.agent.conftest import Broker, Device, FakeFleet, blocks_of, wait_until, write_identity
from tests.badlink.conftest import blocks_on_disk, needed_bytes
from tests.badlink.relay import Relay
from tests.tiny import Recipe, tiny_bundle

_OUTAGE_SECONDS = 14.0


@dataclass(frozen=True)
class Journey:
    """What goes over which link; ``speed`` makes rate, delay and outages so many times as fast."""

    padding_bytes: int
    broker: str
    speed: float = 1.0
    outages: int = 1
    congestion: str = "cubic"

    @property
    def name(self) -> str:
        """For the table."""
        faster = "" if self.speed == 1 else f", {self.speed:g} times as fast in everything"
        return f"{self.padding_bytes / 1e6:g} MB over 200 ms, 5 %, 384 kbit/s, {self.outages} x 14 s{faster}"


@dataclass(frozen=True)
class Arrived:
    """What it took."""

    needed: int
    received: int
    seconds: float
    most_often: int  # how often the block was sent that was sent most often
    connections: int

    def __str__(self) -> str:
        return (
            f"{self.seconds:.1f} s, needed {self.needed} bytes, got {self.received}, waste {self.waste:.2%}, "
            f"{self.connections} connections"
        )

    @property
    def waste(self) -> float:
        """The share of bytes beyond what was needed, MQTT's own included."""
        return self.received / self.needed - 1


def travel(directory: Path, journey: Journey, *, patience_seconds: float) -> Arrived:
    """Bring a bundle to a device on the far side until it is confirmed."""
    conditions = {
        "delay_ms": 200 / journey.speed,
        "jitter_ms": 30 / journey.speed,
        "loss": 0.05,
        "rate_bits": 384_000 * journey.speed,
    }
    bundle = tiny_bundle(directory / "bundle", Recipe(padding_bytes=journey.padding_bytes))
    with link(seed=1, **conditions) as line, line.near.entered():
        broker = Broker(directory / "broker", journey.broker)
        broker.start()
        fleet = FakeFleet(broker.port)
        fleet.connect()
        fleet.publish_bundle(bundle)
        relay_options = {"congestion": journey.congestion, "buffer_bytes": 128 * 1024}  # room for what must be repeated
        with Relay(broker.port, host=line.near.address, **relay_options) as relay:
            device = Device(directory / "device", ("--block-timeout", "10"), tuple(line.far.command()))
            write_identity(device.data, fleet.signer, relay.port, line.near.address)
            device.start()
            try:
                started = time.monotonic()
                fleet.desire(bundle)
                _suffer(line, journey, device, len(blocks_of(bundle)))
                fleet.wait_for("confirmed", seconds=patience_seconds)
                seconds = time.monotonic() - started
            finally:
                device.kill()
                fleet.close()
                broker.kill()
            most_often = max(relay.blocks.values())
            needed = needed_bytes(bundle, fleet.signer.metadata.message())
            return Arrived(needed, relay.down_bytes, seconds, most_often, relay.connections)


def _suffer(line: Link, journey: Journey, device: Device, blocks: int) -> None:
    """Let the link fail while the download is under way."""
    for number in range(1, journey.outages + 1):
        due = blocks * number // (journey.outages + 1)
        wait_until(f"{due} of {blocks} blocks", lambda due=due: blocks_on_disk(device) >= due, seconds=600)
        line.outage(_OUTAGE_SECONDS / journey.speed)
        time.sleep(_OUTAGE_SECONDS / journey.speed)  # the experiment: nothing passes


def main() -> None:
    """Run one journey and print what it took."""
    parser = argparse.ArgumentParser(description="Bring a bundle over a bad link.")
    parser.add_argument("--megabytes", type=float, default=5.0)
    parser.add_argument("--speed", type=float, default=1.0)
    parser.add_argument("--outages", type=int, default=2)
    parser.add_argument("--congestion", default="cubic", help="of the broker's machine: cubic, bbr, …")
    parser.add_argument("--broker", default="mosquitto", choices=("mosquitto", "nats"))
    given = parser.parse_args()
    journey = Journey(int(given.megabytes * 1e6), given.broker, given.speed, given.outages, given.congestion)
    with tempfile.TemporaryDirectory() as directory:
        print(f"{journey.name}, {journey.congestion}: {travel(Path(directory), journey, patience_seconds=1800)}")


if __name__ == "__main__":
    main()
