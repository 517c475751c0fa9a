"""A small emulated fleet by hand: it starts, takes a model, and does what is typed, until the time is over or 'quit'.

The model is the digits example in int8, built while the boards start, unless a bundle is given. Example::

    emulate(Plan(boards=("raspberry-pi-4",), conditions=PRESETS["3G"]), Console())
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import httpx
from rich.console import Console

from demo.system import System
from devices.emulator.arm_root import CHECKOUT
from devices.emulator.conditions import PRESETS, Conditions
from devices.emulator.fleet import EmulatedFleet, emulated_fleet
from devices.emulator.image import board_image
from devices.emulator.orders import Conditioned, Cut, Order, Outage, Quit, SwitchOn, Temperature, read_order
from devices.emulator.screen import Row, Screen
from edgeopt_contract.errors import UsageError, WorldError

__all__ = ["Plan", "emulate"]

_TARGET = CHECKOUT / "devices" / "raspberry-pi-4.toml"
_LOOK_SECONDS = 1.0
_AGENT_OPTIONS = ("--http", "8080", "--window", "2")


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What to start. ``boards`` are kinds; each is called after its kind. ``seconds`` of ``None`` is until 'quit'."""

    directory: Path
    boards: tuple[str, ...]
    conditions: Conditions
    bundle: Path | None = None
    seconds: float | None = None


def emulate(plan: Plan, console: Console) -> None:
    """Run the fleet. Raises :class:`UsageError` with the reason where boards cannot be emulated."""
    say = console.print
    with board_image(say) as image, emulated_fleet(plan.directory, image) as fleet, _bundle(plan) as bundle:
        say(f"fleet server, broker and boards write to {plan.directory}; boards serve on port 8080 of their loopback")
        say(f"operator's commands: {_operator_line(fleet)}", soft_wrap=True)
        for kind in plan.boards:
            fleet.add(kind, kind, plan.conditions)
        say(f"enrolling {', '.join(plan.boards)}")
        fleet.enrol(plan.boards)
        for board in fleet.boards.values():
            board.switch_on(*_AGENT_OPTIONS)
        with Screen(console) as screen:
            _Course(fleet, screen, bundle).run(plan.seconds)


def _operator_line(fleet: EmulatedFleet) -> str:
    """Return how another terminal speaks to the server, which is in a network of its own."""
    file, edgeopt = fleet.system.operator_file, Path(sys.executable).parent / "edgeopt"
    return " ".join(fleet.network.near.command("env", f"EDGEOPT_FLEET={file}", str(edgeopt), "devices"))


@contextlib.contextmanager
def _bundle(plan: Plan) -> Iterator[_Bundle]:
    """Give the bundle to roll out, which may still be under way."""
    if plan.bundle is not None:
        yield _Bundle(plan.bundle, None)
        return
    place = plan.directory / "digits"
    command = (
        *(str(Path(sys.executable).parent / "edgeopt"), "quantize", "examples.digits:model"),
        *("--data", "examples.digits:data", "--max-drop", "2%", "--name", "digits", "--target", str(_TARGET)),
        *("--no-tracking", "-o", str(place)),
    )
    with (
        (plan.directory / "quantize.log").open("wb") as log,
        subprocess.Popen(command, cwd=CHECKOUT, stdout=log, stderr=log) as process,
    ):
        try:
            yield _Bundle(place, process)
        finally:
            process.kill()


@dataclass(frozen=True, slots=True)
class _Bundle:
    """Where a bundle is or will be."""

    directory: Path
    process: subprocess.Popen[bytes] | None

    def ready(self) -> bool:
        """Whether it is complete. Raises :class:`WorldError` when it could not be built."""
        code = 0 if self.process is None else self.process.poll()
        if code:
            raise WorldError(f"the digits could not be quantized: see {self.directory.with_name('quantize.log')}")
        return code == 0


