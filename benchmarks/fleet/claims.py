"""What is claimed of a fleet on two cores, simulator included, and what the peers publish. Pure.

Example::

    missed = [claim.text for claim in CLAIMS if not claim.holds(figures)]
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

__all__ = ["CLAIMS", "PEERS", "Claim"]

Figures = Mapping[str, Mapping[str, float]]


@dataclass(frozen=True, slots=True)
class Claim:
    """One figure of one scenario and the limit that it must keep."""

    scenario: str
    figure: str
    least: float | None
    most: float | None
    text: str

    def holds(self, figures: Figures) -> bool | None:
        """Say whether it is kept; None when it was not measured."""
        if self.scenario not in figures:
            return None
        value = figures[self.scenario].get(self.figure)
        if value is None:
            return None
        return (self.least is None or value >= self.least) and (self.most is None or value <= self.most)


_MIB = 2**20
CLAIMS = (
    Claim("telemetry", "lost", 0, 0, "no acknowledged or unacknowledged telemetry is lost"),
    Claim("telemetry", "miscounted", 0, 0, "what is counted is what is stored"),
    Claim("telemetry", "unacknowledged", 0, 0, "everything is acknowledged in the end"),
    Claim("telemetry", "p99_ms", None, 150, "99 of 100 messages are committed and acknowledged within 150 ms"),
    Claim("telemetry", "server_peak_bytes", None, 250 * _MIB, "the server needs at most 250 MiB"),
    Claim("reads", "p99_ms", None, 15, "99 of 100 reads of devices take at most 15 ms, with telemetry flowing"),
    Claim("reads", "bad", 0, 0, "every read is answered with 200"),
    Claim("reads", "kept_up", 0.99, None, "as many reads are answered as are asked for"),
    Claim("scale", "lost", 0, 0, "nothing is lost at any size of the fleet"),
    Claim(
        "scale", "cpu_growth", None, 1.5, "a message costs the server as much in the largest fleet as in the smallest"
    ),
    Claim("scale", "bytes_growth", None, 1.5, "a message takes as many bytes of the database"),
    Claim("scale", "peak_bytes", None, 250 * _MIB, "the server needs at most 250 MiB at any size"),
    Claim("scale", "p99_ms", None, 150, "99 of 100 messages are acknowledged within 150 ms at any size"),
    Claim("rollout", "succeeded", 1, None, "the rollout succeeds, the broker killed in its midst"),
    Claim("rollout", "seconds", None, 90, "a megabyte in four waves is confirmed everywhere within 90 s"),
    Claim("rollout", "bad_blocks", 0, 0, "every block is what its topic says"),
    Claim("recall", "back_share", 0.99, None, "99 of 100 exposed devices that are online are back within 60 s"),
    Claim("recall", "back_seconds", None, 60, "a recall takes at most 60 s"),
    Claim("storm", "most_connects_a_second", None, 200, "at most 200 connects a second after the broker was killed"),
    Claim("storm", "back_seconds", None, 120, "all devices are back within 120 s"),
)

# Published by others, on other machines, for other work: never comparable line by line.
PEERS = (
    ("ThingsBoard", "20,000+ devices and 30,000+ messages/s on one server", "vendor's page; larger machine"),
    ("wfx", "SQLite: p99 1.06 ms at 100 requests/s", "its documentation; Go, polling, no telemetry"),
    ("AWS IoT", "500 connects/s; jobs to 1,000 devices/min", "quotas of 2023, not measurements"),
    ("Mender", "10,000 devices on 8 vCPU, 16 GB", "sizing guide, without database and storage; polls each 30 min"),
    ("mosquitto", "3,000 bridges, 500 messages/s", "a post to the mailing list, 2013"),
    ("FlowFuse", "40 devices: contention on lastSeenAt", "issue #5782"),
)
