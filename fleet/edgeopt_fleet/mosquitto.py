"""A Mosquitto beside the fleet: its configuration, its access rules, and cutting off a device that was revoked.

Mosquitto is run by whoever runs the machine (systemd, a container); this writes what it reads, and tells it to read
again with a command that the operator chose. The fleet's own certificates are the only ones that it lets in.
Sources: mosquitto.conf(5), tried with 2.0.11. Example::

    write_mosquitto_files(files, authority, revoked, now)
    broker = ExternalBroker(files, command="systemctl reload mosquitto", …)
    await broker.cut_off("cam-7")
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import pwd
import shlex
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import aiomqtt

from edgeopt_contract.storage import write_atomically
from edgeopt_contract.topics import PREFIX, Channel, Topics
from edgeopt_fleet.broker import FLEET_USER
from edgeopt_fleet.ca import DeviceAuthority
from edgeopt_fleet.credentials import client_context, write_pair

__all__ = ["ExternalBroker", "MosquittoFiles", "write_mosquitto_files"]

_LOG = logging.getLogger(__name__)
_COMMAND_SECONDS = 20.0
_TAKE_OVER_SECONDS = 10.0
_MAX_QUEUED = 200_000  # births of more devices than one Mosquitto serves
_PUBLISHED = (Channel.REPORTED, Channel.TELEMETRY, Channel.STATUS)
_READ = (Channel.DESIRED, Channel.SHADOW, Channel.ACK)


@dataclass(frozen=True, slots=True, kw_only=True)
class MosquittoFiles:
    """Where the files lie, where the broker listens, and the server's certificate with its key in one file."""

    directory: Path
    host: str
    port: int
    server: Path
    ca: Path

    @property
    def revocations(self) -> Path:
        """The revocation list."""
        return self.directory / "revoked.pem"


def write_mosquitto_files(
    files: MosquittoFiles, authority: DeviceAuthority, revoked: Iterable[tuple[str, int]], now: float
) -> None:
    """Write configuration, access rules and revocation list. Raises :class:`StorageError`."""
    write_atomically(files.directory / "mosquitto.conf", _configuration(files).encode())
    write_atomically(files.directory / "mosquitto.acl", _rules().encode(), mode=0o640)
    write_atomically(files.revocations, authority.revocation_list(revoked, now))


def _configuration(files: MosquittoFiles) -> str:
    directory = files.directory.absolute()
    return f"""# Written by edgeopt-fleet; start it with: mosquitto -c {directory / "mosquitto.conf"}
# {files.revocations.name} changes when a device is revoked: reload then (SIGHUP).
user {pwd.getpwuid(os.getuid()).pw_name}
per_listener_settings false
listener {files.port} {files.host}
cafile {files.ca.absolute()}
certfile {files.server.absolute()}
keyfile {files.server.absolute()}
crlfile {files.revocations.absolute()}
require_certificate true
use_identity_as_username true
# one device cannot take the session of another
use_username_as_clientid true
allow_anonymous false
pid_file {directory / "mosquitto.pid"}
acl_file {directory / "mosquitto.acl"}
persistence true
persistence_location {directory}/
# else retained messages of the last half hour are lost with the power
autosave_on_changes true
autosave_interval 1000
# The fleet hears every device's birth at once when it connects, and beyond this number they are dropped without a word;
# each client may have so many waiting, those that read nothing, too: memory_limit is what bounds all of them together.
max_queued_messages {_MAX_QUEUED}
max_inflight_messages 20
# a manifest may be 1 MiB
max_packet_size 2000000
# as many as the process may open files: see LimitNOFILE in the unit, or ulimit -n
max_connections -1
log_dest stderr
log_type error
log_type warning
log_type notice
"""


def _rules() -> str:
    lines = [f"user {FLEET_USER}", f"topic readwrite {PREFIX}/#", ""]
    lines += [f"pattern write {PREFIX}/devices/%u/{channel}" for channel in _PUBLISHED]
    lines += [f"pattern read {PREFIX}/devices/%u/{channel}" for channel in _READ]
    lines += [f"pattern read {PREFIX}/blocks/+", f"pattern read {Topics.TUF}"]
    return "\n".join(lines) + "\n"


class ExternalBroker:
    """Tells a running Mosquitto who was revoked."""

    def __init__(
        self,
        files: MosquittoFiles,
        authority: DeviceAuthority,
        revoked: Callable[[], Awaitable[Sequence[tuple[str, int]]]],
        *,
        address: tuple[str, int],
        command: str,
    ) -> None:
        self._files = files
        self._authority = authority
        self._revoked = revoked
        self._address = address
        self._command = command
        self._reloading = asyncio.Lock()

    async def run(self) -> None:
        """Bring the revocation list up to date, then leave the broker to its operator."""
        await self._reload()

    async def reload(self) -> None:
        """Nothing: a new device is let in by its certificate, which the broker need not know before."""

    async def cut_off(self, device: str) -> None:
        """Let the broker refuse the revoked certificates of ``device``, and end the connection it may have.

        Mosquitto looks at the revocation list when a device connects, not afterwards. So the fleet connects once as
        this device, with a certificate of the moment: the same client id again ends the older connection (MQTT 3.1.1,
        section 3.1.4-2).
        """
        await self._reload()
        host, port = self._address
        pair = self._authority.make_client(device, time.time())
        path = self._files.directory / f".{device}.take-over.pem"
        write_pair(path, pair)
        try:
            context = client_context(self._files.ca, path)
        finally:
            path.unlink(missing_ok=True)
        with contextlib.suppress(aiomqtt.MqttError):
            async with aiomqtt.Client(
                host, port, identifier=device, tls_context=context, timeout=_TAKE_OVER_SECONDS, clean_session=True
            ):
                _LOG.info("%s was revoked and is cut off", device)

    async def _reload(self) -> None:
        async with self._reloading:
            content = self._authority.revocation_list(await self._revoked(), time.time())
            write_atomically(self._files.revocations, content)
            if not self._command:
                _LOG.warning("%s changed; reload the broker, or set broker_reload", self._files.revocations)
                return
            process = await asyncio.create_subprocess_exec(
                *shlex.split(self._command), stdin=asyncio.subprocess.DEVNULL
            )
            try:
                code = await asyncio.wait_for(process.wait(), _COMMAND_SECONDS)
            except TimeoutError:
                process.kill()
                code = await process.wait()
            if code != 0:
                _LOG.error("broker_reload (%s) ended with %d: a revoked device may still connect", self._command, code)
