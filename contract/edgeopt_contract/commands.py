"""How every program of edgeopt ends: one clear line on stderr and the documented exit code, never a traceback.

It knows the error tree of :mod:`edgeopt_contract.errors`, and any command-line library whose errors have
``exit_code`` and ``format_message()`` (click's do); it imports none. It parses no arguments. Example::

    def main() -> None:
        sys.exit(run_command(lambda: group(standalone_mode=False)))

``EDGEOPT_TRACEBACK=1`` in the environment shows the traceback as well, for expected errors too.
"""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable

from edgeopt_contract.errors import EdgeoptError, ExitCode
from edgeopt_contract.storage import storage_advice

__all__ = ["INTERRUPTED", "TRACEBACK_VARIABLE", "run_command"]

TRACEBACK_VARIABLE = "EDGEOPT_TRACEBACK"
INTERRUPTED = 130  # what shells use for a program ended by Ctrl-C: 128 + SIGINT


def run_command(command: Callable[[], object]) -> int:
    """Run ``command`` and return its exit code; say on stderr what went wrong, if anything did.

    An integer that ``command`` returns is the exit code (a gate's verdict, for instance); anything else is 0.
    """
    try:
        result = command()
    except KeyboardInterrupt:
        return _interrupted()
    except Exception as error:
        if isinstance(error.__cause__, KeyboardInterrupt):  # click wraps it in its own Abort
            return _interrupted()
        if os.environ.get(TRACEBACK_VARIABLE) == "1":
            traceback.print_exception(error)
        message, code = _explain(error)
        print(message, file=sys.stderr)
        return code
    return int(result) if isinstance(result, int) and not isinstance(result, bool) else int(ExitCode.GOOD)


def _explain(error: Exception) -> tuple[str, int]:
    """Return what to tell the user about ``error``, and the exit code."""
    if isinstance(error, EdgeoptError):
        return f"error: {error}", int(error.exit_code)
    if hasattr(error, "exit_code") and hasattr(error, "format_message"):
        return _usage(error), int(error.exit_code)
    if isinstance(error, OSError):
        where = f" ({error.filename})" if error.filename else ""
        return f"error: {storage_advice(error)}{where}", int(ExitCode.UNEXPECTED)
    if isinstance(error, MemoryError):
        return "error: the machine ran out of memory: use less data or a larger machine", int(ExitCode.UNEXPECTED)
    line = f"unexpected error: {type(error).__name__}: {error}"
    return f"{line}; set {TRACEBACK_VARIABLE}=1 to see where it happened", int(ExitCode.UNEXPECTED)


def _usage(error: Exception) -> str:
    """Return click's message with the command that explains more; a whole help page stands as it is."""
    message = str(error.format_message())  # type: ignore[attr-defined]  # duck-typed: the caller has looked
    if message.startswith("Usage:"):
        return message
    context = getattr(error, "ctx", None)
    hint = "" if context is None else f"\nsee '{context.command_path} --help'"
    return f"error: {message}{hint}"


def _interrupted() -> int:
    print("interrupted", file=sys.stderr)
    return INTERRUPTED
