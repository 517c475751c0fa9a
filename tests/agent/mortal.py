"""Runs a piece of the agent in a process that dies by SIGKILL just before one of its steps.

A step is a call that changes the disk or speaks to the fleet: what is between two steps cannot be told apart from
outside. Example::

    for at in itertools.count():
        if not dies(partial(renew, data, now=now), at):
            break                              # it came to its end: that was every step
"""

from __future__ import annotations

import http.client
import multiprocessing
import os
import signal
from collections.abc import Callable
from typing import Any

STEPS: tuple[tuple[Any, str], ...] = (
    (os, "open"),
    (os, "fsync"),
    (os, "replace"),
    (os, "rename"),
    (os, "unlink"),
    (os, "mkdir"),
    (http.client.HTTPConnection, "connect"),
    (http.client.HTTPConnection, "endheaders"),  # sends the request
    (http.client.HTTPResponse, "begin"),  # the fleet has, or will have, done its part
    (http.client.HTTPResponse, "read"),
)


# Forked from a server without threads: the process of all tests has many, of torch and JAX, and may not be forked.
_PROCESSES = multiprocessing.get_context("forkserver")
_PROCESSES.set_forkserver_preload(["edgeopt_agent.credentials.enrolment"])


def dies(work: Callable[[], object], at: int) -> bool:
    """Run ``work`` in a process of its own that is killed before step ``at`` (from 0); say whether it was.

    ``work`` is pickled: a function of a module, or a ``partial`` of one.
    """
    process = _PROCESSES.Process(target=_mortal, args=(work, at))
    process.start()
    process.join()
    code = process.exitcode
    process.close()
    assert code in (0, -signal.SIGKILL), f"the work failed without being killed: exit code {code}"
    return code != 0


def _mortal(work: Callable[[], object], at: int) -> None:
    _arm(at)
    work()


def _arm(at: int) -> None:
    left = [at]

    def before(call: Callable[..., Any]) -> Callable[..., Any]:
        def step(*arguments: Any, **named: Any) -> Any:
            if left[0] == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            left[0] -= 1
            return call(*arguments, **named)

        return step

    for owner, name in STEPS:
        setattr(owner, name, before(getattr(owner, name)))
