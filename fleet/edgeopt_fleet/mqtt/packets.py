"""The packets of MQTT 3.1.1 that a client sends and receives, as bytes. Pure.

QoS 2 is left out: nothing here uses it. Sections are those of the OASIS standard, version 3.1.1. Example::

    data = publish_packet("edgeopt/v1/devices/cam-7/ack", b"{}", packet_id=0)        # QoS 0
    splitter = Splitter()
    for head, body in splitter.feed(data):
        topic, payload, packet_id = parse_publish(head, body)
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import IntEnum

__all__ = [
    "Hello",
    "Kind",
    "PacketError",
    "Splitter",
    "connect_packet",
    "disconnect_packet",
    "kind_of_packet",
    "parse_connack",
    "parse_packet_id",
    "parse_publish",
    "parse_suback",
    "ping_packet",
    "puback_packet",
    "publish_packet",
    "subscribe_packet",
    "unsubscribe_packet",
]

_MOST_BYTES = 268_435_455  # section 2.2.3
_RETAIN, _QOS_1 = 0x01, 0x02
_PACKET_ID = struct.Struct("!H")
_PUBACK = struct.Struct("!BBH")


class Kind(IntEnum):
    """The type of a packet (section 2.2.1)."""

    CONNECT = 1
    CONNACK = 2
    PUBLISH = 3
    PUBACK = 4
    SUBSCRIBE = 8
    SUBACK = 9
    UNSUBSCRIBE = 10
    UNSUBACK = 11
    PINGREQ = 12
    PINGRESP = 13
    DISCONNECT = 14


class PacketError(ValueError):
    """The peer sent what is not MQTT 3.1.1."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Hello:
    """What a client says first; ``will`` is topic and payload, sent with QoS 1 and retained when it is lost."""

    client_id: str
    keepalive_seconds: int
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    will: tuple[str, bytes] | None = None


def connect_packet(hello: Hello) -> bytes:
    """Return CONNECT with a clean session (section 3.1)."""
    flags, parts = 0x02, [_text(hello.client_id)]
    if hello.will is not None:
        flags |= 0x04 | 0x08 | 0x20  # a will, of QoS 1, retained
        parts += [_text(hello.will[0]), _sized(hello.will[1])]
    if hello.username is not None:
        flags |= 0x80
        parts.append(_text(hello.username))
    if hello.password is not None:
        flags |= 0x40
        parts.append(_text(hello.password))
    head = _text("MQTT") + struct.pack("!BBH", 4, flags, hello.keepalive_seconds)
    return _packet(Kind.CONNECT << 4, head + b"".join(parts))


def publish_packet(topic: str, payload: bytes, *, packet_id: int, retain: bool = False) -> bytes:
    """Return PUBLISH (section 3.3): with QoS 1, or with QoS 0 where ``packet_id`` is zero."""
    name = topic.encode()
    first = Kind.PUBLISH << 4 | (_RETAIN if retain else 0) | (_QOS_1 if packet_id else 0)
    identifier = _PACKET_ID.pack(packet_id) if packet_id else b""
    length = 2 + len(name) + len(identifier) + len(payload)
    return b"".join((bytes((first,)), _length(length), _PACKET_ID.pack(len(name)), name, identifier, payload))


def subscribe_packet(packet_id: int, filters: Sequence[tuple[str, int]]) -> bytes:
    """Return SUBSCRIBE for pairs of a filter and the highest QoS (section 3.8)."""
    parts = [_text(name) + bytes((qos,)) for name, qos in filters]
    return _packet(Kind.SUBSCRIBE << 4 | 0x02, _PACKET_ID.pack(packet_id) + b"".join(parts))


def unsubscribe_packet(packet_id: int, filters: Sequence[str]) -> bytes:
    """Return UNSUBSCRIBE (section 3.10)."""
    return _packet(Kind.UNSUBSCRIBE << 4 | 0x02, _PACKET_ID.pack(packet_id) + b"".join(map(_text, filters)))


def puback_packet(packet_id: int) -> bytes:
    """Return PUBACK (section 3.4)."""
    return _PUBACK.pack(Kind.PUBACK << 4, 2, packet_id)


