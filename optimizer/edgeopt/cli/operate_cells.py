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

from rich.console import Group
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

__all__ = ["age", "coloured", "count", "detail", "entry", "facts", "moment", "plain", "short", "size", "table", "tags"]

_YEAR_3000 = 32_503_680_000
_SHORT = 12
_LONGEST_WHOLE = 48  # longer names are broken
_SHORTEST_FREE = 12
_DIGEST = re.compile(r"[0-9a-f]{64}")
_NUMBERS = {"rows", "errors", "served", "devices", "executed", "confirmed", "failed", "PSI", "number", "size", "on"}
_FREE = {"tags", "detail", "what happened", "keys", "and", "hardware"}  # may be broken between words
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


def table(columns: Sequence[str], rows: Iterable[Sequence[Text | str]]) -> Table:
    """Return a table, one line a row where it fits; the first column is what people copy."""
    cells = [[cell if isinstance(cell, Text) else plain(cell) for cell in row] for row in rows]
    made = Table(box=None, pad_edge=False, collapse_padding=True, header_style="bold")
    for index, column in enumerate(columns):
        widest = max((row[index].cell_len for row in cells), default=0)
        made.add_column(
            column,
            overflow="fold",
            no_wrap=column not in _FREE and widest <= _LONGEST_WHOLE,
            min_width=min(widest, _SHORTEST_FREE) if column in _FREE else None,
            justify="right" if column in _NUMBERS else "left",
        )
    for row in cells:
        made.add_row(*row)
    return made


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
