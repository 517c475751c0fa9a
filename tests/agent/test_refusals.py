from __future__ import annotations

import asyncio

import pytest
from aiomqtt.exceptions import MqttConnectError
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.reasoncodes import ReasonCode

from edgeopt_agent.mqtt.refusals import Refusal
from edgeopt_contract.errors import UnreachableError


async def forever() -> None:
    """A connection that waits for a CONNACK that never comes."""
    await asyncio.Event().wait()


@pytest.mark.parametrize(
    ("alert", "words"),
    [
        ("[SSL: SSLV3_ALERT_CERTIFICATE_REVOKED] sslv3 alert certificate revoked (_ssl.c:2580)", "was revoked"),
        ("[SSL: SSLV3_ALERT_CERTIFICATE_EXPIRED] sslv3 alert certificate expired (_ssl.c:2580)", "has expired"),
        ("[SSL: TLSV1_ALERT_UNKNOWN_CA] tlsv1 alert unknown ca (_ssl.c:2580)", "another CA"),
        ("[SSL: TLSV13_ALERT_CERTIFICATE_REQUIRED] tlsv13 alert certificate required (_ssl.c:2580)", "has shown none"),
        ("[SSL: SSLV3_ALERT_BAD_CERTIFICATE] sslv3 alert bad certificate (_ssl.c:2580)", "clock"),
        ("[SSL] something new (_ssl.c:1)", "ended the TLS connection.*something new"),
    ],
)
async def test_an_alert_ends_the_waiting_with_its_meaning(alert: str, words: str) -> None:
    """What paho only logs becomes the reason; nothing waits for the time-out."""
    refusal = Refusal()
    asyncio.get_running_loop().call_soon(refusal.logger.error, "failed to receive on socket: %s", alert)
    with pytest.raises(UnreachableError, match=words):
        await refusal.or_done(forever())


async def test_what_ends_by_itself_ends_as_it_is() -> None:
    """Success, other errors and other lines of the log are left alone; a refusal in CONNACK is explained."""
    refusal = Refusal()
    refusal.logger.error("Caught exception in on_message: x")
    await refusal.or_done(asyncio.sleep(0))

    async def fails(error: Exception) -> None:
        raise error

    with pytest.raises(ConnectionResetError):
        await refusal.or_done(fails(ConnectionResetError()))
    with pytest.raises(UnreachableError, match=r"Not authorized.*was revoked"):
        await refusal.or_done(fails(MqttConnectError(ReasonCode(PacketTypes.CONNACK, "Not authorized"))))
    with pytest.raises(MqttConnectError, match="Server unavailable"):
        await refusal.or_done(fails(MqttConnectError(ReasonCode(PacketTypes.CONNACK, "Server unavailable"))))
