"""The part of the server that stores reports, moves rollouts on and publishes, in a process that dies by SIGKILL.

It dies just before one of its steps: a statement, a commit, or a publication; between two of them nothing can be told
apart from outside. The broker is the other end of a socket. Each life is forked from a nursery that has imported
everything and has no threads. Example::

    with Nursery(address) as nursery, nursery.life(at=37) as life:
        for topic, payload in life.hear(): …
"""

from __future__ import annotations

import asyncio
import contextlib
import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from multiprocessing.connection import Client, Connection, Listener
from pathlib import Path
from typing import Any, Self

from sqlalchemy import Engine, event

from edgeopt_contract.codec import encode
from edgeopt_fleet.decoding import Incoming
from edgeopt_fleet.serial import Serial
from edgeopt_fleet.store.announcements import Announcements
from edgeopt_fleet.store.database import Address, Database
from edgeopt_fleet.store.inbox import Inbox
from edgeopt_fleet.store.outbox import Outbox
from edgeopt_fleet.store.rollouts import Rollouts
from edgeopt_fleet.worker import Worker

_PROCESSES = multiprocessing.get_context("forkserver")
_LIFE_SECONDS = 60.0


class _Steps:
    """Counts steps down and kills this process before the last."""

    def __init__(self, at: int | None) -> None:
        self._left = at

    def __call__(self, *_arguments: Any) -> None:
        if self._left is None:
            return
        if self._left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        self._left -= 1


async def _live(address: Address, broker: Connection, at: int | None) -> None:
    """Be the server until the broker hangs up: publish everything once, then store, tick and publish what is new."""
    database = Database.open(address)
    step = _Steps(at)
    event.listen(Engine, "before_cursor_execute", lambda *arguments: step())
    event.listen(Engine, "commit", step)
    serial = Serial()
    inbox, outbox, announcements = Inbox(database), Outbox(database, None, None), Announcements(database)  # type: ignore[arg-type]  # no blocks here

    async def woken(_devices: object) -> None:
        return None

    worker = Worker(Rollouts(database), serial, woken)

    def publish(devices: object) -> int:
        wanted = outbox.desired(devices)  # type: ignore[arg-type]  # None, or names
        for device, desired in wanted.items():
            step()
            broker.send(("desired", device, b"" if desired is None else encode(desired)))
        return len(wanted)

    try:
        publish(None)
        while True:
            batch: list[Incoming] = []
            while broker.poll(0):
                batch.append(broker.recv())
            if batch:
                acks = inbox.store(batch, time.time())
                step()
                broker.send(("acks", {device: list(several) for device, several in acks.items()}, b""))
            await worker.tick()
            waiting = announcements.waiting()
            if waiting:
                publish(waiting)
                step()
                announcements.done(waiting)
            if not batch and not waiting:
                broker.send(("idle", "", b""))
                broker.poll(_LIFE_SECONDS)
    except (EOFError, ConnectionError):
        pass
    finally:
        serial.close()
        database.close()


def _nursery(orders: Connection, address: Address, path: str) -> None:
    """Fork a life for each order (the step before which it dies, or None) and say how the one before ended."""
    with contextlib.suppress(EOFError):
        while True:
            at = orders.recv()
            child = os.fork()
            if child == 0:
                code = 1
                try:
                    with Client(path) as broker:
                        asyncio.run(_live(address, broker, at))
                    code = 0
                finally:
                    os._exit(code)
            _, status = os.waitpid(child, 0)
            orders.send(os.waitstatus_to_exitcode(status))


@dataclass
class Life:
    """One life of the server, seen from the broker."""

    broker: Connection

    def hear(self) -> Iterator[tuple[str, Any, bytes]]:
        """Yield what the server says until it is gone."""
        with contextlib.suppress(EOFError, ConnectionError):
            while self.broker.poll(_LIFE_SECONDS):
                yield self.broker.recv()
            raise AssertionError("the server neither said anything nor died")

    def say(self, message: Incoming) -> None:
        """Send something; what a dead server would have heard is lost, as with a broker that keeps nothing."""
        with contextlib.suppress(ConnectionError):
            self.broker.send(message)


class Nursery:
    """Where lives come from."""

    def __init__(self, address: Address, directory: Path) -> None:
        self._path = str(directory / "broker.sock")
        self._listener = Listener(self._path)
        self._orders, theirs = _PROCESSES.Pipe()
        self._process = _PROCESSES.Process(target=_nursery, args=(theirs, address, self._path))
        self._process.start()
        theirs.close()
        self.kills = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self._orders.close()
        self._process.join(20)
        self._process.close()
        self._listener.close()

    def live(self, at: int | None, talk: Callable[[Life], None]) -> bool:
        """Let ``talk`` deal with one life; say whether that was killed."""
        self._orders.send(at)
        with self._listener.accept() as broker:
            talk(Life(broker))
        code = self._orders.recv()
        assert code in (0, -signal.SIGKILL), f"the server failed without being killed: exit code {code}"
        self.kills += code != 0
        return bool(code != 0)
