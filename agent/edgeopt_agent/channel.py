"""The two pipes between the agent and one runner: frames out, frames in, on the agent's event loop.

The pipes are made as large as the kernel gives without privileges (1 MiB on Linux), so that a picture goes through in
one piece. It knows nothing of time limits; a runner that dies is the end of the input. Example::

    channel = Channel.open()
    process = await asyncio.create_subprocess_exec(…, stdin=channel.requests, stdout=channel.replies)
    await channel.connect()
    reply, tensors = await channel.ask(Infer(heads_of(tensors)), tensors)
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
from collections.abc import Sequence
from dataclasses import dataclass

from edgeopt_agent.runner.frames import (
    HEADER_BYTES,
    Answer,
    Reply,
    Request,
    Tensor,
    attach,
    body_length,
    decode_message,
    encode_message,
    payload_bytes,
)

__all__ = ["Channel"]

_PIPE_BYTES = 1 << 20  # /proc/sys/fs/pipe-max-size


@dataclass
class Channel:
    """``requests`` and ``replies`` are the child's ends; they are closed here when the agent's ends are connected."""

    requests: int
    replies: int
    _write_end: int
    _read_end: int
    _writer: asyncio.StreamWriter | None = None
    _reader: asyncio.StreamReader | None = None
    _reading: asyncio.ReadTransport | None = None

    @classmethod
    def open(cls) -> Channel:
        """Make the pipes."""
        (requests, write_end), (read_end, replies) = os.pipe(), os.pipe()
        for descriptor in (write_end, read_end):
            with contextlib.suppress(OSError):  # a smaller pipe is slower, nothing else
                fcntl.fcntl(descriptor, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
        return cls(requests, replies, write_end, read_end)

    async def connect(self) -> None:
        """Close the child's ends and listen at the agent's."""
        os.close(self.requests)
        os.close(self.replies)
        loop = asyncio.get_running_loop()
        self._reader = asyncio.StreamReader(limit=_PIPE_BYTES)
        protocol = asyncio.StreamReaderProtocol(self._reader)
        self._reading, _ = await loop.connect_read_pipe(lambda: protocol, os.fdopen(self._read_end, "rb", 0))
        transport, writing = await loop.connect_write_pipe(
            lambda: asyncio.StreamReaderProtocol(asyncio.StreamReader()), os.fdopen(self._write_end, "wb", 0)
        )
        self._writer = asyncio.StreamWriter(transport, writing, None, loop)

    async def ask(self, request: Request, tensors: Sequence[Tensor]) -> tuple[Reply, tuple[Tensor, ...]]:
        """Send a request and return the reply.

        Raises ``IncompleteReadError`` or ``OSError`` when the runner ended, ``ValueError`` when it talks nonsense.
        """
        assert self._writer is not None
        assert self._reader is not None
        self._writer.write(encode_message(request))
        for tensor in tensors:
            self._writer.write(tensor.data)
        await self._writer.drain()
        length = body_length(await self._reader.readexactly(HEADER_BYTES))
        reply: Reply = decode_message(Reply, await self._reader.readexactly(length))
        payload = await self._reader.readexactly(payload_bytes(reply))
        return reply, attach(reply.heads if isinstance(reply, Answer) else (), payload)

    def close(self) -> None:
        """Close the agent's ends: the runner's input ends, and so does the runner."""
        for transport in (self._writer and self._writer.transport, self._reading):
            if transport is not None:
                transport.close()
        self._writer = self._reading = None
