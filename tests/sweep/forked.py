"""The agent's children without the time that an interpreter and its imports take: forked from it instead.

``python -m MODULE`` becomes a fork that runs the module's ``main`` on the same pipes; what the children do, and what
they do to the disk, is the same. For the sweep alone, which starts some thousand of them. Example::

    fork_children()                # in the process that is to run the agent, before it does
"""

from __future__ import annotations

import asyncio
import importlib
import os
import resource
import signal
import sys
from itertools import pairwise
from typing import Any

__all__ = ["fork_children", "load_ahead"]

_CHILDREN = ("edgeopt_agent.runner.__main__", "edgeopt_agent.trust.__main__")
_THEIR_IMPORTS = ("onnxruntime", "tuf.ngclient", "cryptography.hazmat.primitives.asymmetric.ed25519")


def load_ahead() -> None:
    """Import what the children need, once."""
    for module in (*_CHILDREN, *_THEIR_IMPORTS):
        importlib.import_module(module)


def fork_children() -> None:
    """From now on, let this process fork what it would start as ``python -m``."""
    start = asyncio.create_subprocess_exec

    async def fork(program: str, *arguments: str, **options: Any) -> asyncio.subprocess.Process:
        if (program, arguments[0]) == (sys.executable, "-m"):
            # The child has its pipes when preexec_fn is called, and the parent goes on when its last descriptor closes.
            kept = sorted(options.get("pass_fds", ()))
            options["preexec_fn"] = lambda: _become(arguments[1], arguments[2:], kept)
        return await start(program, *arguments, **options)

    asyncio.create_subprocess_exec = fork  # type: ignore[assignment]  # keeps its promise


def _become(module: str, arguments: tuple[str, ...], kept: list[int]) -> None:
    """Run ``module`` as the program would, and end. Does not return."""
    code = 1
    try:
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1):
            signal.signal(number, signal.SIG_DFL)
        for below, above in pairwise([2, *kept, 4096]):
            os.closerange(below + 1, above)
        asyncio._set_running_loop(None)  # it is the parent's
        sys.argv = [module, *arguments]
        sys.stdin = open(0, closefd=False)  # noqa: SIM115  # the parent's may have read ahead
        sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115
        resource.setrlimit = lambda *_: None  # type: ignore[assignment]  # all imports of all children are mapped here
        importlib.import_module(f"{module}.__main__").main()
        sys.stdout.flush()
        code = 0
    finally:
        os._exit(code)
