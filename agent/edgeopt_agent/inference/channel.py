"""The two pipes between the agent and one runner: frames out, frames in, on the agent's event loop.

Large inputs go through shared memory where there is some; the pipes are made as large as the kernel gives without
privileges (1 MiB on Linux), so that a picture goes through in one piece otherwise. It knows nothing of time limits; a
runner that dies is the end of the input. Example::

    channel = Channel.open()
    process = await asyncio.create_subprocess_exec(
        …, stdin=channel.requests, stdout=channel.replies, pass_fds=channel.inherited
    )
    await channel.connect()
    reply, tensors = await channel.infer(tensors)
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from edgeopt_agent.inference.shared import SharedMemory
from edgeopt_agent.runner.frames import (
    HEADER_BYTES,
    Answer,
    Buffer,
    Compare,
    Infer,
    Reply,
    Request,
    Tensor,
    attach,
    body_length,
    decode_message,
    encode_message,
    heads_of,
    payload_bytes,
)

__all__ = ["Channel"]

_PIPE_BYTES = 1 << 20  # /proc/sys/fs/pipe-max-size
_JOINED_BYTES = 16 << 10


@dataclass
class Channel:
    """``requests`` and ``replies`` are the child's ends; they are closed here when the agent's ends are connected."""

    requests: int
    replies: int
    _write_end: int
    _read_end: int
    _shared: SharedMemory | None
    _writer: asyncio.StreamWriter | None = None
    _reader: asyncio.StreamReader | None = None
    _reading: asyncio.ReadTransport | None = None

    @classmethod
    def open(cls) -> Channel:
        """Make the pipes and the shared memory."""
        (requests, write_end), (read_end, replies) = os.pipe(), os.pipe()
        for descriptor in (write_end, read_end):
            with contextlib.suppress(OSError):  # a smaller pipe is slower, nothing else
                fcntl.fcntl(descriptor, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
        return cls(requests, replies, write_end, read_end, SharedMemory.make())

    @property
    def inherited(self) -> tuple[int, ...]:
        """The descriptor of the shared memory, which the child must inherit; empty without such memory."""
        return () if self._shared is None else (self._shared.descriptor,)

    async def connect(self) -> None:
        """Close the child's ends and listen at the agent's."""
        os.close(self.requests)
        os.close(self.replies)
        loop = asyncio.get_running_loop()
        replies, requests = os.fdopen(self._read_end, "rb", 0), os.fdopen(self._write_end, "wb", 0)
        self._reader = asyncio.StreamReader(limit=_PIPE_BYTES)
        protocol = asyncio.StreamReaderProtocol(self._reader)
        self._reading, _ = await loop.connect_read_pipe(lambda: protocol, replies)
        transport, writing = await loop.connect_write_pipe(
            lambda: asyncio.StreamReaderProtocol(asyncio.StreamReader()), requests
        )
        self._writer = asyncio.StreamWriter(transport, writing, None, loop)

    async def infer(self, tensors: Sequence[Tensor]) -> tuple[Reply, tuple[Tensor, ...]]:
        """Have the model run. Raises as :meth:`ask`."""
        heads = heads_of(tensors)
        return await self._send(lambda at: Infer(heads, at), tensors)

    async def compare(self, tensors: Sequence[Tensor], expected: Sequence[Tensor], microseconds: float) -> Reply:
        """Have the model run and compared with the outputs ``expected``. Raises as :meth:`ask`."""
        heads, others = heads_of(tensors), heads_of(expected)
        reply, _ = await self._send(lambda at: Compare(heads, others, microseconds, at), (*tensors, *expected))
        return reply

    async def _send(
        self, request: Callable[[int | None], Request], tensors: Sequence[Tensor]
    ) -> tuple[Reply, tuple[Tensor, ...]]:
        """Send ``request``, which is told where its tensors lie; ``None``: they follow it."""
        data = [memoryview(tensor.data).cast("B") for tensor in tensors]
        if sum(map(len, data)) <= _JOINED_BYTES:  # in one piece, which wakes the runner once
            return await self._exchange([b"".join((encode_message(request(None)), *data))])
        at = self._shared.put(data) if self._shared else None
        return await self._exchange([encode_message(request(at)), *(data if at is None else ())])

    async def ask(self, request: Request) -> Reply:
        """Send a request without tensors and return the reply.

        Raises ``IncompleteReadError`` or ``OSError`` when the runner ended, ``ValueError`` when it talks nonsense.
        """
        reply, _ = await self._exchange([encode_message(request)])
        return reply

    async def _exchange(self, parts: Sequence[Buffer]) -> tuple[Reply, tuple[Tensor, ...]]:
        assert self._writer is not None
        assert self._reader is not None
        for part in parts:
            self._writer.write(part)
        await self._writer.drain()
        length = body_length(await self._reader.readexactly(HEADER_BYTES))
        reply: Reply = decode_message(Reply, await self._reader.readexactly(length))
        payload = await self._reader.readexactly(payload_bytes(reply))
        return reply, attach(reply.heads if isinstance(reply, Answer) else (), payload)

    def close(self) -> None:
        """Close the agent's ends: the runner's input ends, and so does the runner."""
        if self._shared is not None:
            self._shared.close()
            self._shared = None
        for transport in (self._writer and self._writer.transport, self._reading):
            if transport is not None:
                transport.close()
        self._writer = self._reading = None
