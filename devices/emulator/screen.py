"""What a person sees of an emulated fleet, and the lines that they type: a live table on a terminal, text elsewhere.

It asks nobody and orders nothing. Example::

    with Screen(Console()) as screen:
        screen.show(rows)
        for line in screen.lines(0.2): ...
"""

from __future__ import annotations

import os
import select
import sys
import termios
import tty
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import astuple, dataclass, replace
from types import TracebackType
from typing import Any, Self

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from devices.emulator.orders import HELP

__all__ = ["Row", "Screen"]

_SAID = 6  # how many of the newest messages stay in sight
_BACKSPACE = {"\x7f", "\b"}


@dataclass(frozen=True, slots=True)
class Row:
    """One board: all in words. ``model`` is the digest of what it serves, ``temperature`` is set and reported.

    ``traffic`` changes all the time and is news to nobody.
    """

    board: str
    kind: str
    state: str
    model: str
    temperature: str
    link: str
    traffic: str


class Screen:
    """A table of boards, the newest messages, and a line to type on. Without a terminal each change is printed."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._ending = ExitStack()
        self._live: Live | None = None
        self._rows: Sequence[Row] = ()
        self._said: list[str] = []
        self._typed = ""
        self._input_open = True

    def __enter__(self) -> Self:
        if self._console.is_terminal and sys.stdin.isatty():
            before = termios.tcgetattr(sys.stdin)
            self._ending.callback(termios.tcsetattr, sys.stdin, termios.TCSADRAIN, before)
            tty.setcbreak(sys.stdin)  # letters at once, Ctrl-C as ever
            self._live = Live(self._view(), console=self._console, auto_refresh=False)
            self._ending.enter_context(self._live)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ending.close()

    def say(self, text: str) -> None:
        """Tell something that has happened."""
        if self._live is None:
            self._console.print(text, soft_wrap=True)
        self._said = [*self._said, text][-_SAID:]
        self._refresh()

    def show(self, rows: Sequence[Row]) -> None:
        """Show the boards; without a terminal only what has changed."""
        if self._live is None:
            known = [replace(row, traffic="") for row in self._rows]
            for row in rows:
                if replace(row, traffic="") not in known:
                    self._console.print("  ".join(astuple(row)), soft_wrap=True)
        self._rows = rows
        self._refresh()

    def lines(self, seconds: float) -> list[str]:
        """Wait that long for what is typed; return the lines that are complete."""
        watched: list[Any] = [sys.stdin] if self._input_open else []
        if not select.select(watched, [], [], seconds)[0]:
            return []
        data = os.read(sys.stdin.fileno(), 4096).decode(errors="replace")
        self._input_open = bool(data)
        for letter in data:
            self._typed = self._typed[:-1] if letter in _BACKSPACE else self._typed + letter
        *lines, self._typed = self._typed.split("\n")
        self._refresh()
        return [line for line in lines if line.strip()]

    def _refresh(self) -> None:
        if self._live is not None:
            self._live.update(self._view(), refresh=True)

    def _view(self) -> Group:
        table = Table(title="emulated boards", title_justify="left")
        for column in ("board", "kind", "state", "model", "°C set / reported", "link", "traffic"):
            table.add_column(column)
        for row in self._rows:
            table.add_row(*astuple(row))
        said = [Text(line, style="dim") for line in self._said]
        return Group(table, *said, Text(HELP, style="dim"), Text(f"> {self._typed}"))
