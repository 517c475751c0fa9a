"""What the agent asks the trust child and what it answers: one message each way, over its pipes.

Pure records and their encoding. Example::

    question = Question(bundle=digest, running=None, root=root, directory="/var/lib/edgeopt/trust", …)
    answer = decode_answer(output)
    answer.outcome, answer.reason                  # Outcome.WAITING, 'the timestamp expired on …'
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TypeVar

import msgspec

from edgeopt_agent.trust.floor import Reading
from edgeopt_contract.errors import MessageError
from edgeopt_contract.tuf import BundleTarget, TufMetadata

__all__ = [
    "MAX_ANSWER_BYTES",
    "MAX_QUESTION_BYTES",
    "WORK",
    "Answer",
    "Outcome",
    "Question",
    "decode_answer",
    "decode_question",
    "encode_answer",
    "encode_question",
]

_R = TypeVar("_R")
MAX_QUESTION_BYTES = TufMetadata.MAX_BYTES + 64 * 1024  # the message, the root of the enrolment and a few names
MAX_ANSWER_BYTES = 64 * 1024
WORK = "work"  # where a check unpacks, below the directory of trust


class Outcome(StrEnum):
    """What may be done with a bundle."""

    TRUSTED = "trusted"
    WAITING = "waiting"  # not with these metadata at this time; newer ones may change that
    REFUSED = "refused"  # never, as far as the targets keys are concerned
    FAILED = "failed"  # it could not be found out: the disk


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """Asks whether ``bundle`` may be installed on a device that runs ``running``, or ``beside`` it, to answer nobody.

    ``metadata`` is the payload of the ``tuf`` topic as it came, empty when none came; ``root`` the trusted root of
    the enrolment; ``directory`` where the child keeps what it verified.
    """

    bundle: str
    running: str | None
    root: str
    directory: str
    reading: Reading
    metadata: bytes = b""
    beside: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """``target`` is there when the bundle is trusted, ``reason`` when it is not."""

    outcome: Outcome
    reason: str = ""
    target: BundleTarget | None = None


def encode_question(question: Question) -> bytes:
    """Return ``question`` as the child reads it."""
    return msgspec.msgpack.encode(question)


def decode_question(data: bytes) -> Question:
    """Return the question in ``data``. Raises :class:`MessageError`."""
    return _decode(data, MAX_QUESTION_BYTES, Question)


def encode_answer(answer: Answer) -> bytes:
    """Return ``answer`` as the agent reads it."""
    return msgspec.msgpack.encode(answer)


def decode_answer(data: bytes) -> Answer:
    """Return the answer in ``data``. Raises :class:`MessageError`: a child that was killed answers with nothing."""
    answer = _decode(data, MAX_ANSWER_BYTES, Answer)
    if (answer.target is not None) is not (answer.outcome is Outcome.TRUSTED):
        raise MessageError("expected a target with 'trusted' and only with it; this is a fault of the trust child")
    return answer


def _decode(data: bytes, limit: int, kind: type[_R]) -> _R:
    if len(data) > limit:
        raise MessageError(f"{kind.__name__}: expected at most {limit} bytes, got {len(data)}")
    try:
        return msgspec.msgpack.decode(data, type=kind)
    except (msgspec.MsgspecError, ValueError) as error:
        raise MessageError(f"{kind.__name__}: {error}") from error
