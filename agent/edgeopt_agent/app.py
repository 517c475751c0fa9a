"""Puts the agent together and runs it until it is told to end. The only place where parts meet.

Example::

    asyncio.run(run_agent(AgentConfig(data=Path("/var/lib/edgeopt"))))
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from random import Random

from edgeopt_agent import AGENT_VERSION
from edgeopt_agent.config import AgentConfig
from edgeopt_agent.credentials.identity import Identity, Wallet, load_identity
from edgeopt_agent.credentials.renewal import Renewal
from edgeopt_agent.delivery.fetching import Carrier, Delivery, DeliveryOptions
from edgeopt_agent.delivery.flow import Budget
from edgeopt_agent.delivery.http_download import HttpAccess
from edgeopt_agent.delivery.over_http import HttpCarrier
from edgeopt_agent.delivery.over_mqtt import MqttCarrier, MqttOptions
from edgeopt_agent.device.lock import only_agent_of
from edgeopt_agent.device.machine import read_capabilities_apart, read_facts
from edgeopt_agent.device.notify import Notifier
from edgeopt_agent.inference.health import HealthLimits
from edgeopt_agent.inference.served import ServedOptions
from edgeopt_agent.inference.serving import Serving, ServingOptions
from edgeopt_agent.inference.sources import Source, make_sources
from edgeopt_agent.inference.supervisor import RunnerOptions
from edgeopt_agent.log import log_event
from edgeopt_agent.mqtt.link import Link, LinkOptions, Listener
from edgeopt_agent.reports.books import Books
from edgeopt_agent.reports.clerk import Clerk
from edgeopt_agent.reports.outbox import Outbox
from edgeopt_agent.reports.spool import Spool
from edgeopt_agent.shadow.late import META, LateShadow, ShadowPart
from edgeopt_agent.tasks import end_tasks
from edgeopt_agent.trust.checker import Trust, TrustOptions
from edgeopt_agent.trust.sources import HttpMetadata, MetadataSource, MqttMetadata
from edgeopt_agent.update.journal import Journal
from edgeopt_agent.update.orders import SIGNAL as ORDER_SIGNAL
from edgeopt_agent.update.slots import Slots
from edgeopt_agent.update.updater import Parts, Updater
from edgeopt_contract.codec import encode
from edgeopt_contract.errors import StorageError
from edgeopt_contract.messages import Status

__all__ = ["Agent", "run_agent"]

_NICEST = 19
_THREADS = 2  # for files: one writes while one syncs; each thread more would take 0.3 MB


async def run_agent(config: AgentConfig) -> None:
    """Run the agent until SIGTERM or SIGINT.

    Raises :class:`UsageError` when the device is not enrolled, runs already, or a source cannot be made, and
    :class:`StorageError`. A broker that is down is waited for.
    """
    identity = load_identity(config.data)
    sources = make_sources(config)
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ended.set)
    signal.signal(ORDER_SIGNAL, signal.SIG_IGN)  # until the agent is there, which looks by itself
    with only_agent_of(config.data):
        agent = Agent(config, identity)
        loop.add_signal_handler(ORDER_SIGNAL, agent.updater.take_order)
        try:
            await agent.run(sources, ended)
        except ExceptionGroup as group:  # one part failed and took the others along
            raise group.exceptions[0] from group
        finally:
            logging.shutdown()


class Agent:
    """All parts of one device."""

    def __init__(self, config: AgentConfig, identity: Identity) -> None:
        self._config = config
        self._identity = identity
        self._capabilities, self._facts = read_capabilities_apart(), read_facts()
        self._notifier = Notifier(os.environ)
        random = Random()  # noqa: S311  # spreads load; nothing secret depends on it
        self._spool = _open_spool(config)
        self._clerk = Clerk(lambda: _open_spool(config))
        journal = Journal(self._spool)
        self._boot = journal.count_boot()
        self._slots = Slots(config.data / "slots", self._capabilities)
        books = self._clerk.do_now(Books, self._clerk.spool, config.data, time.time)
        self.serving = Serving(_serving_options(config), self._clerk, books)
        self._announced: str | None = None
        listener = Listener(
            desired=self._receive_desired,
            shadow=self._receive_shadow,
            ack=self._receive_ack,
            connected=self._connected,
            status=self._status,
        )
        self._link = Link(self._link_options(), listener, random=random)
        self._renewal = Renewal(config.data, random, reconnect=self._link.reconnect)
        self._outbox = Outbox(
            self._spool, self._clerk, self._link, identity.device, resend_seconds=config.resend_seconds
        )
        carriers = _carriers(config, self._link, random)

        def deliver_to(name: str, reserve_bytes: int) -> Delivery:
            options = DeliveryOptions(incoming=config.data / name, disk_reserve_bytes=reserve_bytes)
            return Delivery(carriers, self._slots, options, self._capabilities, random)

        delivery = deliver_to("incoming", config.disk_reserve_bytes)
        trusting = TrustOptions(directory=config.data / "trust", root=identity.access.root)
        trust = Trust(_metadata_sources(config, self._link), trusting, random)
        trust.tidy()
        parts = Parts(journal, self.serving, self._slots, delivery, trust)
        self.updater = Updater(parts, self._update_changed)
        make = partial(self._make_shadowing, books, trust, partial(deliver_to, "incoming-shadow"))
        self._shadow = LateShadow(make, was_given=self._spool.meta(META) != 0)

    async def run(self, sources: list[Source], ended: asyncio.Event) -> None:
        """Run until ``ended`` is set; then keep the last counts, say goodbye and end the runners."""
        asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(_THREADS))
        log_event("started", device=self._identity.device, version=AGENT_VERSION, boot=self._boot)
        alive = asyncio.create_task(self._notifier.run())  # from now on: a large model takes its time to load
        try:
            await self.updater.start()
            async with asyncio.TaskGroup() as group:
                tasks = [
                    group.create_task(self._link.run()),
                    group.create_task(self._renewal.run()),
                    group.create_task(self._outbox.run()),
                    group.create_task(self.updater.run()),
                    group.create_task(self._shadow.run()),
                    group.create_task(self._close_windows()),
                    group.create_task(self.serving.test_daily(self._config.self_test_seconds)),
                    *(group.create_task(source.run(self.serving)) for source in sources),
                ]
                await ended.wait()
                self._notifier.tell("STOPPING=1")
                self.updater.ends_on_purpose()
                self._shadow.ends_on_purpose()
                await self._link.say_goodbye()
                await end_tasks(tasks)
        finally:
            await self.serving.stop()
            await self._clerk.close()
            self._spool.close()
            await end_tasks([alive])
            log_event("ended")

    async def _close_windows(self) -> None:
        while True:
            await asyncio.sleep(self._config.window_seconds)
            await self.serving.close_window()
            self._outbox.wake()

    def _link_options(self) -> LinkOptions:
        return LinkOptions(
            refresh_seconds=self._config.refresh_seconds,
            device=self._identity.device,
            wallet=Wallet(self._config.data),
            reconnect_window_seconds=self._reconnect_window,
        )

    def _reconnect_window(self) -> float:
        """Return what the fleet said last, or what it said at the enrolment where the disk does not say."""
        with contextlib.suppress(StorageError):
            return self._spool.reconnect_window_seconds or self._identity.access.reconnect_window_seconds
        return self._identity.access.reconnect_window_seconds

    def _update_changed(self) -> None:
        self._outbox.wake()
        self._shadow.update_changed()
        if self.serving.running != self._announced:
            self._announced = self.serving.running
            self._outbox.announce()

    def _make_shadowing(self, books: Books, trust: Trust, deliver: Callable[[int], Delivery]) -> ShadowPart:
        """Put a shadow's parts together, on a device that was given one."""
        from edgeopt_agent.shadow.record import Records
        from edgeopt_agent.shadow.shell import Parts as ShadowParts
        from edgeopt_agent.shadow.shell import Shadowing

        config, current = self._config, self.serving.current
        champion = current.installed.size_bytes if current else 0
        parts = ShadowParts(
            records=Records(self._spool),
            serving=self.serving,
            slots=self._slots,
            delivery=deliver(config.disk_reserve_bytes + champion),  # or the next update would find no room
            trust=trust,
            clerk=self._clerk,
            books=books,
            options=_shadow_options(config),
            one_runner=config.one_runner,
            updating=lambda: self.updater.update.state,
        )
        return Shadowing(parts, self._outbox.wake)

    def _receive_desired(self, payload: bytes) -> None:
        self.updater.receive_desired(payload)
        self._outbox.wake()

    def _receive_shadow(self, payload: bytes) -> None:
        self._shadow.receive(payload)

    def _receive_ack(self, payload: bytes) -> None:
        self._outbox.receive_ack(payload)

    def _connected(self) -> None:
        self._outbox.start_over()

    def _status(self, online: bool) -> bytes:  # noqa: FBT001  # a callback: called by position
        status = Status(
            device=self._identity.device,
            boot=self._boot,
            online=online,
            agent_version=AGENT_VERSION,
            running=self.serving.running,
            capabilities=self._capabilities,
            machine=self._facts,
        )
        return encode(status)


