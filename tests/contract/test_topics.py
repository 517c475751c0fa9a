"""Topics: made right or not at all, and parsed back to what they were made of."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeopt_contract.errors import MessageError
from edgeopt_contract.topics import PREFIX, Channel, DeviceTopic, Topics

DEVICE_IDS = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}", fullmatch=True)


def matches(topic_filter: str, topic: str) -> bool:
    """Say whether an MQTT filter matches a topic (MQTT 3.1.1 section 4.7), for filters without '#'."""
    levels, names = topic_filter.split("/"), topic.split("/")
    return len(levels) == len(names) and all(a in ("+", b) for a, b in zip(levels, names, strict=True))


@given(device=DEVICE_IDS, channel=st.sampled_from(Channel))
def test_a_device_topic_survives_a_round_trip(device: str, channel: Channel) -> None:
    """Parse undoes str."""
    assert DeviceTopic(device, channel) == DeviceTopic.parse(str(DeviceTopic(device, channel)))


def test_named_topics() -> None:
    """Version 1 of the protocol, literally: other programs subscribe to these."""
    assert "edgeopt/v1/devices/cam-7/desired" == Topics.desired("cam-7")
    assert "edgeopt/v1/devices/cam-7/shadow" == Topics.shadow("cam-7")
    assert "edgeopt/v1/devices/cam-7/ack" == Topics.ack("cam-7")
    assert "edgeopt/v1/devices/cam-7/reported" == Topics.reported("cam-7")
    assert "edgeopt/v1/devices/cam-7/telemetry" == Topics.telemetry("cam-7")
    assert "edgeopt/v1/devices/cam-7/status" == Topics.status("cam-7")
    assert f"edgeopt/v1/blocks/{'0' * 64}" == Topics.block("0" * 64)


@given(device=DEVICE_IDS)
def test_the_fleet_hears_what_devices_say_and_only_that(device: str) -> None:
    """Its three filters match the three topics that devices publish, each its own."""
    said = [Topics.reported(device), Topics.telemetry(device), Topics.status(device)]
    heard = [Topics.ANY_REPORTED, Topics.ANY_TELEMETRY, Topics.ANY_STATUS]
    assert [[row == column for column in range(3)] for row in range(3)] == [
        [matches(topic_filter, topic) for topic in said] for topic_filter in heard
    ]
    assert not any(
        matches(f, t) for f in heard for t in (Topics.desired(device), Topics.shadow(device), Topics.ack(device))
    )


@pytest.mark.parametrize("device", ["+", "#", "a/b", "", "a/+/b", "../x", "a\0b"])
@pytest.mark.parametrize(
    "make", [Topics.desired, Topics.shadow, Topics.ack, Topics.reported, Topics.telemetry, Topics.status]
)
def test_no_wildcard_gets_into_a_topic(make: object, device: str) -> None:
    """A device called '+' would hear every other device."""
    with pytest.raises(ValueError, match="device id"):
        make(device)  # type: ignore[operator]  # parametrize erases the type


@pytest.mark.parametrize("digest", ["+", "#", "", "A" * 64, "0" * 64 + "/x"])
def test_no_wildcard_gets_into_a_block_topic(digest: str) -> None:
    """A block topic names one block."""
    with pytest.raises(ValueError, match="SHA-256"):
        Topics.block(digest)


@pytest.mark.parametrize(
    "topic",
    [
        "",
        "/",
        PREFIX,
        f"{PREFIX}/devices",
        f"{PREFIX}/devices/cam-7",
        f"{PREFIX}/devices/cam-7/",
        f"{PREFIX}/devices//status",
        f"{PREFIX}/devices/+/status",
        f"{PREFIX}/devices/cam-7/status/more",
        f"{PREFIX}/devices/cam-7/STATUS",
        f"{PREFIX}/blocks/cam-7/status",
        "edgeopt/v2/devices/cam-7/status",
        "Edgeopt/v1/devices/cam-7/status",
        f"/{PREFIX}/devices/cam-7/status",
        "x" * 70_000,
    ],
)
def test_hostile_topics_are_refused(topic: str) -> None:
    """A topic that is not one of ours is refused in a short message that shows it."""
    with pytest.raises(MessageError, match="expected a topic like edgeopt/v1/devices/<device>/<channel>") as caught:
        DeviceTopic.parse(topic)
    assert len(str(caught.value)) < 250


@given(topic=st.text(max_size=80))
def test_any_text_is_a_topic_or_a_message_error(topic: str) -> None:
    """Whatever the broker hands over, the caller has one exception to handle."""
    try:
        assert topic == str(DeviceTopic.parse(topic))
    except MessageError as error:
        assert "expected a topic" in str(error)  # noqa: PT017  # both outcomes are right, each with its own check
