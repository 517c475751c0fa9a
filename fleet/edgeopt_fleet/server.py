"""The fleet's processes: the one place where everything is wired together.

``serve`` is all in one; ``serve_api`` and ``serve_worker`` run apart, as many as wanted, over one database; and
``serve_broker`` runs a node of a NATS cluster. Each runs until SIGTERM or SIGINT, then ends what it has begun, hands
its roles back, and returns. Example::

    asyncio.run(serve(Home(Path("fleet"))))
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import secrets
import socket
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator, Sequence
from pathlib import Path
from typing import Any

from starlette.types import ASGIApp

from edgeopt_contract.errors import UsageError
from edgeopt_contract.storage import storage_errors, write_atomically
from edgeopt_fleet.api.app import create_app
from edgeopt_fleet.api.observe import Observed
from edgeopt_fleet.api.operations import Operations, create_probe
from edgeopt_fleet.api.services import BrokerControl, Reach, Services
from edgeopt_fleet.api.watchers import Watchers
from edgeopt_fleet.broker import EmbeddedBroker, nats_executable
from edgeopt_fleet.brokers import (
    AnyBroker,
    DistantBroker,
    addresses_of,
    embedded_broker,
    external_broker,
    follow_users,
    node_broker,
)
from edgeopt_fleet.ca import DeviceAuthority
from edgeopt_fleet.config import FleetConfig, Home, read_config
from edgeopt_fleet.credentials import write_own_pairs
from edgeopt_fleet.duties import Duties, Site
from edgeopt_fleet.memory import settle_memory
from edgeopt_fleet.metrics import Metrics
from edgeopt_fleet.rates import Limits
from edgeopt_fleet.roles import Roles
from edgeopt_fleet.serial import Serial
from edgeopt_fleet.signals import News, Signals
from edgeopt_fleet.store.alert_book import AlertBook
from edgeopt_fleet.store.audit import AuditLog
from edgeopt_fleet.store.bearers import Bearers
from edgeopt_fleet.store.bundles import Bundles
from edgeopt_fleet.store.cohorts import Cohorts
from edgeopt_fleet.store.database import Database
from edgeopt_fleet.store.downloads import Downloads
from edgeopt_fleet.store.feed import Feed
from edgeopt_fleet.store.idempotency import AnswerBook
from edgeopt_fleet.store.identities import Identities
from edgeopt_fleet.store.leases import Leases
from edgeopt_fleet.store.looks import Looks
from edgeopt_fleet.store.registry import Registry
from edgeopt_fleet.store.rollouts import Rollouts
from edgeopt_fleet.store.shadow_looks import ShadowLooks
from edgeopt_fleet.store.shadows import Shadows
from edgeopt_fleet.store.tokens import Tokens
from edgeopt_fleet.store.users import Users
from edgeopt_fleet.tuf.repository import Repository
from edgeopt_fleet.watch import Part, Watch
from edgeopt_fleet.web import answer, free_port, listen, stop_on_signals
from edgeopt_fleet.worker import Worker

__all__ = ["free_port", "serve", "serve_api", "serve_broker", "serve_worker"]

Work = Coroutine[Any, Any, None]


async def serve(home: Home) -> None:
    """Serve the fleet in ``home``: API, all roles, and the broker if it is the embedded one.

    Raises :class:`UsageError` when it cannot start: no fleet there, already served, or a port that is taken.
    """
    config = read_config(home.config)
    if config.broker == "embedded":
        nats_executable()  # fail now rather than in the background
    with _lock(home), contextlib.closing(listen(config.host, config.http_port)) as listener:
        async with _site(home, config) as site:
            authority = DeviceAuthority.load(home.ca)
            write_own_pairs(home, config, authority)
            broker = _broker(site, authority, own=True)
            if isinstance(broker, EmbeddedBroker) or not config.database:
                await site.serial(Registry(site.database).mark_all_offline)  # they say so when they are back
            name = f"serve@{socket.gethostname()}:{home.directory.absolute()}"  # a restart needs to wait for nobody
            duties = Duties(site, addresses_of(home, config, broker), "edgeopt-fleet")
            roles, watch = _roles(site, duties, name)
            app = await _application(site, authority, broker, watch)
            await _run(site, app, listener, background=[*_broker_work(site, broker), watch.run()], roles=roles)


async def serve_api(home: Home) -> None:
    """Answer the API, and nothing else. Raises :class:`UsageError` as :func:`serve_worker` does."""
    config = read_config(home.config)
    with contextlib.closing(listen(config.host, config.http_port)) as listener:
        async with _site(home, config) as site:
            await site.serial(Repository(site.database, home.keys).check_keys)
            authority = DeviceAuthority.load(home.ca)
            write_own_pairs(home, config, authority)
            broker = _broker(site, authority, own=False)
            watch = Watch(site.database, site.serial, site.metrics, Part())
            app = await _application(site, authority, broker, watch)
            await _run(site, app, listener, background=[broker.run(), watch.run()])


async def serve_worker(home: Home) -> None:
    """Do the work of the roles that are free, and stand by for the others.

    Raises :class:`UsageError` when it cannot start, also in a directory of another fleet than its database.
    """
    config = read_config(home.config)
    with contextlib.ExitStack() as stack:
        listener = None
        if config.worker_port:
            listener = stack.enter_context(contextlib.closing(listen(config.worker_host, config.worker_port)))
        async with _site(home, config) as site:
            await site.serial(Repository(site.database, home.keys).check_keys)
            write_own_pairs(home, config, DeviceAuthority.load(home.ca))
            name = f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(3)}"
            addresses = addresses_of(home, config, DistantBroker(site.signals))
            duties = Duties(site, addresses, f"edgeopt-fleet-{name}")
            roles, watch = _roles(site, duties, name)
            app = Observed(create_probe(Operations(site.metrics, watch)), site.metrics)
            await _run(site, app, listener, background=[watch.run()], roles=roles)


async def serve_broker(home: Home, node: str) -> None:
    """Run one node of the NATS cluster in the settings. Raises :class:`UsageError` when there is none of that name."""
    config = read_config(home.config)
    nats_executable()
    async with _site(home, config) as site:
        authority = DeviceAuthority.load(home.ca)
        broker = node_broker(home, config, node, authority, Identities(site.database), site.serial)
        await _run(site, None, None, background=_followed(site, broker))


@contextlib.asynccontextmanager
async def _site(home: Home, config: FleetConfig) -> AsyncIterator[Site]:
    """Open what all parts of one process share, and close it at the end."""
    settle_memory()
    database = Database.open(home.address(config))
    serial = Serial(writers=database.writers)
    try:
        yield Site(
            home=home,
            config=config,
            database=database,
            serial=serial,
            signals=Signals(config.database),
            metrics=Metrics(),
        )
    except ExceptionGroup as group:  # part of the process failed: say which way, not that it was a group
        raise group.exceptions[0] from group
    finally:
        serial.close()
        database.close()


async def _run(
    site: Site,
    app: ASGIApp | None,
    listener: socket.socket | None,
    *,
    background: Sequence[Work],
    roles: Roles | None = None,
) -> None:
    """Answer and work until a signal comes; then hand the roles back first, while all else still runs."""
    stop = stop_on_signals()
    config = site.config
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(work) for work in (site.signals.run(), *background)]
        holding = group.create_task(roles.run()) if roles is not None else None
        print(f"fleet is ready{_where(config, listener)}", file=sys.stderr, flush=True)
        if app is not None and listener is not None:
            await answer(app, listener, stop, site.home.server_pem if config.tls else None)
        else:
            await stop.wait()
        if holding is not None:
            holding.cancel()
            await asyncio.wait([holding])
        for task in tasks:
            task.cancel()


def _where(config: FleetConfig, listener: socket.socket | None) -> str:
    if listener is None:
        return ""
    host, port = listener.getsockname()[:2]
    reachable = config.reachable if host == config.host else host
    return f" at {'https' if config.tls else 'http'}://{reachable}:{port}"


def _broker(site: Site, authority: DeviceAuthority, *, own: bool) -> AnyBroker:
    """Return the broker that the settings ask for; the embedded one only in the process that it lives in."""
    identities = Identities(site.database)
    if site.config.broker == "mosquitto":
        return external_broker(site.home, site.config, authority, identities, site.serial)
    if site.config.broker == "embedded" and own:
        return embedded_broker(site.home, site.config, identities, site.serial)
    return DistantBroker(site.signals)


def _broker_work(site: Site, broker: AnyBroker) -> list[Work]:
    """Return what runs beside a process that has a broker; on SQLite no other process enrols devices."""
    if isinstance(broker, EmbeddedBroker) and site.config.database:
        return _followed(site, broker)
    return [broker.run()]


def _followed(site: Site, broker: EmbeddedBroker) -> list[Work]:
    return [broker.run(), follow_users(broker, site.database, site.serial, site.signals)]


def _roles(site: Site, duties: Duties, name: str) -> tuple[Roles, Watch]:
    """Return the roles of the process called ``name``, and who looks at how they do."""
    leases, works = Leases(site.database, owner=name, seconds=site.config.lease_seconds), duties.works()
    roles = Roles(leases, site.signals, site.metrics, works, note=duties.note)
    part = Part(owner=name, duties=tuple(works), held=lambda: roles.held, hears=duties.hears)
    return roles, Watch(site.database, site.serial, site.metrics, part)


async def _application(site: Site, authority: DeviceAuthority, broker: BrokerControl, watch: Watch) -> ASGIApp:
    """Return the API over this process's stores; what it changes wakes whoever works on it."""
    database, serial = site.database, site.serial
    metadata = Repository(database, site.home.keys)
    rollouts = Rollouts(database)
    app = create_app(
        Services(
            serial=serial,
            registry=Registry(database),
            cohorts=Cohorts(database),
            identities=Identities(database),
            bearers=Bearers(database),
            bundles=(bundles := Bundles(database, site.home.blocks, metadata)),
            downloads=Downloads(bundles),
            rollouts=rollouts,
            looks=Looks(database),
            shadows=Shadows(database),
            shadow_looks=ShadowLooks(database),
            alert_book=AlertBook(database),
            answers=AnswerBook(database),
            feed=Feed(database),
            watchers=Watchers(),
            users=Users(database),
            tokens=Tokens(database),
            audit=AuditLog(database),
            limits=_limits(site.config),
            four_eyes=site.config.approval == "four-eyes",
            worker=Worker(rollouts, serial, _waking(site.signals)),
            is_connected=watch.is_connected,
            broker=broker,
            authority=authority,
            reach=_reach(site.config),
            metadata=metadata,
            clock=time.time,
        )
    )
    app.state.operations = Operations(site.metrics, watch)
    await app.state.reads.look()
    return Observed(app, site.metrics)


def _waking(signals: Signals) -> Callable[[object], Awaitable[None]]:
    """Return what is called after an order: whoever publishes and whoever moves rollouts on look at once."""

    async def wake(_devices: object) -> None:
        await signals.send(News.DESIRED)
        await signals.send(News.ROLLOUTS)

    return wake


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
