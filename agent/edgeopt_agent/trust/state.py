"""What the trust child keeps between its runs: one file, replaced as a whole.

The metadata that were verified (they are the floor of every version), the time floor, and what was signed about the
bundles that this device accepted. Losing it would let old metadata in again, so it is written durably before the child
answers. Example::

    with only_one(directory):
        state = load_state(directory, root)
        save_state(directory, replace(state, floor=…))
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import msgspec

from edgeopt_agent.trust.floor import Floor
from edgeopt_contract.storage import storage_errors, write_atomically
from edgeopt_contract.tuf import BundleTarget
from edgeopt_contract.values import digest_of

__all__ = ["State", "load_state", "only_one", "remember", "save_state", "signed_about"]

_FILE, _LOCK = "state.json", "lock"
_VERSION = 1
_REMEMBERED = 8
_PRIVATE = 0o600


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """``anchor`` is the SHA-256 of the enrolment's root, for another enrolment starts anew; ``files`` are metadata."""

    version: int = _VERSION
    anchor: str
    files: dict[str, str] = field(default_factory=dict)
    floor: Floor = field(default_factory=Floor)
    accepted: tuple[BundleTarget, ...] = ()
    running: BundleTarget | None = None


@contextlib.contextmanager
def only_one(directory: Path) -> Iterator[None]:
    """Let one child at a time into ``directory``; one that an agent left behind when it was killed is waited for."""
    with storage_errors(directory):
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(directory / _LOCK, os.O_RDWR | os.O_CREAT, _PRIVATE)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def load_state(directory: Path, root: str) -> State:
    """Return what is kept under the enrolment's ``root``; what cannot be read counts as lost.

    Raises :class:`StorageError` when the disk fails: a floor that is there must not be forgotten for that.
    """
    fresh = State(anchor=digest_of(root.encode()), files={"root.json": root})
    path = directory / _FILE
    with storage_errors(path):
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            return fresh
    try:
        state = msgspec.json.decode(data, type=State)
    except (msgspec.MsgspecError, ValueError):
        return fresh
    return state if (state.version, state.anchor) == (_VERSION, fresh.anchor) else fresh


def save_state(directory: Path, state: State) -> None:
    """Write ``state`` durably. Raises :class:`StorageError`; then the old one stands."""
    write_atomically(directory / _FILE, msgspec.json.encode(state, order="sorted"), _PRIVATE)


def signed_about(state: State, digest: str) -> BundleTarget | None:
    """Return what was signed about a bundle that this device accepted earlier, if it is remembered."""
    known = (*state.accepted, *((state.running,) if state.running else ()))
    return next((target for target in known if target.digest == digest), None)


def remember(state: State, target: BundleTarget) -> State:
    """Return ``state`` with ``target`` among the accepted bundles, newest last."""
    others = tuple(known for known in state.accepted if known.digest != target.digest)
    return replace(state, accepted=(*others, target)[-_REMEMBERED:])