def ping_packet() -> bytes:
    """Return PINGREQ (section 3.12)."""
    return bytes((Kind.PINGREQ << 4, 0))


def disconnect_packet() -> bytes:
    """Return DISCONNECT (section 3.14): an orderly end, without the will."""
    return bytes((Kind.DISCONNECT << 4, 0))


class Splitter:
    """Cuts a stream of bytes into packets."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> list[tuple[int, bytes]]:
        """Return the packets that are complete with ``data``: their first byte and their body.

        Raises :class:`PacketError` when the stream cannot be MQTT.
        """
        if self._rest:
            data = self._rest + data
        packets, start, end = [], 0, len(data)
        while end - start >= 2:
            length, place = data[start + 1], start + 2
            if length & 0x80:
                length, place = _long_length(data, start + 1)
            if place < 0 or end - place < length:
                break
            packets.append((data[start], data[place : place + length]))
            start = place + length
        self._rest = data[start:]
        return packets


def kind_of_packet(first: int) -> int:
    """Return the type in a packet's first byte."""
    return first >> 4


def parse_publish(first: int, body: bytes) -> tuple[str, bytes, int]:
    """Return topic, payload and packet id of a PUBLISH; the id is zero with QoS 0. Raises :class:`PacketError`."""
    qos = first >> 1 & 3
    try:
        start = 2 + _PACKET_ID.unpack_from(body)[0]
        topic = body[2:start].decode()
        if qos == 0:
            if len(body) < start:
                raise PacketError("expected a topic of the stated length, got less")
            return topic, body[start:], 0
        packet_id: int = _PACKET_ID.unpack_from(body, start)[0]
    except (struct.error, UnicodeDecodeError) as error:
        raise PacketError(f"expected a PUBLISH with a topic in UTF-8, got {body[:40]!r}") from error
    if qos != 1:
        raise PacketError(f"expected QoS 0 or 1, got {qos}")
    return topic, body[start + 2 :], packet_id


def parse_connack(body: bytes) -> int:
    """Return the code of a CONNACK: 0 accepted, else why not (section 3.2.2.3). Raises :class:`PacketError`."""
    if len(body) != 2:
        raise PacketError(f"expected a CONNACK of 2 bytes, got {len(body)}")
    return body[1]


def parse_packet_id(body: bytes) -> int:
    """Return the packet id that a PUBACK, SUBACK or UNSUBACK begins with. Raises :class:`PacketError`."""
    if len(body) < 2:
        raise PacketError(f"expected a packet id of 2 bytes, got {len(body)}")
    packet_id: int = _PACKET_ID.unpack_from(body)[0]
    return packet_id


def parse_suback(body: bytes) -> tuple[int, ...]:
    """Return the codes of a SUBACK, one for each filter: the QoS granted, or 128 (section 3.9.3)."""
    return tuple(body[2:])


def _packet(first: int, body: bytes) -> bytes:
    return bytes((first,)) + _length(len(body)) + body


def _length(length: int) -> bytes:
    """Return the remaining length, 7 bits a byte (section 2.2.3)."""
    if length < 0x80:
        return bytes((length,))
    if length > _MOST_BYTES:
        raise PacketError(f"expected a packet of at most {_MOST_BYTES} bytes, got {length}")
    digits = []
    while length:
        length, digit = length >> 7, length & 0x7F
        digits.append(digit | 0x80 if length else digit)
    return bytes(digits)


def _long_length(data: bytes, place: int) -> tuple[int, int]:
    """Return the remaining length and where the body begins; -1 for where when bytes are still missing."""
    length = 0
    for number, digit in enumerate(data[place : place + 4]):
        length |= (digit & 0x7F) << 7 * number
        if not digit & 0x80:
            return length, place + number + 1
    if len(data) - place >= 4:
        raise PacketError("expected a length of at most 4 bytes (MQTT 3.1.1, section 2.2.3)")
    return 0, -1


def _text(value: str) -> bytes:
    return _sized(value.encode())


def _sized(value: bytes) -> bytes:
    return _PACKET_ID.pack(len(value)) + value
