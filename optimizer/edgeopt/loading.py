"""Finding what the user names as ``package.module:attribute``, with the working directory importable.

It imports the user's module and nothing else; errors in it become one sentence that names the line. Example::

    factory = load_attribute("examples.digits:model", ModelError)
"""

from __future__ import annotations

import importlib
import sys
import sysconfig
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from edgeopt_contract.errors import EdgeoptError, UsageError

__all__ = ["call_user_code", "is_reference", "load_attribute"]


def is_reference(text: str) -> bool:
    """Tell whether ``text`` looks like ``package.module:attribute``."""
    module, colon, attribute = text.partition(":")
    return bool(colon) and all(part.isidentifier() for part in f"{module}.{attribute}".split("."))


def load_attribute(reference: str, kind: type[UsageError]) -> Callable[..., Any]:
    """Return the callable that ``reference`` names. Raises ``kind``, saying what is missing and what there is."""
    if not is_reference(reference):
        raise kind(f"expected 'package.module:function', got {reference!r}")
    module_name, _, attribute = reference.partition(":")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    module = call_user_code(lambda: _import(module_name, reference, kind), f"importing {module_name}", kind)
    value: Any = module
    for part in attribute.split("."):
        value = getattr(value, part, None)
    if not callable(value):
        names = sorted(name for name, item in vars(module).items() if callable(item) and not name.startswith("_"))
        raise kind(f"{module_name} has no function {attribute!r}; it has: {', '.join(names[:12]) or 'none'}")
    return value  # type: ignore[no-any-return]  # whatever the user wrote: its results are checked


def call_user_code(call: Callable[[], Any], doing: str, kind: type[UsageError]) -> Any:
    """Return ``call()``; an exception of the user's code becomes ``kind`` with the line that raised it.

    So does ``sys.exit()``, which a script calls that was not meant to be imported: its exit code would pass for ours.
    """
    try:
        return call()
    except EdgeoptError:
        raise
    except (Exception, SystemExit) as error:
        raise kind(f"{doing} failed: {type(error).__name__}: {error}{_place(error)}") from error


def _place(error: BaseException) -> str:
    """Return the last line of the user's own code that ``error`` passed, in brackets; empty when there is none."""
    frames = traceback.extract_tb(error.__traceback__)
    theirs = [frame for frame in frames if _is_users(frame.filename)]
    return f" ({Path(theirs[-1].filename).name}, line {theirs[-1].lineno})" if theirs else ""


def _is_users(filename: str) -> bool:
    library = (*(str(Path(path)) for path in sysconfig.get_paths().values()), str(Path(__file__).parent))
    return not filename.startswith(("<", *library))


def _import(module_name: str, reference: str, kind: type[UsageError]) -> Any:
    try:
        return importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
            raise kind(
                f"importing {module_name} failed: it needs the module '{error.name}', which is not installed"
            ) from error
        raise kind(
            f"cannot find the module '{error.name}' of {reference}; looked in the working directory and in the "
            "installed packages: check the spelling, or change to the directory that holds it"
        ) from error
