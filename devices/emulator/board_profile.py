"""A board: the kind of device of ``devices/NAME.toml``, and what Linux says of it besides, from ``devices/boards/``.

Nothing is said twice: CPU, cores and features are the kind's. It reads the two files and starts nothing. Example::

    board = read_board(Path("devices/boards/raspberry-pi-4.toml"))
    board.target.emulator.cpu, board.model         # ('cortex-a72', 'Raspberry Pi 4 Model B Rev 1.4')
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path

import msgspec

from edgeopt.targets import Target, read_target
from edgeopt_contract.errors import UsageError

__all__ = ["BOARDS", "BoardFacts", "BoardProfile", "board_names", "read_board"]

BOARDS = Path(__file__).resolve().parents[1] / "boards"


class BoardFacts(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What ``devices/boards/NAME.toml`` holds.

    ``kernel`` is what ``uname -r`` says, ``system`` what ``/etc/os-release`` calls itself, ``memory_total_kib`` the
    ``MemTotal`` of ``/proc/meminfo``. ``megahertz`` are the slowest and the fastest clock; from ``throttles_celsius``
    on the board takes the slowest. ``get_throttled`` is the file in which Raspberry Pi's firmware says so, if it does.
    """

    model: str
    kernel: str
    system: str
    memory_total_kib: int
    temperature_celsius: float
    throttles_celsius: float
    megahertz: tuple[int, int]
    get_throttled: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class BoardProfile:
    """All that is known of a board."""

    name: str
    target: Target
    facts: BoardFacts

    @property
    def cpu(self) -> str:
        """What QEMU calls its CPU."""
        assert self.target.emulator is not None  # read_board has seen to it
        return self.target.emulator.cpu


def board_names() -> tuple[str, ...]:
    """Return the names of the boards that there are."""
    return tuple(sorted(path.stem for path in BOARDS.glob("*.toml")))


def read_board(path: Path) -> BoardProfile:
    """Read a board and its kind, which lies one folder up. Raises :class:`UsageError` for what cannot be used."""
    target = read_target(path.parents[1] / path.name)
    if target.emulator is None or target.arch != "aarch64":
        raise UsageError(f"{path}: boards are emulated as aarch64, but {target.name} is {target.arch}")
    try:
        facts = msgspec.convert(tomllib.loads(path.read_text("utf-8")), BoardFacts)
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError, msgspec.ValidationError) as error:
        raise UsageError(f"cannot read the board {path}: {error}") from error
    return BoardProfile(name=path.stem, target=target, facts=facts)