class _Course:
    """What happens from the boards' start on."""

    def __init__(self, fleet: EmulatedFleet, screen: Screen, bundle: _Bundle) -> None:
        self._fleet = fleet
        self._screen = screen
        self._bundle = bundle
        self._rolled_out = False

    def run(self, seconds: float | None) -> None:
        """Look, show and obey until ``seconds`` are over or somebody types 'quit'."""
        start = time.monotonic()
        while seconds is None or time.monotonic() - start < seconds:
            devices = self._devices()
            self._screen.show([self._row(name, devices.get(name)) for name in self._fleet.boards])
            if not self._rolled_out and devices and all(d["online"] for d in devices.values()) and self._bundle.ready():
                self._roll_out()
            for line in self._screen.lines(_LOOK_SECONDS):
                try:
                    order = read_order(line, tuple(self._fleet.boards))
                    if isinstance(order, Quit):
                        return
                    self._screen.say(self._obey(order))
                except UsageError as error:
                    self._screen.say(str(error))

    def _devices(self) -> dict[str, Any]:
        with contextlib.suppress(httpx.TransportError):
            return {device["id"]: device for device in self._fleet.system.get("devices")["items"]}
        return {}

    def _roll_out(self) -> None:
        system: System = self._fleet.system
        digest = json.loads(system.edgeopt("publish", str(self._bundle.directory), "--json"))["digest"]
        system.edgeopt(
            "rollout", "create", "first", "--bundle", digest, "--cohort", "all", "--waves", "100%",
            "--bake", "1s", "--minimum-rows", "0", "--json",
        )  # fmt: skip
        self._rolled_out = True
        self._screen.say(f"rolling {digest[:12]} out to all boards")

    def _obey(self, order: Order) -> str:
        """Do what was typed; return what it was, in words."""
        fleet = self._fleet
        match order:
            case Temperature(name, celsius):
                fleet.boards[name].set_temperature(celsius)
                return f"{name} is at {celsius:g} °C"
            case Cut(name):
                fleet.boards[name].cut_power()
                return f"{name} has lost its power"
            case SwitchOn(name):
                fleet.boards[name].switch_on(*_AGENT_OPTIONS)
                return f"{name} starts"
            case Conditioned(name, conditions):
                fleet.links[name].change(**asdict(conditions))
                return f"{name} is behind {_link_in_words(conditions)}"
            case Outage(name, seconds):
                fleet.links[name].outage(seconds)
                return f"{name} is cut off for {seconds:g} s"
        raise AssertionError(f"an order that nobody knows: {order}")

    def _row(self, name: str, device: dict[str, Any] | None) -> Row:
        board, link = self._fleet.boards[name], self._fleet.links[name]
        reported = self._fleet.gauges(name).get("temperature_celsius")
        up, down = link.count()
        return Row(
            board=name,
            kind=f"{board.profile.facts.model} (-cpu {board.profile.cpu})",
            state=_state_in_words(board.on, device),
            model=((device or {}).get("running") or "none")[:12],
            temperature=f"{board.celsius:g} / {'nothing' if reported is None else f'{reported:g}'}",
            link=_link_in_words(link.change()),
            traffic=f"{down.bytes >> 10} KiB down, {up.bytes >> 10} up",
        )


def _state_in_words(on: bool, device: dict[str, Any] | None) -> str:  # noqa: FBT001  (private, one caller)
    if not on:
        return "no power"
    if device is None:
        return "unknown to the fleet"
    update = device["update"] or {}
    return f"{'online' if device['online'] else 'offline'}, {update.get('state') or 'no update'}"


def _link_in_words(conditions: Conditions) -> str:
    names = [name for name, preset in PRESETS.items() if preset == conditions]
    if names:
        return names[0]
    if conditions.down:
        return "down"
    rate = f", {conditions.rate_bits / 1000:g} kbit/s" if conditions.rate_bits else ""
    return f"{conditions.delay_ms:g}±{conditions.jitter_ms:g} ms, {conditions.loss:.1%} lost{rate}"
