"""Answers one question in the trust child: verify, remember, then say.

Example::

    answer = answer_question(question)            # Answer(outcome=Outcome.TRUSTED, target=…)
"""

from __future__ import annotations

import datetime as dt
from dataclasses import replace
from pathlib import Path

from tuf.api.exceptions import (
    BadVersionNumberError,
    DownloadError,
    DownloadHTTPError,
    DownloadLengthMismatchError,
    ExpiredMetadataError,
    LengthOrHashMismatchError,
    RepositoryError,
    UnsignedMetadataError,
)

from edgeopt_agent.trust.floor import Floor, raised, time_at_least
from edgeopt_agent.trust.judgement import refusal
from edgeopt_agent.trust.metadata import Client, offered_files
from edgeopt_agent.trust.question import WORK, Answer, Outcome, Question
from edgeopt_agent.trust.state import State, load_state, only_one, remember, save_state, signed_about
from edgeopt_contract.codec import decode
from edgeopt_contract.errors import MessageError, SignatureError, StorageError
from edgeopt_contract.tuf import TufMetadata

__all__ = ["answer_question"]

_FLOOR_STEP_SECONDS = 600.0

_KINDS: tuple[tuple[type[Exception], str], ...] = (
    (ExpiredMetadataError, "expired"),
    (UnsignedMetadataError, "not signed by enough of the fleet's keys"),
    (BadVersionNumberError, "of an older or another version than this device has verified"),
    (LengthOrHashMismatchError, "not what the metadata above them describe"),
    (DownloadLengthMismatchError, "longer than this device takes"),
    (DownloadHTTPError, "incomplete"),
)


def answer_question(question: Question) -> Answer:
    """Answer ``question``; what was verified on the way is on the disk when this returns."""
    directory = Path(question.directory)
    try:
        with only_one(directory):
            state = load_state(directory, question.root)
            answer, kept = _examine(question, state, directory / WORK)
            if _worth_keeping(state, kept):
                save_state(directory, kept)
            return answer
    except StorageError as error:
        return Answer(outcome=Outcome.FAILED, reason=str(error))
    except OSError as error:  # inside python-tuf
        return Answer(outcome=Outcome.FAILED, reason=f"cannot write {directory}: {error.strerror or error}")


def _examine(question: Question, state: State, work: Path) -> tuple[Answer, State]:
    try:
        offered = _offered(question, state)
    except MessageError as error:
        return _waiting(f"the fleet's metadata are refused: {error}"), state
    now = time_at_least(state.floor, question.reading)
    with Client(work, state.files, offered, now) as client:
        try:
            client.refresh()
        except (RepositoryError, DownloadError) as error:
            kept = replace(state, files=client.files())
            if isinstance(error, ExpiredMetadataError) and _floor_is_void(state.floor, client):
                return _examine(question, replace(kept, floor=Floor(keys=client.timestamp_keys())), work)
            return _waiting(_reason(error, now)), kept
        floor = Floor() if _floor_is_void(state.floor, client) else state.floor
        floor = raised(floor, question.reading, client.stated_time(), client.timestamp_keys())
        kept = replace(state, files=client.files(), floor=floor)
        try:
            return _judge(question, kept, client)
        except SignatureError as error:
            return Answer(outcome=Outcome.REFUSED, reason=str(error)), kept


def _offered(question: Question, state: State) -> dict[str, bytes]:
    """Return what the broker brought, or what this device has verified before when nothing came."""
    if question.metadata:
        return offered_files(decode(TufMetadata, question.metadata))
    if len(state.files) == 1:
        raise MessageError("none have come yet")
    return {name: text.encode() for name, text in state.files.items() if name != "root.json"}


def _floor_is_void(floor: Floor, client: Client) -> bool:
    """Say whether the keys that stated the floor are not the fleet's any more: then their word is void."""
    return bool(floor.keys) and floor.keys != client.timestamp_keys()


def _judge(question: Question, state: State, client: Client) -> tuple[Answer, State]:
    running = None
    if question.running is not None:
        running = client.target(question.running) or signed_about(state, question.running)
    state = replace(state, running=running or state.running)
    wanted = client.target(question.bundle)
    if wanted is None:
        text = f"bundle {question.bundle[:12]} is not among the signed targets; publish and sign it: edgeopt sign"
        return _waiting(text), state
    if question.beside:  # it takes no place, so there is no downgrade
        return Answer(outcome=Outcome.TRUSTED, target=wanted), state
    reason = refusal(wanted, state.running)
    if reason is not None:
        return Answer(outcome=Outcome.REFUSED, reason=reason), state
    return Answer(outcome=Outcome.TRUSTED, target=wanted), remember(state, wanted)


def _worth_keeping(before: State, after: State) -> bool:
    """Say whether to wear the flash: once a boot, but not for the mere passing of a little time."""
    step = abs(after.floor.at - before.floor.at) > _FLOOR_STEP_SECONDS
    return step or after.floor.boot != before.floor.boot or replace(after, floor=before.floor) != before


def _waiting(reason: str) -> Answer:
    return Answer(outcome=Outcome.WAITING, reason=reason)


def _reason(error: Exception, now: float) -> str:
    """Return why the metadata are refused, with the time that was used: a wrong clock looks like old metadata."""
    kind = next((text for known, text in _KINDS if isinstance(error, known)), "not valid")
    text = f"the fleet's metadata are refused: {kind} ({error})"
    if isinstance(error, ExpiredMetadataError):
        day = dt.datetime.fromtimestamp(now, dt.UTC).strftime("%Y-%m-%d")
        text += f"; it is {day} for this device: is its clock right, and does the fleet server run?"
    return text
