"""``__all__`` is the promise of a module: it is there, it is true, and it is complete."""

from __future__ import annotations

import ast
import importlib
from pathlib import Path

import pytest

from tests.project.conftest import ROOT

PACKAGES = ("contract/edgeopt_contract", "optimizer/edgeopt", "fleet/edgeopt_fleet", "agent/edgeopt_agent")
MODULES = sorted(
    path
    for package in PACKAGES
    for path in (ROOT / package).rglob("*.py")
    if path.name not in ("__init__.py", "__main__.py") and "migrations" not in path.parts  # Alembic runs those
)


def module_name(path: Path) -> str:
    """The dotted name of a module's file."""
    return ".".join(path.relative_to(ROOT).with_suffix("").parts[1:])


def public_definitions(path: Path) -> set[str]:
    """Functions and classes without a leading underscore that a module defines itself."""
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    return {node.name for node in ast.parse(path.read_text()).body if isinstance(node, kinds) and node.name[0] != "_"}


@pytest.mark.parametrize("path", MODULES, ids=module_name)
def test_promise_is_kept_and_complete(path: Path) -> None:
    """Every promised name exists once, sorted by the linter; every public function and class is promised."""
    module = importlib.import_module(module_name(path))
    promised = module.__all__
    assert len(set(promised)) == len(promised)
    assert [] == [name for name in promised if not hasattr(module, name)]
    assert public_definitions(path) <= set(promised) | _command_functions(path)


def _command_functions(path: Path) -> set[str]:
    """Functions that click or FastAPI registers by a decorator: they are called through it, not by name."""
    return {
        node.name
        for node in ast.parse(path.read_text()).body
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.decorator_list
    }


@pytest.mark.parametrize("path", MODULES, ids=module_name)
def test_module_says_what_it_is(path: Path) -> None:
    """Every module begins with a docstring."""
    assert ast.get_docstring(ast.parse(path.read_text()))
