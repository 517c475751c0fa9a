"""A fleet made and a fleet served: the one place where everything is wired together.

Example::

    create_fleet(Home(Path("fleet")), config)
    asyncio.run(serve(Home(Path("fleet"))))      # until SIGTERM or SIGINT
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import signal
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import uvicorn

from edgeopt_contract.errors import UsageError
from edgeopt_contract.storage import new_directory, storage_errors, write_atomically
from edgeopt_contract.values import canonical_json
from edgeopt_fleet.api.app import create_app
from edgeopt_fleet.api.services import Reach, Services
from edgeopt_fleet.broker import FLEET_USER, BrokerSettings, BrokerTls, EmbeddedBroker, nats_executable
from edgeopt_fleet.ca import DeviceAuthority
from edgeopt_fleet.config import FleetConfig, Home, read_config, write_config
from edgeopt_fleet.credentials import client_context, server_names, write_pair
from edgeopt_fleet.drift import DriftRules
from edgeopt_fleet.ingest import Ingest
from edgeopt_fleet.link import BrokerAddress, Link
from edgeopt_fleet.mosquitto import ExternalBroker, MosquittoFiles, write_mosquitto_files
from edgeopt_fleet.rates import Limits
from edgeopt_fleet.rights import Role
from edgeopt_fleet.serial import Serial
from edgeopt_fleet.store.alert_book import AlertBook
from edgeopt_fleet.store.alerts import Alerts
from edgeopt_fleet.store.audit import AuditLog
from edgeopt_fleet.store.bundles import Bundles
from edgeopt_fleet.store.cohorts import Cohorts
from edgeopt_fleet.store.database import Database
from edgeopt_fleet.store.idempotency import AnswerBook
from edgeopt_fleet.store.identities import Identities
from edgeopt_fleet.store.inbox import Inbox
from edgeopt_fleet.store.outbox import Outbox
from edgeopt_fleet.store.registry import Registry
from edgeopt_fleet.store.rollouts import Rollouts
from edgeopt_fleet.store.tokens import Tokens
from edgeopt_fleet.store.users import Users
from edgeopt_fleet.tuf.keys import create_server_key
from edgeopt_fleet.tuf.metadata import ROLES
from edgeopt_fleet.tuf.renewal import Renewal
from edgeopt_fleet.tuf.repository import Repository
from edgeopt_fleet.worker import Timing, Worker

__all__ = ["create_fleet", "free_port", "serve"]

_SHUTDOWN_SECONDS = 3


def free_port(host: str) -> int:
    """Return a TCP port that is free on ``host`` at this moment."""
    with contextlib.closing(socket.socket()) as probe:
        try:
            probe.bind((host, 0))
        except OSError as error:
            raise UsageError(f"cannot listen on {host}: {error.strerror}; give an address of this machine") from error
        return int(probe.getsockname()[1])


def create_fleet(home: Home, config: FleetConfig) -> None:
    """Write a new fleet: settings, keys, database, and the operator's access; all of it or nothing.

    Raises :class:`UsageError` when there is something in the directory already.
    """
    if home.directory.exists() and (not home.directory.is_dir() or any(home.directory.iterdir())):
        raise UsageError(f"{home.directory} exists and is not empty; choose another directory, or serve what is there")
    with new_directory(home.directory) as temporary:
        new = Home(temporary)
        with storage_errors(home.directory):
            for directory in (new.blocks, new.broker, new.ca, new.keys, new.run):
                directory.mkdir(mode=0o700)
        write_atomically(new.config, write_config(config).encode(), mode=0o600)  # it may hold a password
        now = time.time()
        DeviceAuthority.create(new.ca, now)
        database = Database.create(new.address(config))
        key = Users(database).create("operator", Role.ADMIN, now).key
        Repository(database, new.keys).create({role: (create_server_key(new.keys),) for role in ROLES}, now)
        database.close()
        if not config.database:
            with storage_errors(home.directory):
                new.database.chmod(0o600)
        authority = DeviceAuthority.load(new.ca)
        _make_certificates(new, config, authority)
        access = {"url": _url(config), "key": key} | ({"ca": authority.pem} if config.tls else {})
        write_atomically(new.operator, canonical_json(access) + b"\n", mode=0o600)
    if config.broker == "mosquitto":  # its files name the directory, which has its name only now
        write_mosquitto_files(_mosquitto_files(home, config), authority, (), now)


def _make_certificates(home: Home, config: FleetConfig, authority: DeviceAuthority) -> None:
    """Write the certificates of the fleet's own programs; they are made anew at every start."""
    now = time.time()
    write_pair(home.server_pem, authority.make_server(server_names(config.host, config.names), now))
    write_pair(home.client_pem, authority.make_client(FLEET_USER, now))


