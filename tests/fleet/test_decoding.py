from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeopt_contract.codec import decode, encode
from edgeopt_contract.errors import MessageError
from edgeopt_contract.messages import Status, Telemetry
from edgeopt_contract.topics import Topics
from edgeopt_fleet.decoding import Window, decode_incoming, kind_of
from tests.fleet.conftest import window

WORDS = st.sampled_from(
    ["session", "number", "bundle", "variant", "start", "end", "rows", "errors", "cells", "latency"]
)
VALUES: st.SearchStrategy[Any] = st.one_of(
    st.integers(-(2**65), 2**65),
    st.floats(allow_nan=False),
    st.text(max_size=70),
    st.none(),
    st.booleans(),
    st.lists(st.integers(-1, 2**54), max_size=3),
    st.dictionaries(st.text(max_size=3), st.lists(st.integers(-1, 2**54), max_size=3), max_size=2),
)


def test_usual_telemetry_takes_the_short_way() -> None:
    """What agents send is decoded by the cheap decoder, with every value as the contract has it."""
    record = window("a" * 64, 7)
    incoming = decode_incoming(Topics.telemetry("cam-1"), encode(record))
    assert isinstance(incoming.record, Window)
    for name in Window.__struct_fields__:
        if name != "schema":
            assert _plain(getattr(record, name)) == _plain(getattr(incoming.record, name))


@given(key=st.one_of(WORDS, st.text(max_size=5)), value=VALUES)
def test_the_short_way_takes_nothing_that_the_contract_refuses(key: str, value: Any) -> None:
    """Whatever one field holds: both decoders give the same values, or the message is refused as the contract says."""
    plain = json.loads(encode(window("a" * 64, 7))) | {key: value}
    payload = json.dumps(plain).encode()
    expected, found = _outcome(lambda: decode(Telemetry, payload)), _outcome(lambda: _record(payload))
    if isinstance(expected, str):
        assert expected == found
        return
    for name in ("session", "number", "bundle", "start", "end", "rows", "errors", "cells", "latency", "infrastructure"):
        assert _plain(getattr(expected, name)) == _plain(getattr(found, name))


def _record(payload: bytes) -> Any:
    return decode_incoming(Topics.telemetry("cam-1"), payload).record


def _outcome(call: Callable[[], Any]) -> Any:
    """Return what ``call`` returns, or the words with which it refuses."""
    try:
        return call()
    except MessageError as error:
        return str(error)


def _plain(value: Any) -> Any:
    return json.loads(json.dumps(value))


@pytest.mark.parametrize(
    "payload", [b"", b"{", b"[]", b"\xff", b'{"schema":1}', b"[" * 5000, b" " * 70_000, b'{"schema":2}']
)
@pytest.mark.parametrize("channel", ["telemetry", "reported", "status"])
def test_garbage_is_a_message_error(payload: bytes, channel: str) -> None:
    """Nothing that a device can send is another kind of exception."""
    with pytest.raises(MessageError):
        decode_incoming(f"edgeopt/v1/devices/cam/{channel}", payload)


@pytest.mark.parametrize(
    "topic", ["edgeopt/v1/devices/cam/ack", "edgeopt/v1/devices/a b/status", "x", "", "edgeopt/v1"]
)
def test_other_topics_are_refused(topic: str) -> None:
    """Only a device's own three topics carry messages to the fleet."""
    with pytest.raises(MessageError):
        decode_incoming(topic, encode(window("a" * 64, 1)))


def test_a_status_of_another_device_is_refused() -> None:
    """The broker's rules say who publishes where; the payload may not say otherwise."""
    plain = {
        "schema": 1, "device": "cam-2", "boot": 1, "online": True, "agent_version": "0", "running": None,
        "capabilities": {"arch": "x86_64", "features": [], "runtimes": {}, "cores": 1, "memory_bytes": 1},
    }  # fmt: skip
    assert isinstance(decode_incoming("edgeopt/v1/devices/cam-2/status", json.dumps(plain).encode()).record, Status)
    with pytest.raises(MessageError, match="expected the status of cam-1, got that of cam-2"):
        decode_incoming("edgeopt/v1/devices/cam-1/status", json.dumps(plain).encode())


def test_kinds_are_counted_by_topic() -> None:
    """A malformed message is of the kind that its topic is for."""
    topics = [Topics.telemetry("c"), Topics.reported("c"), Topics.status("c"), Topics.ack("c"), "x"]
    assert ["telemetry", "reported", "status", "unknown", "unknown"] == [kind_of(topic) for topic in topics]
