"""Certificates of the fleet's own programs on disk, and TLS settings made of them.

A key and its certificate lie in one file with mode 0600, so that a power cut cannot leave one without the other.
Example::

    write_pair(home.server_pem, authority.make_server(("fleet.example",), now))
    context = client_context(home.ca / "ca.pem", home.client_pem)
"""

from __future__ import annotations

import ipaddress
import socket
import ssl
import time
from collections.abc import Iterable
from pathlib import Path

from edgeopt_contract.storage import write_atomically
from edgeopt_fleet.broker import FLEET_USER
from edgeopt_fleet.ca import DeviceAuthority, KeyPair
from edgeopt_fleet.config import FleetConfig, Home

__all__ = ["client_context", "server_names", "write_own_pairs", "write_pair"]


def write_pair(path: Path, pair: KeyPair) -> None:
    """Write key and certificate for their owner alone. Raises :class:`StorageError`."""
    write_atomically(path, pair.key + pair.certificate, mode=0o600)


def write_own_pairs(home: Home, config: FleetConfig, authority: DeviceAuthority) -> None:
    """Write the certificates of the fleet's own programs; they are made anew at every start."""
    now = time.time()
    write_pair(home.server_pem, authority.make_server(server_names(config.host, config.names), now))
    write_pair(home.client_pem, authority.make_client(FLEET_USER, now))


def client_context(ca: Path, pair: Path) -> ssl.SSLContext:
    """Return settings for a connection that shows the certificate in ``pair`` and expects one of ``ca``."""
    context = ssl.create_default_context(cafile=str(ca))
    context.load_cert_chain(pair)
    return context


def server_names(host: str, names: Iterable[str]) -> list[str]:
    """Return every name and address under which a server that listens on ``host`` may be reached."""
    listening = [] if _is_any(host) else [host]
    return list(dict.fromkeys([*names, *listening, socket.gethostname(), "localhost", "127.0.0.1"]))


def _is_any(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_unspecified
    except ValueError:
        return False
