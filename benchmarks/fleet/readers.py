"""Devices that read over HTTP: blocks, parts of files and metadata at a steady rate, in a process of their own.

Prints one JSON object: latencies in milliseconds, from when a request was due. Example::

    python -m benchmarks.fleet.readers http://127.0.0.1:8080 DIGEST BLOCK,BLOCK 500 10 1000
"""

from __future__ import annotations

import asyncio
import gc
import json
import sys
import time

from benchmarks.fleet.devices import device_name
from benchmarks.fleet.rig import bearer_of

__all__: list[str] = []

_CONNECTIONS = 50
_GRACE_SECONDS = 1.0  # after the last request: what comes later was not kept up with


async def read_steadily(
    url: str, paths: list[str], per_second: float, seconds: float, devices: int
) -> dict[str, float]:
    """Send requests at the rate over kept connections; return quantiles of the time until the whole answer."""
    host, port = url.removeprefix("http://").split(":")
    took: list[float] = []
    bad = in_time = 0
    due: asyncio.Queue[tuple[float, int]] = asyncio.Queue()

    async def reader() -> None:
        nonlocal bad, in_time
        source, sink = await asyncio.open_connection(host, int(port))
        while True:
            at, number = await due.get()
            if at == 0.0:
                sink.close()
                return
            bearer = bearer_of(device_name(number % devices))
            path = paths[number % len(paths)]
            sink.write(f"GET {path} HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {bearer}\r\n\r\n".encode())
            head = await source.readuntil(b"\r\n\r\n")
            length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
            await source.readexactly(length)
            bad += b" 200 " not in head[:16]
            took.append(time.monotonic() - at)
            in_time += time.monotonic() - begin < seconds + _GRACE_SECONDS

    gc.disable()
    begin, sent = time.monotonic(), 0
    tasks = [asyncio.create_task(reader()) for _ in range(_CONNECTIONS)]
    while (passed := time.monotonic() - begin) < seconds:
        while sent < passed * per_second:
            due.put_nowait((begin + sent / per_second, sent))
            sent += 1
        await asyncio.sleep(0.002)
    for _ in tasks:
        due.put_nowait((0.0, 0))
    await asyncio.gather(*tasks)
    took.sort()
    return {
        "requests": len(took),
        "bad": bad,
        "answered_in_time": in_time,
        **{f"p{share}_ms": took[int(len(took) * share / 100)] * 1e3 for share in (50, 90, 99)},
        "max_ms": took[-1] * 1e3,
    }


def main() -> None:
    """Read as the arguments say and print the figures."""
    url, digest, blocks, per_second, seconds, devices = sys.argv[1:7]
    paths = [f"/api/v1/blocks/{block}" for block in blocks.split(",")]
    paths += ["/api/v1/tuf", f"/api/v1/blocks/{digest}", f"/api/v1/bundles/{digest}/files/profile.json"]
    print(json.dumps(asyncio.run(read_steadily(url, paths, float(per_second), float(seconds), int(devices)))))


if __name__ == "__main__":
    main()
