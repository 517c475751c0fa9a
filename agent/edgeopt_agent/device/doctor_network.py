"""The doctor's way to the fleet, step by step: name, TCP, TLS, login. The first step that fails is what it tells.

A login would throw out the agent that runs beside, for both have one client id; so it is left out then. Example::

    list(check_broker(data, identity, agent_runs=False))
"""

from __future__ import annotations

import socket
import ssl
import struct
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

from edgeopt_agent.credentials.identity import Identity, tls_context
from edgeopt_agent.device.checkup import Finding, fail, good, warn

__all__ = ["check_broker", "check_server"]

_PATIENCE_SECONDS = 10.0
_CONNACK = {
    0: "",
    1: "wrong protocol",
    2: "client id refused",
    3: "not available",
    4: "wrong password",
    5: "not allowed",
}


def check_broker(data: Path, identity: Identity, *, agent_runs: bool) -> Iterator[Finding]:
    """Yield how far this device gets at the broker."""
    mqtt = identity.access.mqtt
    place = f"{mqtt.host}:{mqtt.port}"
    context = tls_context(data, identity) if mqtt.tls else None
    try:
        with _connect(mqtt.host, mqtt.port, context) as connection:
            if agent_runs:
                yield good(
                    "broker", f"{place} answers{', by TLS' if context else ''}; the agent is logged in, or tries"
                )
                return
            refusal = _log_in(connection, identity.device, None if mqtt.tls else mqtt.password)
    except OSError as error:
        yield _unreachable("broker", place, error)
        return
    if refusal:
        yield fail("broker", f"{place} does not let this device in: {refusal}", "was it revoked? then enrol it again")
    else:
        yield good("broker", f"{place} lets this device in")


def check_server(identity: Identity) -> Iterator[Finding]:
    """Yield whether the fleet's HTTP server can be reached; it is needed for renewals and the other way of delivery."""
    parts = urlsplit(identity.server)
    tls = parts.scheme == "https"
    port = parts.port or (443 if tls else 80)
    context = ssl.create_default_context(cadata=identity.access.ca) if tls else None
    place = f"{parts.hostname}:{port}"
    try:
        with _connect(parts.hostname or "", port, context):
            yield good("server", f"{place} answers")
    except OSError as error:
        found = _unreachable("server", place, error)
        yield warn(found.check, found.seen, found.advice)


def _connect(host: str, port: int, context: ssl.SSLContext | None) -> socket.socket:
    plain = socket.create_connection((host, port), timeout=_PATIENCE_SECONDS)
    try:
        return context.wrap_socket(plain, server_hostname=host) if context else plain
    except BaseException:
        plain.close()
        raise


def _unreachable(check: str, place: str, error: OSError) -> Finding:
    """Return which step failed, from the error that it gave."""
    if isinstance(error, socket.gaierror):
        return fail(check, f"{place}: the name is not known", "check DNS: getent hosts, resolvectl status")
    if isinstance(error, ssl.SSLError):
        return fail(check, f"{place}: TLS fails: {error.reason or error}", "check the clock and the certificate above")
    if isinstance(error, TimeoutError):
        return fail(check, f"{place}: no answer in {_PATIENCE_SECONDS:.0f} s", "check the network and any firewall")
    return fail(check, f"{place}: {error.strerror or error}", "is it running, and is this the right address?")


def _log_in(connection: socket.socket, device: str, password: str | None) -> str:
    """Say CONNECT as MQTT 3.1.1 has it (section 3.1) and then DISCONNECT; return why it was refused, or nothing."""
    user = b"" if password is None else _text(device) + _text(password)
    flags = 0x02 | (0 if password is None else 0xC0)  # a clean session
    body = _text("MQTT") + struct.pack("!BBH", 4, flags, 10) + _text(device) + user
    connection.sendall(b"\x10" + _length(len(body)) + body)
    answer = b""
    while len(answer) < 4:  # CONNACK, section 3.2
        part = connection.recv(4 - len(answer))
        if not part:
            return "it closed the connection"
        answer += part
    connection.sendall(b"\xe0\x00")
    return "it speaks no MQTT" if answer[0] != 0x20 else _CONNACK.get(answer[3], f"reason {answer[3]}")


def _text(text: str) -> bytes:
    data = text.encode()
    return struct.pack("!H", len(data)) + data


def _length(length: int) -> bytes:
    """Return a remaining length, seven bits a byte, the lowest first (section 2.2.3)."""
    low, rest = length & 0x7F, length >> 7
    return bytes([low | 0x80]) + _length(rest) if rest else bytes([low])