def _open_spool(config: AgentConfig) -> Spool:
    return Spool.open(config.data / "agent.db", now_ms=time.time_ns() // 1_000_000, limit_bytes=config.spool_bytes)


def _serving_options(config: AgentConfig) -> ServingOptions:
    runner = RunnerOptions(
        threads=config.threads,
        nice=config.nice,
        memory_bytes=config.runner_memory_bytes,
        infer_timeout_seconds=config.infer_timeout_seconds,
    )
    limits = HealthLimits(crashes=config.crash_limit, latency_us=config.latency_limit_us)
    served = ServedOptions(runner=runner, limits=limits, queue_limit=config.queue_limit)
    return ServingOptions(served=served, one_runner=config.one_runner)


def _shadow_options(config: AgentConfig) -> ServedOptions:
    """Return how a challenger's runner is treated: everybody else comes first."""
    runner = replace(_serving_options(config).served.runner, nice=min(_NICEST, config.nice + 10), oom_score=900)
    return ServedOptions(runner=runner, limits=HealthLimits(crashes=config.crash_limit), queue_limit=1)


def _carriers(config: AgentConfig, link: Link, random: Random) -> list[Carrier]:
    """Return the ways by which blocks may come, the first one first."""
    budget = Budget(config.download_bytes_per_second)
    patience = config.http_after_seconds if config.delivery == "auto" else None
    options = MqttOptions(block_timeout_seconds=config.block_timeout_seconds, give_up_seconds=patience)
    mqtt = MqttCarrier(link, options, budget, random)
    http = HttpCarrier(lambda: _http_access(config), budget)
    ways: dict[str, list[Carrier]] = {"mqtt": [mqtt], "http": [http], "auto": [mqtt, http]}
    return ways[config.delivery]


def _metadata_sources(config: AgentConfig, link: Link) -> list[MetadataSource]:
    """Return the ways by which metadata may come, the first one first."""
    mqtt, http = MqttMetadata(link), HttpMetadata(lambda: _http_access(config))
    ways: dict[str, list[MetadataSource]] = {"mqtt": [mqtt], "http": [http], "auto": [mqtt, http]}
    return ways[config.delivery]


def _http_access(config: AgentConfig) -> HttpAccess:
    """Return how to download with the identity of this moment: a renewal changes the bearer."""
    identity = load_identity(config.data)
    return HttpAccess(server=identity.server, bearer=identity.access.bearer, ca=identity.access.ca)