def _mosquitto_files(home: Home, config: FleetConfig) -> MosquittoFiles:
    return MosquittoFiles(
        directory=home.broker, host=config.host, port=config.mqtt_port, server=home.server_pem, ca=home.ca / "ca.pem"
    )


def _url(config: FleetConfig) -> str:
    return f"{'https' if config.tls else 'http'}://{_reachable(config.host)}:{config.http_port}"


def _reachable(host: str) -> str:
    """Return an address at which a server that listens on ``host`` is reached from this machine."""
    return "127.0.0.1" if host == "0.0.0.0" else host  # noqa: S104 - compared, not bound


async def serve(home: Home) -> None:
    """Serve the fleet in ``home`` until SIGTERM or SIGINT.

    Raises :class:`UsageError` when it cannot start: no fleet there, already served, or a port that is taken.
    """
    config = read_config(home.config)
    if config.broker == "embedded":
        nats_executable()  # fail now rather than in the background
    with _lock(home), contextlib.closing(_listen(config.host, config.http_port)) as listener:
        database = Database.open(home.address(config))
        serial = Serial(writers=database.writers)
        try:
            await _run(home, config, listener, database, serial)
        except ExceptionGroup as group:  # part of the server failed: say which way, not that it was a group
            raise group.exceptions[0] from group
        finally:
            serial.close()
            database.close()


async def _run(home: Home, config: FleetConfig, listener: socket.socket, database: Database, serial: Serial) -> None:
    metadata = Repository(database, home.keys)
    registry, rollouts = Registry(database), Rollouts(database)
    bundles = Bundles(database, home.blocks, metadata)
    await serial(registry.mark_all_offline)
    authority = DeviceAuthority.load(home.ca)
    _make_certificates(home, config, authority)
    identities = Identities(database)
    broker, address = _broker(home, config, authority, identities, serial)
    ingest = Ingest(Inbox(database), serial)
    link = Link(address, Outbox(database, bundles, metadata), serial, ingest.receive)
    timing = Timing(tick_seconds=config.tick_seconds, drift_look_seconds=config.drift_look_seconds)
    alerts = Alerts(database, DriftRules())
    worker = Worker(rollouts, alerts, serial, link.announce, timing)
    app = create_app(
        Services(
            serial=serial,
            registry=registry,
            cohorts=Cohorts(database),
            identities=identities,
            bundles=bundles,
            rollouts=rollouts,
            alert_book=AlertBook(database),
            answers=AnswerBook(database),
            users=Users(database),
            tokens=Tokens(database),
            audit=AuditLog(database),
            limits=_limits(config),
            four_eyes=config.approval == "four-eyes",
            worker=worker,
            is_connected=lambda: link.connected,
            broker=broker,
            authority=authority,
            reach=_reach(config),
            metadata=metadata,
            clock=time.time,
        )
    )
    pair = str(home.server_pem) if config.tls else None
    web = _Web(
        uvicorn.Config(app, log_config=None, access_log=False, lifespan="off", ssl_certfile=pair, ssl_keyfile=pair)
    )
    async with asyncio.TaskGroup() as group:
        background = [
            group.create_task(work)
            for work in (
                broker.run(),
                link.run(),
                ingest.run(link.acknowledge),
                worker.run(),
                Renewal(metadata, serial, link.announce).run(),
            )
        ]
        await _serve_web(web, listener, config)
        for task in background:
            task.cancel()


