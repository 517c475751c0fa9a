"""What a person types while emulated boards run, and what it means.

Pure. Example::

read_order("temp pi4 85", boards=("pi4",))                # Temperature(board='pi4', celsius=85.0)
read_order("link pi4 3G loss=0.3", boards=("pi4",))       # Conditioned(board='pi4', conditions=…)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from devices.emulator.conditions import PRESETS, Conditions, changed
from edgeopt_contract.errors import UsageError

__all__ = [
    "HELP",
    "Conditioned",
    "Cut",
    "Order",
    "Outage",
    "Quit",
    "SwitchOn",
    "Temperature",
    "read_conditions",
    "read_order",
]

HELP = "temp BOARD CELSIUS   cut BOARD   on BOARD   link BOARD 3G|loss=0.1 …   outage BOARD SECONDS   quit"
_COLDEST, _HOTTEST = -55.0, 150.0  # what such sensors can say


@dataclass(frozen=True, slots=True)
class Temperature:
    """Let a board be so warm."""

    board: str
    celsius: float


@dataclass(frozen=True, slots=True)
class Cut:
    """Cut a board's power."""

    board: str


@dataclass(frozen=True, slots=True)
class SwitchOn:
    """Give a board its power back."""

    board: str


@dataclass(frozen=True, slots=True)
class Conditioned:
    """Change a board's link."""

    board: str
    conditions: Conditions


@dataclass(frozen=True, slots=True)
class Outage:
    """Take a board's link away for a while."""

    board: str
    seconds: float


@dataclass(frozen=True, slots=True)
class Quit:
    """End everything."""


Order = Temperature | Cut | SwitchOn | Conditioned | Outage | Quit


def read_order(line: str, boards: Sequence[str]) -> Order:
    """Return what ``line`` asks for. Raises :class:`UsageError` that says what was expected."""
    match line.split():
        case ["quit" | "exit"]:
            return Quit()
        case ["temp", board, celsius]:
            return Temperature(_known(board, boards), _number(celsius, _COLDEST, _HOTTEST))
        case ["cut", board]:
            return Cut(_known(board, boards))
        case ["on", board]:
            return SwitchOn(_known(board, boards))
        case ["link", board, *words] if words:
            return Conditioned(_known(board, boards), read_conditions(words))
        case ["outage", board, seconds]:
            return Outage(_known(board, boards), _number(seconds, 0, 86_400))
    raise UsageError(f"expected one of: {HELP}; got {line!r}")


def read_conditions(words: Sequence[str]) -> Conditions:
    """Return the conditions that a preset's name and ``name=value`` words describe; the later word counts.

    Raises :class:`UsageError` for a name that is not known and a value that cannot be.
    """
    conditions = Conditions()
    for word in words:
        name, separator, value = word.partition("=")
        if separator:
            read: Callable[[str], object] = (
                _flag if name == "down" else _integer if name == "queue_bytes" else _any_number
            )
            conditions = changed(conditions, {name: read(value)})
        elif name in PRESETS:
            conditions = PRESETS[name]
        else:
            raise UsageError(f"expected a link out of {', '.join(PRESETS)}, or name=value, got {word!r}")
    return conditions


def _known(board: str, boards: Sequence[str]) -> str:
    if board not in boards:
        raise UsageError(f"expected a board out of {', '.join(boards)}, got {board!r}")
    return board


def _number(text: str, least: float, most: float) -> float:
    number = _any_number(text)
    if not least <= number <= most:
        raise UsageError(f"expected a number from {least:g} to {most:g}, got {text}")
    return number


def _any_number(text: str) -> float:
    try:
        return float(text)
    except ValueError as error:
        raise UsageError(f"expected a number, got {text!r}") from error


def _integer(text: str) -> int:
    return int(_any_number(text))


def _flag(text: str) -> bool:
    if text not in ("true", "false"):
        raise UsageError(f"expected true or false, got {text!r}")
    return text == "true"


_READERS: dict[str, Callable[[str], object]] = {"down": _flag, "queue_bytes": _integer}
