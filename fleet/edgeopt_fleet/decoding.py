"""From a topic and its payload to a message, cheaply: telemetry comes thousands of times a second.

Pure. Telemetry is decoded straight into a struct that accepts a part of what the contract accepts, in C. What it does
not accept goes to :func:`edgeopt_contract.codec.decode`, which alone says what is a message and what is wrong with
the others. Example::

    decode_incoming("edgeopt/v1/devices/cam-7/telemetry", payload)
    # Incoming(device='cam-7', record=Window(session=…, number=12, …))
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Annotated, Literal

import msgspec

from edgeopt_contract.codec import decode
from edgeopt_contract.errors import MessageError
from edgeopt_contract.messages import Reported, Status, Telemetry
from edgeopt_contract.topics import Channel, DeviceTopic

__all__ = ["Incoming", "Window", "decode_incoming", "kind_of"]

_GREATEST = 2**53 - 1  # as in the codec
Count = Annotated[int, msgspec.Meta(ge=0, le=_GREATEST)]
Number = Annotated[int, msgspec.Meta(ge=1, le=_GREATEST)]
Time = Annotated[int, msgspec.Meta(ge=-_GREATEST, le=_GREATEST)]
Gauge = Annotated[float, msgspec.Meta(ge=-_GREATEST, le=_GREATEST)]
Digest = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{64}\Z")]


class Window(msgspec.Struct, kw_only=True, forbid_unknown_fields=True, gc=False):
    """A :class:`~edgeopt_contract.messages.Telemetry` of the usual kind: every field known, nothing else."""

    schema: Literal[1]
    session: Number
    number: Number
    bundle: Digest
    variant: str
    start: Time
    end: Time
    rows: Count
    errors: Count
    cells: dict[str, list[Count]]
    latency: list[Count]
    infrastructure: dict[str, Gauge] = {}


@dataclass(frozen=True, slots=True)
class Incoming:
    """One decoded message and the device whose topic it came on."""

    device: str
    record: Reported | Telemetry | Window | Status


_WINDOWS = msgspec.json.Decoder(Window)


def decode_incoming(topic: str, payload: bytes) -> Incoming:
    """Return the message. Raises :class:`MessageError` for what no device may send, in form or place."""
    parsed = _parsed(topic)
    return Incoming(parsed.device, _decode(parsed, payload))


@lru_cache(maxsize=20_000)
def _parsed(topic: str) -> DeviceTopic:
    return DeviceTopic.parse(topic)


def kind_of(topic: str) -> str:
    """Return the kind of message that ``topic`` is for, for counting: a channel's name, or ``unknown``."""
    last = topic.rsplit("/", 1)[-1]
    return last if last in (Channel.REPORTED, Channel.TELEMETRY, Channel.STATUS) else "unknown"


def _decode(topic: DeviceTopic, payload: bytes) -> Reported | Telemetry | Window | Status:
    if topic.channel is Channel.TELEMETRY:
        return _usual_window(payload) or decode(Telemetry, payload)
    if topic.channel is Channel.REPORTED:
        return decode(Reported, payload)
    if topic.channel is not Channel.STATUS:
        raise MessageError(f"expected a message of a device, got one on {topic}")
    status = decode(Status, payload)
    if status.device != topic.device:
        raise MessageError(f"expected the status of {topic.device}, got that of {status.device}")
    return status


def _usual_window(payload: bytes) -> Window | None:
    if len(payload) > Telemetry.MAX_BYTES:
        return None
    try:
        window = _WINDOWS.decode(payload)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
    return window if window.start <= window.end else None
