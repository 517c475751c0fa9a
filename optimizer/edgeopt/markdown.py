"""Tables in Markdown, for the papers that are handed over with a bundle.

It writes tables only, and escapes what users name. Pure. Example::

    table(("split", "samples"), [("calibration", 512)])       # three lines, the second of dashes
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

__all__ = ["cell", "table"]


def cell(text: object) -> str:
    """Return ``text`` so that it stays one cell and no markup: bars, backslashes, angles and line ends are escaped."""
    escaped = str(text).replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;")
    return " ".join(escaped.split())


def table(titles: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Return a table without a line end after its last row; ``rows`` have as many entries as ``titles``."""
    first, *others = (f"| {' | '.join(map(cell, line))} |" for line in (titles, *rows))
    return "\n".join([first, "|---" * len(titles) + "|", *others])
