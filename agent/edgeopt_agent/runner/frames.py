"""What the agent and its runner say to each other over two pipes.

A frame is four bytes of length (big endian), that many bytes of MessagePack, and then the raw bytes of the tensors that
the message has heads of, unless those lie in shared memory: large arrays are neither packed nor copied for it. Pure,
and without NumPy: reading and writing pipes, and what the bytes mean, is the callers' part. Example::

    tensors = (Tensor("x", "float32", (4,), bytes(16)),)
    first = encode_message(Infer(heads_of(tensors)))        # then tensors[0].data
    decode_message(Request, first[HEADER_BYTES:])           # Infer; payload_bytes(...) more bytes follow
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import msgspec

from edgeopt_contract.manifest import TensorSpec

__all__ = [
    "HEADER_BYTES",
    "MAX_FRAME_BYTES",
    "Answer",
    "Blame",
    "Buffer",
    "Champion",
    "Compare",
    "Compared",
    "Failed",
    "Head",
    "Infer",
    "Load",
    "Loaded",
    "Reply",
    "Request",
    "SelfTest",
    "SelfTested",
    "Settle",
    "Settled",
    "Tensor",
    "all_heads",
    "attach",
    "body_length",
    "decode_message",
    "encode_message",
    "heads_of",
    "payload_bytes",
]

HEADER_BYTES = 4
MAX_FRAME_BYTES = 1 << 30


Buffer = bytes | bytearray | memoryview


@dataclass(frozen=True, slots=True)
class Tensor:
    """A named array: NumPy's name of the dtype, the shape, and the raw bytes in C order and the machine's byte order.

    A tensor with as many axes as the signature says is one sample; with one axis more it is a batch.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    data: Buffer


class Head(msgspec.Struct, frozen=True, array_like=True):
    """A tensor without its bytes, of which there are ``size``."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    size: int


class Champion(msgspec.Struct, frozen=True, array_like=True):
    """What a challenger is compared with: the golden file of the bundle that serves, and which variant of it does."""

    golden: str
    variant: str


class Load(msgspec.Struct, frozen=True, tag=True, kw_only=True):
    """Load the model file at ``path``; count into the cells of ``counts`` what ``profile`` describes.

    ``golden`` is the file with the golden inputs and the outputs of ``variant``. With a ``champion`` the cells of a
    shadow follow those of the profile.
    """

    path: str
    runtime: str
    threads: int
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[str, ...]
    variant: str
    golden: str
    profile: str
    counts: str
    champion: Champion | None = None


class Infer(msgspec.Struct, frozen=True, tag=True):
    """Run the model on these inputs, and count them.

    Their bytes follow, or they lie in shared memory, one after the other from ``at``.
    """

    heads: tuple[Head, ...]
    at: int | None = None


class Compare(msgspec.Struct, frozen=True, tag=True):
    """Run the model on these inputs, compare with what the champion gave in ``microseconds``, and count both.

    The bytes of the inputs and then of the expected outputs follow, or lie in shared memory from ``at``.
    """

    heads: tuple[Head, ...]
    expected: tuple[Head, ...]
    microseconds: float
    at: int | None = None


class SelfTest(msgspec.Struct, frozen=True, tag=True):
    """Run the golden inputs and compare with the expected outputs; count nothing."""

    tolerance: float


class Settle(msgspec.Struct, frozen=True, tag=True):
    """Answer once everything that was answered is counted."""


class Settled(msgspec.Struct, frozen=True, tag=True):
    """Everything that was answered is counted."""


class Loaded(msgspec.Struct, frozen=True, tag=True):
    """The model is loaded; ``sha256`` is that of the bytes it was loaded from."""

    sha256: str
    inputs: list[str]
    outputs: list[str]


class Answer(msgspec.Struct, frozen=True, tag=True):
    """The outputs, how long the model ran, and how many samples have NaN or infinity where they should not."""

    heads: tuple[Head, ...]
    microseconds: float
    nonfinite: int


class Compared(msgspec.Struct, frozen=True, tag=True):
    """The outputs were compared and counted; ``nonfinite`` as in :class:`Answer`."""

    nonfinite: int


class SelfTested(msgspec.Struct, frozen=True, tag=True):
    """The self-test is over: what is wrong, in words, how long each sample took, and how far it is from the tolerance.

    ``divergence`` is the greatest mean difference of an output to the golden one, 1 being what is just allowed;
    ``None`` when the outputs cannot be compared.
    """

    problems: list[str]
    microseconds: list[float]
    divergence: float | None = None


class Blame(StrEnum):
    """Whose fault it is that a request failed."""

    INPUT = "input"  # it does not fit the model's signature
    BUNDLE = "bundle"  # its files are not what they should be
    MODEL = "model"  # the runtime refused or failed
    DISK = "disk"  # it does not let the counts be mapped
    MEMORY = "memory"  # there was not enough; what the process still holds is not to be trusted


class Failed(msgspec.Struct, frozen=True, tag=True):
    """The request failed; the runner lives on."""

    reason: str
    blame: Blame


Request = Load | Infer | Compare | SelfTest | Settle
Reply = Loaded | Answer | Compared | SelfTested | Settled | Failed


def encode_message(message: Request | Reply) -> bytes:
    """Return the first part of a frame: length and message; the bytes of its tensors follow in their order."""
    body = msgspec.msgpack.encode(message)
    return len(body).to_bytes(HEADER_BYTES, "big") + body


def body_length(header: bytes) -> int:
    """Return how many bytes follow ``header``. Raises ``ValueError`` when that cannot be a frame of ours."""
    length = int.from_bytes(header, "big")
    if len(header) != HEADER_BYTES or length > MAX_FRAME_BYTES:
        raise ValueError(f"expected a message of at most {MAX_FRAME_BYTES} bytes, got {length}")
    return length


def decode_message(kind: Any, body: bytes) -> Any:
    """Decode a message as ``kind`` (:data:`Request` or :data:`Reply`); ``ValueError`` if it is not one."""
    try:
        return msgspec.msgpack.decode(body, type=kind)
    except msgspec.MsgspecError as error:
        raise ValueError(f"not a message of the runner: {error}") from error


def heads_of(tensors: Sequence[Tensor]) -> tuple[Head, ...]:
    """Return ``tensors`` without their bytes."""
    return tuple(Head(t.name, t.dtype, t.shape, memoryview(t.data).nbytes) for t in tensors)


def payload_bytes(message: Request | Reply) -> int:
    """Return how many bytes of tensors belong to ``message``. Raises ``ValueError`` when that cannot be."""
    sizes = [head.size for head in all_heads(message)]
    if min(sizes, default=0) < 0 or sum(sizes) > MAX_FRAME_BYTES:
        raise ValueError(f"expected tensors of at most {MAX_FRAME_BYTES} bytes, got {sum(sizes)}")
    return sum(sizes)


def all_heads(message: Request | Reply) -> tuple[Head, ...]:
    """Return the heads of all tensors that belong to ``message``, in the order of their bytes."""
    if isinstance(message, Compare):
        return message.heads + message.expected
    return message.heads if isinstance(message, Infer | Answer) else ()


def attach(heads: Sequence[Head], payload: Buffer) -> tuple[Tensor, ...]:
    """Return the tensors of which ``payload`` has the bytes, without copying them."""
    tensors, start, view = [], 0, memoryview(payload)
    for head in heads:
        tensors.append(Tensor(head.name, head.dtype, head.shape, view[start : start + head.size]))
        start += head.size
    return tuple(tensors)
