"""The raw broker, to compare with: every telemetry message is acknowledged at once, unread and unstored.

Example::

    python -m benchmarks.fleet.echo 1883
"""

from __future__ import annotations

import asyncio
import re
import sys
from collections.abc import Sequence

from edgeopt_contract.topics import Topics
from edgeopt_fleet.mqtt.client import MqttClient, Peer
from edgeopt_fleet.mqtt.packets import Hello

__all__: list[str] = []

_NUMBER = re.compile(rb'"number":(\d+).*"session":(\d+)')


async def echo(port: int) -> None:
    """Acknowledge what comes, until the connection ends."""
    tasks: set[asyncio.Task[None]] = set()

    def receive(messages: Sequence[tuple[str, bytes]]) -> None:
        acks = []
        for topic, payload in messages:
            found = _NUMBER.search(payload)
            if found is not None:
                upto = b'{"beyond":[],"schema":1,"session":%b,"upto":%b}' % (found[2], found[1])
                acks.append((topic.rsplit("/", 1)[0] + "/ack", upto))
        task = asyncio.get_running_loop().create_task(client.send(acks))
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    hello = Hello(client_id="echo", keepalive_seconds=15)
    client = await MqttClient.connect(Peer(host="127.0.0.1", port=port), hello, receive)
    await client.subscribe([(Topics.ANY_TELEMETRY, 0)])
    print("ready", flush=True)
    await client.closed()


if __name__ == "__main__":
    asyncio.run(echo(int(sys.argv[1])))
