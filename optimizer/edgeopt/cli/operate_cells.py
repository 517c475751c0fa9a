"""What tables of the fleet are made of: text that cannot paint the terminal, times, sizes, numbers, and the table.

Every table of names as people give them fits into 100 columns: what is long and may be broken is (tags, details), what
people copy is not (names, digests). No input, no output, no clock. Example::

    table(("device", "tags"), [("cam-7", tags({"site": "oslo"}))])
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from rich.console import Console, ConsoleOptions, Group, RenderResult
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

__all__ = [
    "Fitted",
    "age",
    "coloured",
    "count",
    "detail",
    "entry",
    "facts",
    "moment",
    "plain",
    "short",
    "size",
    "table",
    "tags",
]

_YEAR_3000 = 32_503_680_000
_SHORT = 12
_SHORTEST_FREE = 12
_DIGEST = re.compile(r"[0-9a-f]{64}")
_NUMBERS = {
    "rows",
    "errors",
    "served",
    "devices",
    "executed",
    "confirmed",
    "failed",
    "PSI",
    "number",
    "size",
    "to fetch",
}
_FREE = {
    "tags",
    "detail",
    "what happened",
    "keys",
    "and",
    "hardware",
    "for",
    "certified for",
}  # may be broken between words
_COLOURS = {
    "ok": "green",
    "succeeded": "green",
    "confirmed": "green",
    "passed": "green",
    "promote": "green",
    "running": "cyan",
    "paused": "yellow",
    "observing": "cyan",
    "hold": "yellow",
    "offline": "yellow",
    "failed": "red",
    "failing": "red",
    "revoked": "red",
    "rejected": "red",
    "rolled_back": "red",
    "rolling_back": "red",
    "roll_back": "red",
    "cancelled": "red",
    "open": "red",
}


def plain(text: object) -> Text:
    """Return ``text`` as it is to be shown: no markup, no control characters."""
    return Text("".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in str(text)))


def coloured(state: str) -> Text:
    """Return a state in its colour."""
    shown = plain(state)
    shown.stylize(_COLOURS.get(state, ""))
    return shown


def short(digest: str | None) -> Text:
    """Return as much of a digest as commands need."""
    return plain(digest[:_SHORT] if digest else "-")


def moment(seconds: float | None, *, exact: bool = False) -> Text:
    """Return a time since 1970 in UTC, to the minute or ``exact`` to the second."""
    if seconds is None:
        return Text("-")
    if not 0 <= seconds < _YEAR_3000:
        return Text(f"{seconds:g} s")  # a device's clock may say anything
    return Text(datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%SZ" if exact else "%Y-%m-%d %H:%MZ"))


def age(seconds: float | None, now: float) -> str:
    """Return how long ago that was, in the greatest unit that fits."""
    if seconds is None:
        return "never"
    passed = max(0.0, now - seconds)
    for length, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if passed >= length:
            return f"{passed // length:.0f} {unit}"
    return f"{passed:.0f} s"


def count(number: float) -> str:
    """Return a number of things; beyond a hundred thousand as 1.2M."""
    for factor, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= 100_000 and number >= factor:
            return f"{number / factor:.3g}{unit}" if number < 999.5 * factor else f"{number / factor:.0f}{unit}"
    return f"{number:g}"


def size(length: float) -> str:
    """Return bytes as people read them."""
    for factor, unit in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if length >= factor:
            return f"{length / factor:.1f} {unit}"
    return f"{length:.0f} B"


def tags(found: Mapping[str, object]) -> Text:
    """Return ``key=value`` words by key."""
    return plain(" ".join(f"{key}={value}" for key, value in sorted(found.items())) or "-")


def detail(found: Mapping[str, Any], prefix: str = "") -> str:
    """Return what an answer holds as words: digests shortened, what is empty left out, waves counted from 1."""
    words = []
    for key, value in found.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping):
            words.append(detail(value, f"{name}."))
        elif isinstance(value, list | tuple):
            words.append(f"{name}={','.join(_word(key, one) for one in value)}" if value else "")
        elif value not in (None, ""):
            words.append(f"{name}={_word(key, value)}")
    return " ".join(word for word in words if word)


def _word(key: str, value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if key == "wave" and isinstance(value, int):
        return str(value + 1)
    if key.endswith("_at") and isinstance(value, int | float):
        return moment(value).plain
    return _DIGEST.sub(lambda match: match[0][:_SHORT], str(value))


def table(columns: Sequence[str], rows: Iterable[Sequence[Text | str]]) -> Fitted:
    """Return a table, one line a row where it fits; the first column is what people copy."""
    return Fitted(columns, [[cell if isinstance(cell, Text) else plain(cell) for cell in row] for row in rows])


class Fitted:
    """A table that loses nothing: where the width is not enough, free columns are broken, then the first one."""

    def __init__(self, columns: Sequence[str], rows: Sequence[Sequence[Text]]) -> None:
        self._columns = columns
        self._rows = rows

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Give the table for the width that there is."""
        made = Table(box=None, pad_edge=False, collapse_padding=True, header_style="bold")
        for column, width in zip(self._columns, self._widths(options.max_width), strict=True):
            made.add_column(column, overflow="fold", width=width, justify="right" if column in _NUMBERS else "left")
        for row in self._rows:
            made.add_row(*row)
        yield made

    def _widths(self, room: int) -> list[int]:
        widths = [
            max(len(column), *(row[index].cell_len for row in self._rows)) if self._rows else len(column)
            for index, column in enumerate(self._columns)
        ]
        over = sum(widths) + len(widths) - 1 - room
        free = [index for index, column in enumerate(self._columns) if column in _FREE]
        for index in [*sorted(free, key=lambda index: -widths[index]), 0]:
            least = min(widths[index], _SHORTEST_FREE)
            cut = max(0, min(over, widths[index] - least))
            widths[index] -= cut
            over -= cut
        return widths


def entry(head: Sequence[str], widths: Sequence[int], below: str, room: int) -> Group:
    """Return an entry of a log: words in columns of these widths, and what else there is to say indented below.

    The last word of ``head`` has ``room``; one that is longer stands below, too.
    """
    *words, last = head
    line = " ".join([*(word.ljust(width) for word, width in zip(words, widths, strict=True))])
    if len(last) > room:
        below = f"{last} {below}"
    else:
        line += f" {last}"
    return Group(plain(line.rstrip()), *([Padding(plain(below), (0, 0, 0, widths[0] + 1))] if below else []))


def facts(found: Iterable[tuple[str, Text]]) -> Table:
    """Return a page about one thing, a line a fact."""
    page = Table(box=None, pad_edge=False, show_header=False)
    page.add_column(style="bold", no_wrap=True)
    page.add_column(overflow="fold")
    for name, fact in found:
        page.add_row(name, fact)
    return page
