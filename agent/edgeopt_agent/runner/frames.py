"""What the agent and its runner say to each other over two pipes.

A frame is four bytes of length (big endian) and that many bytes of MessagePack; tensors travel as raw bytes in C order.
Pure: reading and writing pipes is the callers' part. Example::

    frame = encode_frame(Infer(tensors=[Tensor.of("x", array)]))
    decode_frame(Request, frame[HEADER_BYTES:])
"""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

__all__ = [
    "HEADER_BYTES",
    "MAX_FRAME_BYTES",
    "Answer",
    "Failed",
    "Infer",
    "Load",
    "Loaded",
    "Reply",
    "Request",
    "Tensor",
    "body_length",
    "decode_frame",
    "encode_frame",
]

HEADER_BYTES = 4
MAX_FRAME_BYTES = 1 << 30


class Tensor(msgspec.Struct, frozen=True, array_like=True):
    """A named array: NumPy's dtype name, shape with the batch dimension, raw bytes."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    data: bytes

    @classmethod
    def of(cls, name: str, array: npt.NDArray[Any]) -> Tensor:
        """Wrap ``array``."""
        return cls(name, array.dtype.name, array.shape, np.ascontiguousarray(array).tobytes())

    def array(self) -> npt.NDArray[Any]:
        """Return the array; it is read-only. Raises ``ValueError`` when bytes and shape do not fit."""
        return np.frombuffer(self.data, dtype=self.dtype).reshape(self.shape)


class Load(msgspec.Struct, frozen=True, tag=True):
    """Load the model file at ``path``."""

    path: str
    threads: int


class Infer(msgspec.Struct, frozen=True, tag=True):
    """Run the model on these inputs."""

    tensors: list[Tensor]


class Loaded(msgspec.Struct, frozen=True, tag=True):
    """The model is loaded; ``sha256`` is that of the bytes it was loaded from."""

    sha256: str
    inputs: list[str]
    outputs: list[str]


class Answer(msgspec.Struct, frozen=True, tag=True):
    """The outputs, and how long the model ran."""

    tensors: list[Tensor]
    microseconds: float


class Failed(msgspec.Struct, frozen=True, tag=True):
    """The request failed; the runner lives on."""

    reason: str


Request = Load | Infer
Reply = Loaded | Answer | Failed


def encode_frame(message: Request | Reply) -> bytes:
    """Return the frame of ``message``."""
    body = msgspec.msgpack.encode(message)
    return len(body).to_bytes(HEADER_BYTES, "big") + body


def body_length(header: bytes) -> int:
    """Return how many bytes follow ``header``. Raises ``ValueError`` when that cannot be a frame of ours."""
    length = int.from_bytes(header, "big")
    if len(header) != HEADER_BYTES or length > MAX_FRAME_BYTES:
        raise ValueError(f"expected a frame of at most {MAX_FRAME_BYTES} bytes, got {length}")
    return length


def decode_frame(kind: Any, body: bytes) -> Any:
    """Decode the body of a frame into ``kind`` (:data:`Request` or :data:`Reply`); ``ValueError`` if it is not one."""
    try:
        return msgspec.msgpack.decode(body, type=kind)
    except msgspec.MsgspecError as error:
        raise ValueError(f"not a frame of the runner: {error}") from error
