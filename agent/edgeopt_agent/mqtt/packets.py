"""No MQTT packet may be longer than anything that the fleet says: the broker is not trusted with the device's memory.

MQTT 3.1.1 lets a packet have 256 MB (section 2.2.3) and a client cannot ask for less; paho takes what comes. Here a
packet that announces more than it may ends the connection before any of it is taken. Example::

    client = aiomqtt.Client(…)
    limit_packets(client)
"""

from __future__ import annotations

import logging

import aiomqtt

from edgeopt_agent.log import log_event
from edgeopt_contract.blocks import MAX_BLOCK_BYTES
from edgeopt_contract.manifest import Manifest
from edgeopt_contract.tuf import TufMetadata

__all__ = ["LONGEST_PACKET_BYTES", "limit_packets"]

_HEADER_BYTES = 66_000  # the longest topic, its length, and a packet's number
LONGEST_PACKET_BYTES = max(Manifest.MAX_BYTES, TufMetadata.MAX_BYTES, MAX_BLOCK_BYTES) + _HEADER_BYTES


def limit_packets(client: aiomqtt.Client, longest: int = LONGEST_PACKET_BYTES) -> None:
    """Let ``client`` lose its connection when a packet of more than ``longest`` bytes begins."""
    paho = client._client  # noqa: SLF001  # aiomqtt and paho have no public way
    receive = paho._sock_recv  # noqa: SLF001  # the same

    def receive_some(size: int) -> bytes:
        """Paho asks for all that is missing of a packet."""
        if size > longest:
            log_event("packet_refused", level=logging.WARNING, bytes=size, longest=longest)
            raise ConnectionAbortedError(f"expected a packet of at most {longest} bytes, got {size}")
        return receive(size)

    paho._sock_recv = receive_some  # type: ignore[method-assign, assignment]  # noqa: SLF001  # the same
