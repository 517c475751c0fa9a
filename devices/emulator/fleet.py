"""A fleet server, its broker, and emulated boards behind links of their own, for tests and for trying things by hand.

Server and broker run at the near end of an emulated network, each board at its far end. All of it ends with the block.
Example::

    with board_image(print) as image, emulated_fleet(Path("run"), image) as fleet:
        fleet.add("pi4", "raspberry-pi-4", PRESETS["3G"])
        fleet.enrol(["pi4"])
        fleet.boards["pi4"].switch_on("--http", "8080")
        fleet.system.get("devices")
"""

from __future__ import annotations

import contextlib
import json
import sqlite3
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from demo.system import System
from devices.emulator.board import DATA, Board, Limits
from devices.emulator.board_profile import BOARDS, read_board
from devices.emulator.conditions import Conditions
from devices.emulator.image import Image
from devices.emulator.link import Link, Network, network

__all__ = ["EmulatedFleet", "Report", "emulated_fleet"]


@dataclass(frozen=True, slots=True)
class Report:
    """One report of an update; ``result`` of ``None``: it goes on."""

    job: str
    state: str
    result: str | None
    detail: str


@dataclass
class EmulatedFleet:
    """What runs. Use :func:`emulated_fleet`."""

    system: System
    network: Network
    image: Image
    boards: dict[str, Board] = field(default_factory=dict)
    links: dict[str, Link] = field(default_factory=dict)

    def add(
        self,
        name: str,
        kind: str,
        conditions: Conditions = Conditions(),  # noqa: B008  (frozen)
        limits: Limits = Limits(),  # noqa: B008  (frozen)
    ) -> Board:
        """Put a board of ``kind`` (a file of ``devices/boards``) behind a new link; it is off and not enrolled."""
        link = self.network.attach(name, conditions)
        profile = read_board(BOARDS / f"{kind}.toml")
        board = Board(profile, self.system.home_of(name), self.image, far=link.far, limits=limits)
        self.boards[name], self.links[name] = board, link
        return board

    def enrol(self, names: Sequence[str]) -> None:
        """Enrol boards, on the boards, with one token that is good for all of them; each is tagged with its kind."""
        token = json.loads(self.system.edgeopt("token", "create", "--uses", str(len(names)), "--json"))["token"]
        url = json.loads(self.system.operator_file.read_text())["url"]

        def enrol(name: str) -> None:
            board = self.boards[name]
            tag = f"board={board.profile.name}"
            board.agent("enroll", "--server", url, "--token", token, "--device", name, "--tag", tag, "--data", DATA)

        with ThreadPoolExecutor() as pool:
            list(pool.map(enrol, names))

    def gauges(self, name: str) -> dict[str, float]:
        """Return what a board's newest telemetry window says of the board itself; empty before the first."""
        rows = self._stored("SELECT infrastructure FROM window WHERE device = ? ORDER BY id DESC LIMIT 1", name)
        return dict(json.loads(rows[0][0])) if rows else {}

    def reports(self, name: str) -> list[Report]:
        """Return all that a board has reported of its updates, in the order in which it came."""
        rows = self._stored("SELECT job, state, result, detail FROM report WHERE device = ? ORDER BY id", name)
        return [Report(*row) for row in rows]

    def _stored(self, query: str, *values: str) -> list[tuple[Any, ...]]:
        """Ask the server's database, for what its API does not tell."""
        database = f"file:{self.system.directory / 'fleet' / 'fleet.db'}?mode=ro"
        with closing(sqlite3.connect(database, uri=True)) as connection:
            return connection.execute(query, values).fetchall()


@contextmanager
def emulated_fleet(directory: Path, image: Image, *options: str, seed: int = 0) -> Iterator[EmulatedFleet]:
    """Start a network and a fleet server without boards. The calling thread is at the near end meanwhile.

    ``options`` go to ``edgeopt-fleet init``; ``seed`` is that of the links' losses. Raises :class:`UsageError` where
    networks cannot be emulated, with the reason.
    """
    with network(seed=seed) as net, net.near.entered(), System(directory) as system, contextlib.ExitStack() as ending:
        system.start_fleet("--host", net.near.address, *options)
        fleet = EmulatedFleet(system, net, image)
        ending.callback(_close_all, fleet.boards)
        yield fleet


def _close_all(boards: dict[str, Board]) -> None:
    for board in boards.values():
        board.close()
