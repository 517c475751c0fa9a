"""docs/complaints.md names tests that there are, and every test of this folder."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

pytestmark = pytest.mark.complaints

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "complaints.md").read_text(encoding="utf-8")
NAMED = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", PAGE)


def names_of(path: Path) -> set[str]:
    """Return the names of the tests that a file holds, also those in its classes."""
    nodes = ast.walk(ast.parse(path.read_text(encoding="utf-8")))
    functions = (node for node in nodes if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))
    return {node.name for node in functions if node.name.startswith("test_")}


@pytest.mark.parametrize(("path", "name"), NAMED, ids=lambda part: part.rpartition("/")[2])
def test_what_the_page_names_is_there(path: str, name: str) -> None:
    """A complaint that nothing holds any more must not look as if it were held."""
    assert name in names_of(ROOT / path)


def test_every_test_of_the_folder_is_on_the_page() -> None:
    """Whoever adds one says which complaint it is about."""
    here = {
        (f"tests/complaints/{path.name}", name)
        for path in Path(__file__).parent.glob("test_*.py")
        if path != Path(__file__)
        for name in names_of(path)
    }
    assert set() == here - set(NAMED)


def test_every_row_is_answered() -> None:
    """By a test, or by a sentence that says why not."""
    rows = [line for line in PAGE.splitlines() if line.startswith("| ") and not line.startswith("| complaint")]
    assert 40 < len(rows)
    assert [] == [row for row in rows if "::" not in row and "not taken:" not in row]
