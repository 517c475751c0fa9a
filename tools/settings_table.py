"""Writes the table of settings in docs/guides/deploy.md from the fields of the fleet's configuration.

What a setting means is said by the comment beside it, and nowhere else. Example::

    python -m tools.settings_table
"""

from __future__ import annotations

import dataclasses
import inspect
import re
from pathlib import Path

from edgeopt_fleet.config import ENVIRONMENT, FleetConfig

__all__ = ["PAGE", "page", "table"]

PAGE = Path(__file__).parent.parent / "docs" / "guides" / "deploy.md"

_HEAD = "| setting | variable | default | meaning |"
_FIELD = re.compile(r"^    (\w+): .*?  # (.*)$", re.MULTILINE)
_TABLE = re.compile(rf"^{re.escape(_HEAD)}\n(?:\|.*\n)*", re.MULTILINE)


def table() -> str:
    """Return the table as it is to be. Raises :class:`KeyError` for a setting without a comment."""
    meanings = dict(_FIELD.findall(inspect.getsource(FleetConfig)))
    lines = [_HEAD, "|---|---|---|---|"]
    for field in dataclasses.fields(FleetConfig):
        default = "set by `init`" if field.default is dataclasses.MISSING else f"`{_toml(field.default)}`"
        variable = f"{ENVIRONMENT}{field.name.upper()}"
        lines.append(f"| `{field.name}` | `{variable}` | {default} | {meanings[field.name]} |")
    return "\n".join(lines) + "\n"


def page() -> str:
    """Return the guide with the table as it is to be."""
    text, found = _TABLE.subn(lambda _: table(), PAGE.read_text(encoding="utf-8"))
    assert found == 1, "the guide has one table of settings"
    return text


def _toml(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return f'"{value}"' if isinstance(value, str) else "[]" if value == () else str(value)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
