"""The runner's main loop: frames in on standard input, frames out on standard output, until the input ends.

Example::

    python -m edgeopt_agent.runner --memory-bytes 500000000
"""

from __future__ import annotations

import argparse
import ctypes
import os
import resource
import signal
import sys
from typing import BinaryIO

from edgeopt_agent.runner.frames import (
    HEADER_BYTES,
    Answer,
    Failed,
    Infer,
    Load,
    Loaded,
    Reply,
    Request,
    Tensor,
    body_length,
    decode_frame,
    encode_frame,
)
from edgeopt_agent.runner.model import OnnxModel

__all__ = ["answer", "main", "serve"]

_PR_SET_PDEATHSIG = 1
_LONGEST_REASON = 500


def main() -> None:
    """Limit the memory, take the pipes, serve."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--memory-bytes", type=int)
    arguments = parser.parse_args()
    _end_with_parent()
    if arguments.memory_bytes:
        resource.setrlimit(resource.RLIMIT_AS, (arguments.memory_bytes, arguments.memory_bytes))
    pipe = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # a library that prints must not break a frame
    serve(sys.stdin.buffer, pipe)


def serve(requests: BinaryIO, replies: BinaryIO) -> None:
    """Answer every request of ``requests`` until it ends."""
    model: OnnxModel | None = None
    while len(header := requests.read(HEADER_BYTES)) == HEADER_BYTES:
        request = decode_frame(Request, requests.read(body_length(header)))
        model, reply = answer(model, request)
        replies.write(encode_frame(reply))
        replies.flush()


def answer(model: OnnxModel | None, request: Request) -> tuple[OnnxModel | None, Reply]:
    """Return the model that is loaded from now on, and what to say to ``request``."""
    try:
        if isinstance(request, Load):
            model = OnnxModel.load(request.path, request.threads)
            return model, Loaded(model.sha256, model.inputs, model.outputs)
        return model, _infer(model, request)
    except Exception as error:  # the process boundary: whatever a runtime raises becomes a reply
        return model, Failed(f"{type(error).__name__}: {error}"[:_LONGEST_REASON])


def _infer(model: OnnxModel | None, request: Infer) -> Reply:
    if model is None:
        return Failed("no model is loaded")
    outputs, microseconds = model.run({tensor.name: tensor.array() for tensor in request.tensors})
    return Answer([Tensor.of(name, array) for name, array in outputs.items()], microseconds)


def _end_with_parent() -> None:
    """Let the kernel end this process when the agent dies, for a hanging model never reads the end of its input."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


if __name__ == "__main__":
    main()
