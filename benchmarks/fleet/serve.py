"""The fleet's server, as it is, over a Mosquitto without TLS: what is measured is the server, not OpenSSL.

Only the address of the broker differs from ``edgeopt-fleet serve``. Example::

    python -m benchmarks.fleet.serve build/fleet 1883            # or with api or worker behind it: a part of it
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from unittest.mock import patch

from edgeopt_fleet import server
from edgeopt_fleet.config import Home
from edgeopt_fleet.link import BrokerAddress

__all__: list[str] = []


def main() -> None:
    """Serve until SIGTERM."""
    home, port = Home(Path(sys.argv[1])), int(sys.argv[2])
    with patch.object(server, "addresses_of", lambda *_: [BrokerAddress(host="127.0.0.1", port=port)]):
        parts = {"api": server.serve_api, "worker": server.serve_worker}
        asyncio.run(parts.get(sys.argv[-1], server.serve)(home))


if __name__ == "__main__":
    main()
