"""The limits of CONTRIBUTING.md that no linter holds."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from tests.project.conftest import ROOT

FOLDERS = ("contract", "optimizer", "fleet", "agent", "tools", "demo")
FILES = sorted(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py"))
WRITTEN = [path for path in FILES if path.parts[-3:-1] != ("migrations", "versions")]  # those are generated


@pytest.mark.parametrize("path", WRITTEN, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_files_and_functions_stay_short(path: Path) -> None:
    """Up to 400 lines a file and 50 lines a function: past that a concept is missing."""
    text = path.read_text(encoding="utf-8")
    assert text.count("\n") <= 400
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef)
    functions = [node for node in ast.walk(ast.parse(text)) if isinstance(node, kinds)]
    assert [] == [node.name for node in functions if (node.end_lineno or 0) - node.lineno + 1 > 50]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_every_exception_to_a_rule_has_its_reason(path: Path) -> None:
    """Something stands behind every noqa and every type: ignore, and each names its rule."""
    text = path.read_text(encoding="utf-8")
    for line in text.splitlines():
        for match in re.finditer(r"#\s*(noqa|type: ignore)(.*)$", line):
            assert re.match(r"(: [A-Z0-9, ]+|\[[\w, -]+\])\s+\W*\w+", match[2]), line.strip()


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_nothing_is_left_undone(path: Path) -> None:
    """No TODO, no stub, no swallowed exception without a word."""
    text = path.read_text(encoding="utf-8")
    assert not re.search(r"\b(TODO|FIXME|XXX|HACK)\b", text)
    for node in ast.walk(ast.parse(text)):
        assert not isinstance(node, ast.ExceptHandler) or node.type is not None, "a bare except"
