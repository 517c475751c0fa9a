"""One fleet of emulated boards for all tests that need one, and the figures that they leave at the end of the run."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from demo.system import wait_until
from devices.emulator.arm_root import arm_root
from devices.emulator.board import Board, Limits
from devices.emulator.conditions import PRESETS
from devices.emulator.fleet import EmulatedFleet, Report, emulated_fleet
from devices.emulator.image import board_image, no_boards
from devices.emulator.memory_group import no_memory_groups
from devices.emulator.namespaces import missing, privileged_prefix
from edgeopt_contract.errors import UnreachableError, UsageError

_FIGURES = pytest.StashKey[list[str]]()
_OPTIONS = ("--http", "8080", "--window", "1")
_DISK_BYTES = 24 << 20
BOARDS = {"a53": "raspberry-pi-zero-2w", "a72": "raspberry-pi-4", "a76": "raspberry-pi-5"}
SMALL = "a53"  # the one whose memory and disk are limited


@pytest.fixture(scope="session")
def figure(request: pytest.FixtureRequest) -> Callable[[str], None]:
    """Take a figure for the end of the run."""
    return request.config.stash.setdefault(_FIGURES, []).append


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Print the figures."""
    figures = config.stash.get(_FIGURES, [])
    if figures:
        terminalreporter.section("emulated boards (seconds are the emulator's and no board's)")
        for line in figures:
            terminalreporter.line(line)


@dataclass
class Boards:
    """The running fleet, with what the tests do to it. ``since`` is when the boards were switched on."""

    fleet: EmulatedFleet
    digits: Path
    digest: str = ""
    rollouts: int = 0
    since: dict[str, float] = field(default_factory=dict)

    def __getitem__(self, name: str) -> Board:
        return self.fleet.boards[name]

    def switch_on(self, name: str) -> None:
        """Start the agent of a board as all of them are started."""
        self[name].switch_on(*_OPTIONS)
        self.since[name] = time.monotonic()

    def view(self, name: str) -> dict[str, Any]:
        """What the server knows of a board."""
        return next(d for d in self.fleet.system.get("devices")["items"] if d["id"] == name)

    def publish(self, directory: Path) -> str:
        """Publish a bundle and return its digest."""
        return str(json.loads(self.fleet.system.edgeopt("publish", str(directory), "--json"))["digest"])

    def send(self, digest: str, name: str | None = None) -> str:
        """Start a rollout to one board, or to all of them at once; return its name."""
        self.rollouts += 1
        rollout = f"r{self.rollouts}"
        cohort = "all"
        if name is not None:
            cohort = f"only-{name}"
            self.fleet.system.edgeopt("cohorts", "create", cohort, "--tag", f"board={BOARDS[name]}")
        self.fleet.system.edgeopt(
            "rollout", "create", rollout, "--bundle", digest, "--cohort", cohort, "--waves", "100%",
            "--bake", "0.5s", "--minimum-rows", "0", "--json",
        )  # fmt: skip
        return rollout

    def result(self, rollout: str, name: str) -> Report | None:
        """The report with which a board ended its part in a rollout, if it has."""
        ends = (report for report in self.fleet.reports(name) if report.result is not None)
        return next((report for report in ends if report.job == f"{rollout}.1.{name}"), None)

    def infer(self, name: str, inputs: np.ndarray) -> np.ndarray:
        """Ask a board over HTTP, as a program on the board does: float32 in, the first output back."""
        tensor = {"name": "input", "shape": list(inputs.shape), "datatype": "FP32", "data": inputs.ravel().tolist()}
        with self.fleet.links[name].far.entered():
            answer = httpx.post("http://127.0.0.1:8080/v2/models/digits/infer", json={"inputs": [tensor]}, timeout=60)
        assert 200 == answer.status_code, answer.text
        output = answer.json()["outputs"][0]
        assert "FP32" == output["datatype"]
        return np.array(output["data"], dtype=np.float32).reshape(output["shape"])


def _quantize(directory: Path) -> subprocess.Popen[bytes]:
    """Start to build an int8 bundle of the digits for a Raspberry Pi 4."""
    edgeopt = str(Path(sys.executable).parent / "edgeopt")
    return subprocess.Popen(
        [edgeopt, "quantize", "examples.digits:model", "--data", "examples.digits:data", "--max-drop", "2%",
         "--name", "digits", "--version", "1", "--target", "devices/raspberry-pi-4.toml", "--no-tracking",
         "-o", str(directory)],
        cwd=Path(__file__).parents[2], stdout=subprocess.DEVNULL,
    )  # fmt: skip


@pytest.fixture(scope="module")  # this thread is in their network meanwhile, where nothing else of the tests is
def boards(tmp_path_factory: pytest.TempPathFactory, figure: Callable[[str], None]) -> Iterator[Boards]:
    """Start three boards that are online and confirmed on an int8 bundle of edgeopt's, or skip with the reason."""
    reason = missing() or no_boards()
    if reason is None and privileged_prefix():
        reason = f"without root, boards need the whole of pytest under '{' '.join(privileged_prefix())}'"
    if reason is not None:
        pytest.skip(reason)
    try:
        with arm_root(print):
            pass
    except (UsageError, UnreachableError) as error:
        pytest.skip(f"the boards' arm64 system cannot be made here: {error}")
    folder = tmp_path_factory.mktemp("emulated")
    with board_image(print) as image, emulated_fleet(folder, image, "--tick-seconds", "0.2") as fleet:
        yield _started(Boards(fleet, folder / "digits"), figure)


def _started(boards: Boards, figure: Callable[[str], None]) -> Boards:
    with _quantize(boards.digits) as quantizing:
        for name, kind in BOARDS.items():
            limits = _limits() if name == SMALL else Limits()
            boards.fleet.add(name, kind, PRESETS["3G" if name == "a72" else "perfect"], limits)
        boards.fleet.enrol(list(BOARDS))
        for name in BOARDS:
            boards.switch_on(name)
        online = _times(boards, "online", lambda name: boards.view(name)["online"])
        assert 0 == quantizing.wait()
    boards.digest = boards.publish(boards.digits)
    rollout = boards.send(boards.digest)
    start = time.monotonic()
    boards.since = dict.fromkeys(BOARDS, start)
    confirmed = _times(boards, "confirmed", lambda name: boards.result(rollout, name) is not None)
    for name in BOARDS:
        profile, detail = boards[name].profile, boards.fleet.links[name].count()[1]
        figure(
            f"{name:>5}: {profile.facts.model}, -cpu {profile.cpu}: online after {online[name]:.1f} s, confirmed after "
            f"{confirmed[name]:.1f} s, {detail.bytes} bytes down{', behind 3G' if name == 'a72' else ''}"
        )
    return boards


def _limits() -> Limits:
    """A Zero 2 W's memory, and a disk with little more than the agent keeps free, where this user may set limits."""
    if no_memory_groups() is not None:
        return Limits()
    return Limits(memory_bytes=426_892 << 10, disk_bytes=_DISK_BYTES)


def _times(boards: Boards, what: str, reached: Callable[[str], bool]) -> dict[str, float]:
    """Wait until all boards have reached something; return the seconds that each took."""
    times: dict[str, float] = {}

    def probe() -> bool:
        for name in BOARDS.keys() - times.keys():
            assert boards[name].on, boards[name].log.read_text()[-3000:]
            if reached(name):
                times[name] = time.monotonic() - boards.since[name]
        return len(times) == len(BOARDS)

    wait_until(f"all boards {what}", probe, 240)
    return times
