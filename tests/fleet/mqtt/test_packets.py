from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from paho.mqtt.packettypes import PacketTypes

from edgeopt_fleet.mqtt.packets import (
    Hello,
    Kind,
    PacketError,
    Splitter,
    connect_packet,
    kind_of_packet,
    parse_connack,
    parse_packet_id,
    parse_publish,
    parse_suback,
    ping_packet,
    puback_packet,
    publish_packet,
    subscribe_packet,
    unsubscribe_packet,
)


def test_the_numbers_are_the_standard_s() -> None:
    """Every type has the number that another implementation knows it by."""
    for kind in Kind:
        assert getattr(PacketTypes, kind.name) == kind


def test_packets_are_those_of_the_standard() -> None:
    """Byte for byte, as sections 3.1, 3.3, 3.4, 3.8 and 3.10 lay them out."""
    hello = Hello(client_id="c", keepalive_seconds=15, username="u", password="p", will=("w", b"x"))
    assert b"\x10\x19\x00\x04MQTT\x04\xee\x00\x0f\x00\x01c\x00\x01w\x00\x01x\x00\x01u\x00\x01p" == connect_packet(hello)
    assert b"\x10\x0d\x00\x04MQTT\x04\x02\x00\x0f\x00\x01c" == connect_packet(
        Hello(client_id="c", keepalive_seconds=15)
    )
    assert b"\x33\x06\x00\x01t\x00\x07x" == publish_packet("t", b"x", packet_id=7, retain=True)
    assert b"\x30\x04\x00\x01tx" == publish_packet("t", b"x", packet_id=0)
    assert b"\x40\x02\x01\x00" == puback_packet(256)
    assert b"\x82\x06\x00\x02\x00\x01t\x01" == subscribe_packet(2, [("t", 1)])
    assert b"\xa2\x05\x00\x03\x00\x01t" == unsubscribe_packet(3, ["t"])
    assert b"\xc0\x00" == ping_packet()


@given(
    messages=st.lists(
        st.tuples(st.text(min_size=1, max_size=20), st.binary(max_size=300), st.integers(0, 65535)), max_size=5
    ),
    cuts=st.lists(st.integers(1, 40), min_size=1, max_size=10),
    large=st.sampled_from([0, 127, 128, 16_383, 16_384, 70_000]),
)
def test_any_cut_of_the_stream_gives_the_same_messages(
    messages: list[tuple[str, bytes, int]], cuts: list[int], large: int
) -> None:
    """TCP cuts anywhere; what was published comes out, with its packet id, in order."""
    messages = [*messages, ("large", bytes(large), 9)]
    stream = b"".join(publish_packet(topic, payload, packet_id=number) for topic, payload, number in messages)
    splitter, found, place = Splitter(), [], 0
    while place < len(stream):
        step = cuts[place % len(cuts)] if place < 2000 else 5000
        found += [parse_publish(*packet) for packet in splitter.feed(stream[place : place + step])]
        place += step
    assert messages == found


@given(st.binary(max_size=200))
def test_garbage_is_a_packet_error(data: bytes) -> None:
    """Whatever bytes come, nothing else is raised."""
    try:
        for first, body in Splitter().feed(data):
            if kind_of_packet(first) == Kind.PUBLISH:
                parse_publish(first, body)
            parse_packet_id(body)
            parse_suback(body)
            parse_connack(body)
    except PacketError:
        pass


@pytest.mark.parametrize("data", [b"\x30\xff\xff\xff\xff\x01", b"\x30\xff\xff\xff\xff"])
def test_a_length_of_more_than_four_bytes_is_refused(data: bytes) -> None:
    """Section 2.2.3; otherwise a peer could make us wait for ever."""
    with pytest.raises(PacketError, match="length of at most 4 bytes"):
        Splitter().feed(data)


def test_qos_2_is_refused() -> None:
    """Nothing here subscribes to it."""
    with pytest.raises(PacketError, match="QoS 0 or 1"):
        parse_publish(0x34, b"\x00\x01t\x00\x07x")