def _limits(config: FleetConfig) -> Limits:
    """Return how often somebody may ask."""
    return Limits.of(
        per_user=config.requests_per_second_per_user,
        per_address=config.requests_per_second_per_address,
        enrolments=config.enrolments_per_minute_per_address,
        clock=time.monotonic,
    )


def _reach(config: FleetConfig) -> Reach:
    """Return what devices are told about the broker."""
    return Reach(
        mqtt_host=config.mqtt_host,
        mqtt_port=config.mqtt_port,
        mqtt_tls=not config.plain,
        certificate_seconds=config.certificate_days * 86400,
    )


def _broker(
    home: Home, config: FleetConfig, authority: DeviceAuthority, identities: Identities, serial: Serial
) -> tuple[EmbeddedBroker | ExternalBroker, BrokerAddress]:
    """Return the broker that the settings ask for, and how the fleet itself connects to it."""
    host = config.mqtt_host if config.mqtt_host and config.broker == "mosquitto" else _reachable(config.host)
    tls = None if config.plain else client_context(home.ca / "ca.pem", home.client_pem)
    if config.broker == "mosquitto":
        external = ExternalBroker(
            _mosquitto_files(home, config),
            authority,
            lambda: serial(identities.revoked),
            address=(host, config.mqtt_port),
            command=config.broker_reload,
        )
        return external, BrokerAddress(host=host, port=config.mqtt_port, tls=tls)
    settings = BrokerSettings(
        directory=home.broker,
        pid_file=home.run / "broker.pid",
        host=config.host,
        port=config.mqtt_port,
        tls=None if config.plain else BrokerTls(server=home.server_pem, ca=home.ca / "ca.pem"),
    )
    embedded = EmbeddedBroker(settings, lambda: serial(identities.users))
    if config.plain:
        return embedded, BrokerAddress(
            host=host, port=config.mqtt_port, username=FLEET_USER, password=embedded.fleet_password
        )
    return embedded, BrokerAddress(host=host, port=config.mqtt_port, tls=tls)


class _Web(uvicorn.Server):
    """uvicorn without its own signal handling: a signal ends the whole server, not only its web part."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


async def _serve_web(web: _Web, listener: socket.socket, config: FleetConfig) -> None:
    """Answer requests until a signal comes."""
    loop = asyncio.get_running_loop()

    def stop() -> None:
        web.should_exit = True

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop)
    web.config.timeout_graceful_shutdown = _SHUTDOWN_SECONDS
    print(f"fleet is ready at {_url(config)}", file=sys.stderr, flush=True)
    await web.serve(sockets=[listener])


def _listen(host: str, port: int) -> socket.socket:
    """Return a listening socket. Raises :class:`UsageError` when the port is taken."""
    try:
        return socket.create_server((host, port), backlog=512)
    except OSError as error:
        raise UsageError(
            f"cannot listen on {host}:{port}: {error.strerror}; stop what listens there, or change fleet.toml"
        ) from error


@contextlib.contextmanager
def _lock(home: Home) -> Iterator[None]:
    """Hold the fleet's lock and say who holds it; the kernel frees it however the process ends."""
    with storage_errors(home.run):
        home.run.mkdir(mode=0o700, exist_ok=True)
        descriptor = os.open(home.run / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UsageError(f"{home.directory} is being served already (process {_pid(home.run)})") from error
        write_atomically(home.run / "server.pid", f"{os.getpid()}\n".encode())
        yield
        (home.run / "server.pid").unlink(missing_ok=True)
    finally:
        os.close(descriptor)


def _pid(directory: Path) -> str:
    with contextlib.suppress(OSError):
        return (directory / "server.pid").read_text().strip()
    return "unknown"
