"""The runner's main loop: frames in on standard input, frames out on standard output, until the input ends.

The answer leaves first; its profile cells are counted before the next request is read. Tensors of a request follow it,
or lie in memory that is shared with the agent.

Example::

    python -m edgeopt_agent.runner --memory-bytes 500000000
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import os
import resource
import signal
import sys
from pathlib import Path
from typing import BinaryIO

from edgeopt_agent.inference.shared import view_of
from edgeopt_agent.runner.frames import (
    HEADER_BYTES,
    Compare,
    Infer,
    Request,
    Tensor,
    all_heads,
    attach,
    body_length,
    decode_message,
    encode_message,
    payload_bytes,
)
from edgeopt_agent.runner.worker import Worker

__all__ = ["main", "serve"]

_PR_SET_PDEATHSIG = 1
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # malloc.h
_KEPT_BYTES = 16 << 20


def main() -> None:
    """Limit the memory, take the pipes, serve."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--memory-bytes", type=int)
    parser.add_argument("--nice", type=int, default=0)
    parser.add_argument("--oom-score", type=int, default=0, help="of -1000 (never) to 1000 (first)")
    parser.add_argument("--shared", type=int, metavar="DESCRIPTOR")
    arguments = parser.parse_args()
    _end_with_parent()
    _go_before_the_agent(arguments.oom_score)
    _keep_freed_memory()
    os.nice(arguments.nice)
    if arguments.memory_bytes:  # of data: libraries reserve addresses that cost nothing
        resource.setrlimit(resource.RLIMIT_DATA, (arguments.memory_bytes, arguments.memory_bytes))
    shared = memoryview(b"") if arguments.shared is None else view_of(arguments.shared)
    pipe = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # a library that prints must not break a frame
    serve(sys.stdin.buffer, pipe, shared)


def serve(requests: BinaryIO, replies: BinaryIO, shared: memoryview) -> None:
    """Answer every request of ``requests``, whose tensors may lie in ``shared``, until it ends."""
    worker = Worker()
    while len(header := requests.read(HEADER_BYTES)) == HEADER_BYTES:
        request: Request = decode_message(Request, requests.read(body_length(header)))
        reply, tensors = worker.answer(request, _tensors(request, requests, shared))
        replies.write(encode_message(reply))
        replies.writelines(tensor.data for tensor in tensors)
        replies.flush()
        os.sched_yield()  # who waits for the answer on this core goes first
        worker.settle()


def _tensors(request: Request, requests: BinaryIO, shared: memoryview) -> tuple[Tensor, ...]:
    """Return the tensors of ``request``: what follows it, or what lies in shared memory, which is not copied."""
    if not isinstance(request, Infer | Compare):
        return ()
    size, heads = payload_bytes(request), all_heads(request)
    if request.at is None:
        return attach(heads, requests.read(size))
    return attach(heads, shared[request.at : request.at + size])


def _end_with_parent() -> None:
    """Let the kernel end this process when the agent dies, for a hanging model never reads the end of its input."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _go_before_the_agent(oom_score: int) -> None:
    """When the machine runs out of memory the kernel should end this process, not the agent."""
    with contextlib.suppress(OSError):  # no Linux
        Path("/proc/self/oom_score_adj").write_text(str(oom_score))


def _keep_freed_memory() -> None:
    """Let glibc use a freed picture again instead of giving it back, for every page that comes anew costs a fault."""
    with contextlib.suppress(AttributeError):  # another libc
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_M_TRIM_THRESHOLD, _KEPT_BYTES)
        mallopt(_M_MMAP_THRESHOLD, _KEPT_BYTES)


if __name__ == "__main__":
    main()
