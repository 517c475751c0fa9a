"""Runs a piece of the agent in a process that dies by SIGKILL just before one of its steps.

A step is a call that changes the disk or speaks to the fleet: what is between two steps cannot be told apart from
outside. Example::

    for at in itertools.count():
        if not dies(lambda: renew(data, now=now), at):
            break                              # it came to its end: that was every step
"""

from __future__ import annotations

import http.client
import os
import signal
import sys
import traceback
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


def dies(work: Callable[[], object], at: int) -> bool:
    """Run ``work`` in a process of its own that is killed before step ``at`` (from 0); say whether it was."""
    pid = os.fork()
    if pid == 0:
        try:
            _arm(at)
            work()
        except BaseException:
            traceback.print_exc()
            sys.stderr.flush()
            os._exit(1)
        os._exit(0)
    _, status = os.waitpid(pid, 0)
    if os.WIFSIGNALED(status):
        assert signal.SIGKILL == os.WTERMSIG(status)
        return True
    assert 0 == os.waitstatus_to_exitcode(status), "the work failed without being killed"
    return False


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
