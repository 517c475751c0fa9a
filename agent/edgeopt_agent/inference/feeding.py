"""The process of one source: takes items from an iterable or a folder and asks the agent that started it for each.

``python -m edgeopt_agent.inference.feeding --socket FD module:factory`` is started by
:mod:`edgeopt_agent.inference.sources`. It speaks HTTP over the inherited socket and tells what happens in lines of
JSON on standard output; what the user's code prints goes to standard error. It does not decide when to start again.
Example::

    ask_each(camera(), client, tell)
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import importlib
import json
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from edgeopt_agent.client import BusyError, Client
from edgeopt_agent.inference.folder import watch_folder
from edgeopt_contract.errors import EdgeoptError, UnreachableError, UsageError

__all__ = ["ask_each", "load_factory", "main"]

Tell = Callable[..., None]
_FOLDER = "folder:"
_PR_SET_PDEATHSIG = 1
_LOG_EVERY_ERRORS = 100
_AGAIN_SECONDS = 0.05
_LONGEST_PAUSE_SECONDS = 1.0
_LONGEST_REASON = 400


def main() -> None:
    """Get ready, say so, and ask until there is nothing more to ask, or nobody reads what is said."""
    with contextlib.suppress(BrokenPipeError):  # the agent has ended
        _feed()


def _feed() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--socket", type=int, required=True)
    parser.add_argument("--interval", type=float, default=0.0)
    parser.add_argument("--repeat", action="store_true")
    parser.add_argument("source")
    arguments = parser.parse_args()
    _end_with_parent()
    tell = _teller()
    client = Client.over(socket.socket(fileno=arguments.socket))
    try:
        work = _make_work(arguments, client, tell)
    except UsageError as error:
        tell(event="source_failed", level="ERROR", reason=error)
        return
    tell(event="ready")
    try:
        client.is_ready()  # returns when the agent has begun to answer: no camera is opened before
        work()
        tell(event="source_ended")
    except UnreachableError:
        return  # the agent has ended
    except Exception as error:  # whatever the user's iterable raises
        tell(event="source_failed", level="ERROR", reason=f"{type(error).__name__}: {error}")


def _make_work(arguments: argparse.Namespace, client: Client, tell: Tell) -> Callable[[], None]:
    if arguments.source.startswith(_FOLDER):
        path = Path(arguments.source.removeprefix(_FOLDER))
        return lambda: watch_folder(path, client, threading.Event())
    factory = load_factory(arguments.source)

    def work() -> None:
        failures = 0
        while True:
            failures += ask_each(factory(), client, tell, arguments.interval, failures)
            if not arguments.repeat:
                return

    return work


def load_factory(text: str) -> Callable[[], Iterable[Any]]:
    """Return what ``module:factory`` names. Raises :class:`UsageError`."""
    module_name, _, name = text.partition(":")
    if "" not in sys.path:
        sys.path.insert(0, "")  # a console script does not look into the current directory, 'python -m' does
    try:
        factory = getattr(importlib.import_module(module_name), name)
    except Exception as error:  # an import runs the user's code, which may raise anything
        raise UsageError(f"cannot be imported: {type(error).__name__}: {error}") from error
    if not callable(factory):
        raise UsageError(f"expected something to call, got {type(factory).__name__}")
    return factory  # type: ignore[no-any-return]  # checked as far as Python can


def ask_each(items: Iterable[Any], client: Client, tell: Tell, interval_seconds: float = 0.0, failures: int = 0) -> int:
    """Ask for each item, in turn, and return how many got no answer; nothing is taken before something serves.

    Raises :class:`UnreachableError` when the agent has gone, and what ``items`` raises.
    """
    failed = 0
    for item in items:
        inputs = item[0] if isinstance(item, tuple) else item
        reason = _ask(client, inputs)
        if reason is not None:
            if (failures + failed) % _LOG_EVERY_ERRORS == 0:
                tell(event="inference_failed", level="WARNING", failures=failures + failed + 1, reason=reason)
            failed += 1
        if interval_seconds:
            time.sleep(interval_seconds)
    return failed


def _ask(client: Client, inputs: Any) -> EdgeoptError | None:
    """Ask for one inference until something answers; return why it failed, or nothing."""
    pause = _AGAIN_SECONDS
    while True:
        try:
            client.infer(inputs)
        except BusyError:  # nothing serves yet, or it was taken away in this moment
            time.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)
        except UnreachableError:
            raise
        except EdgeoptError as error:
            return error
        else:
            return None


def _teller() -> Tell:
    """Keep standard output for events, and let what the user's code prints go to standard error."""
    pipe = os.dup(sys.stdout.fileno())
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())

    def tell(**fields: object) -> None:
        line = json.dumps({name: str(value)[:_LONGEST_REASON] for name, value in fields.items()}) + "\n"
        os.write(pipe, line.encode())  # a line is written whole, and nothing stays to be written at the end

    return tell


def _end_with_parent() -> None:
    """Let the kernel end this process when the agent dies: a camera that blocks never notices."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


if __name__ == "__main__":
    main()
