"""One emulated board: it is switched on and off, has its power cut, gets hot, and runs the agent meanwhile.

A board's processes are QEMU's user mode in namespaces of their own, which ``power_on.sh`` furnishes; its disk and what
its kernel says are a folder here. Kernel, devices and speed are not the board's: no time that is seen here says
anything of a real one. Example::

    board = Board(read_board(BOARDS / "raspberry-pi-4.toml"), Path("pi4"), image, far=line.far)
    board.agent("enroll", "--server", url, "--token", token, "--device", "pi4", "--data", DATA)
    board.switch_on("--http", "8080")
    board.set_temperature(85)
    board.cut_power()
"""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from demo.system import Program
from devices.emulator.board_files import sensor_files, still_files
from devices.emulator.board_profile import BoardProfile
from devices.emulator.image import NAMESPACES, Image
from devices.emulator.link import End
from devices.emulator.memory_group import MemoryGroup
from edgeopt.emulation.building import PYTHON
from edgeopt_contract.errors import UsageError, WorldError

__all__ = ["DATA", "Board", "Limits"]

DATA = "/var/lib/edgeopt"  # on the board
_POWER_ON = Path(__file__).with_name("power_on.sh")
_AGENT = ("-c", "from edgeopt_agent.cli import main; main()")
_QEMU_BYTES = 105 << 20  # QEMU's own memory beside a Python with ONNX Runtime (code cache and translated pages)
_MOUNT_DISK = 'mount -o loop "$0" "$1" && shift && exec "$@"'


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How much memory (QEMU's own comes on top) and disk a board has; ``None`` is what this machine has.

    A limited disk is a file with an ext4 of that size; it and limited memory need root.
    """

    memory_bytes: int | None = None
    disk_bytes: int | None = None


class Board:
    """A board with the name of ``directory``, which keeps its disk, log and sensors. Off when it is made."""

    def __init__(
        self,
        profile: BoardProfile,
        directory: Path,
        image: Image,
        *,
        far: End | None = None,
        limits: Limits = Limits(),
    ) -> None:
        self.profile = profile
        self.name = directory.name
        self.far = far
        self.celsius = profile.facts.temperature_celsius
        self.memory: MemoryGroup | None = None
        self._directory = directory.absolute()
        self._image = image
        self._limits = limits
        self._program: Program | None = None
        for folder in ("place", "data"):
            (self._directory / folder).mkdir(parents=True, exist_ok=True)
        self._write(still_files(profile, self.name))
        self.set_temperature(self.celsius)
        self._make_disk()

    @property
    def log(self) -> Path:
        """What the agent printed, of all times that the board was on."""
        return self._directory / "agent.log"

    @property
    def on(self) -> bool:
        """Whether the agent runs."""
        process = None if self._program is None else self._program.process
        return process is not None and process.poll() is None

    def agent(self, *arguments: str) -> str:
        """Run a command of ``edgeopt-agent`` on the board to its end; return what it printed.

        Raises :class:`WorldError` with what it said when it fails.
        """
        done = subprocess.run(self._command(arguments), capture_output=True, text=True, check=False)
        if done.returncode != 0:
            said = f"{done.stdout}{done.stderr}"[-2000:]
            raise WorldError(f"{self.name}: edgeopt-agent {arguments[0]} ended with code {done.returncode}: {said}")
        return done.stdout

    def switch_on(self, *options: str) -> None:
        """Start the agent; ``options`` go to ``edgeopt-agent run``. Raises :class:`UsageError` when it is on."""
        if self.on:
            raise UsageError(f"{self.name} is on already")
        if self._limits.memory_bytes is not None and self.memory is None:
            self.memory = MemoryGroup.create(self.name, limit_bytes=self._limits.memory_bytes + _QEMU_BYTES)
        command = self._command(("run", "--data", DATA, *options), self.memory)
        self._program = Program(command, self.log, {})
        self._program.start()

    def switch_off(self) -> None:
        """Ask the agent to end, as ``systemctl stop`` does, and wait for it."""
        if self.on:
            assert self._program is not None
            for pid in _children(self._program.pid):
                os.kill(pid, signal.SIGTERM)
            try:
                assert self._program.process is not None
                self._program.process.wait(30)
            except subprocess.TimeoutExpired:
                self._program.kill()

    def cut_power(self) -> None:
        """SIGKILL everything that runs on the board; its disk keeps what was written."""
        if self.on:
            assert self._program is not None
            self._program.kill()

    def close(self) -> None:
        """Cut the power and leave nothing of the board outside its folder."""
        self.cut_power()
        if self.memory is not None:
            self.memory.remove()
            self.memory = None

    def set_temperature(self, celsius: float) -> None:
        """Let the board be that warm, and throttle where it does so."""
        self.celsius = celsius
        self._write(sensor_files(self.profile, celsius))

    def _write(self, files: dict[str, str]) -> None:
        """Put files in place, each as a whole: the board may be reading them."""
        for name, text in files.items():
            path = self._directory / name
            path.parent.mkdir(parents=True, exist_ok=True)
            new = path.with_name(f".{path.name}")
            new.write_text(text)
            new.replace(path)

    def _make_disk(self) -> None:
        size, disk = self._limits.disk_bytes, self._directory / "disk"
        if size is None or disk.exists():
            return
        with disk.open("wb") as file:
            file.truncate(size)
        subprocess.run(("mkfs.ext4", "-q", "-F", "-m", "0", str(disk)), check=True)

    def _command(self, arguments: Sequence[str], memory: MemoryGroup | None = None) -> list[str]:
        """Return the command line, outermost first: memory, network, disk, namespaces, the board's first program."""
        image = self._image
        command = [
            *("env", "-i", *(f"{name}={value}" for name, value in self._environment().items())),
            *(*NAMESPACES, str(_POWER_ON), str(image.root), str(self._directory), str(image.program), str(image.qemu)),
            *(f"/usr/bin/python{PYTHON}", *_AGENT, *arguments),
        ]
        if self._limits.disk_bytes is not None:
            disk, data = str(self._directory / "disk"), str(self._directory / "data")
            command = ["unshare", "--mount", "sh", "-c", _MOUNT_DISK, disk, data, *command]
        if self.far is not None:
            command = self.far.command(*command)
        return command if memory is None else memory.command(*command)

    def _environment(self) -> dict[str, str]:
        """Return all of it: nothing of this machine's shall be seen on the board."""
        return {
            "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
            "HOME": DATA,
            "LANG": "C.UTF-8",
            "PYTHONPATH": "/opt/edgeopt",
            "PYTHONUNBUFFERED": "1",
            "QEMU_CPU": self.profile.cpu,
            "QEMU_UNAME": self.profile.facts.kernel,
        }


def _children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
