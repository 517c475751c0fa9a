"""The MQTT topics, as values that cannot be wrong.

Example::

    >>> Topics.desired("cam-7")
    'edgeopt/v1/devices/cam-7/desired'
    >>> DeviceTopic.parse("edgeopt/v1/devices/cam-7/telemetry").channel
    <Channel.TELEMETRY: 'telemetry'>
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from edgeopt_contract.errors import MessageError
from edgeopt_contract.values import check_device_id, check_digest

__all__ = ["PREFIX", "Channel", "DeviceTopic", "Topics"]

PREFIX = "edgeopt/v1"


class Channel(StrEnum):
    """The last level of a device's topic."""

    DESIRED = "desired"  # fleet -> device, retained
    SHADOW = "shadow"  # fleet -> device, retained
    ACK = "ack"  # fleet -> device
    REPORTED = "reported"  # device -> fleet
    TELEMETRY = "telemetry"  # device -> fleet
    STATUS = "status"  # device -> fleet, retained, also the will


@dataclass(frozen=True, slots=True)
class DeviceTopic:
    """``edgeopt/v1/devices/<device>/<channel>``."""

    device: str
    channel: Channel

    def __post_init__(self) -> None:
        check_device_id(self.device)

    def __str__(self) -> str:
        return f"{PREFIX}/devices/{self.device}/{self.channel}"

    @classmethod
    def parse(cls, topic: str) -> DeviceTopic:
        """Parse a topic that came from the broker. Raises :class:`MessageError`."""
        parts = topic.split("/")
        try:
            if "/".join(parts[:2]) != PREFIX or parts[2] != "devices" or len(parts) != 5:
                raise ValueError("not a device topic")
            return cls(parts[3], Channel(parts[4]))
        except (ValueError, IndexError) as error:
            raise MessageError(
                f"expected a topic like {PREFIX}/devices/<device>/<channel>, got {topic[:120]!r}"
            ) from error


class Topics:
    """Every topic of the protocol by name; ``ANY_…`` are the fleet's subscriptions."""

    ANY_REPORTED = f"{PREFIX}/devices/+/{Channel.REPORTED}"
    ANY_TELEMETRY = f"{PREFIX}/devices/+/{Channel.TELEMETRY}"
    ANY_STATUS = f"{PREFIX}/devices/+/{Channel.STATUS}"
    TUF = f"{PREFIX}/tuf"  # retained: all metadata that bundles are verified with (edgeopt_contract.tuf.TufMetadata)

    @staticmethod
    def block(sha256: str) -> str:
        """The retained message that holds one block; the payload's SHA-256 is the last level."""
        return f"{PREFIX}/blocks/{check_digest(sha256)}"

    @staticmethod
    def desired(device: str) -> str:
        """What the fleet wants ``device`` to run (:class:`~edgeopt_contract.messages.Desired`)."""
        return str(DeviceTopic(device, Channel.DESIRED))

    @staticmethod
    def shadow(device: str) -> str:
        """What ``device`` is to run beside what serves (:class:`~edgeopt_contract.messages.Shadow`)."""
        return str(DeviceTopic(device, Channel.SHADOW))

    @staticmethod
    def reported(device: str) -> str:
        """State changes and results (:class:`~edgeopt_contract.messages.Reported`)."""
        return str(DeviceTopic(device, Channel.REPORTED))

    @staticmethod
    def telemetry(device: str) -> str:
        """Profile windows (:class:`~edgeopt_contract.messages.Telemetry`)."""
        return str(DeviceTopic(device, Channel.TELEMETRY))

    @staticmethod
    def status(device: str) -> str:
        """Birth and death (:class:`~edgeopt_contract.messages.Status`)."""
        return str(DeviceTopic(device, Channel.STATUS))

    @staticmethod
    def ack(device: str) -> str:
        """Which numbers the fleet has committed (:class:`~edgeopt_contract.messages.Ack`)."""
        return str(DeviceTopic(device, Channel.ACK))
