"""Every message between the fleet and a device. What they say at enrolment is in :mod:`edgeopt_contract.enrolment`.

Encode and decode them with :mod:`edgeopt_contract.codec`. Times are whole seconds since 1970 (UTC), as the
sender's clock has them. Reports and telemetry carry ``(session, number)``: the session names one incarnation of
the device's spool, the number counts 1, 2, 3 … over both kinds of message; the fleet stores each pair once and
acknowledges only what it has committed.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, ClassVar

from edgeopt_contract.manifest import Capabilities
from edgeopt_contract.values import check_device_id, check_digest
from edgeopt_contract.windows import Window

__all__ = [
    "Ack",
    "Desired",
    "DeviceState",
    "Reported",
    "Result",
    "Shadow",
    "Status",
    "Telemetry",
]

_KIB = 1024
_LONGEST_RECONNECT_WINDOW_SECONDS = 3600.0


class DeviceState(StrEnum):
    """How far an update has come on a device (``edgeopt_agent.update.transitions``), or a shadow."""

    IDLE = "idle"
    OFFERED = "offered"
    DOWNLOADING = "downloading"
    VERIFYING = "verifying"
    STAGED = "staged"
    SELF_TEST = "self_test"
    ACTIVATING = "activating"
    BAKING = "baking"
    CONFIRMED = "confirmed"
    FAILED = "failed"
    ROLLED_BACK = "rolled_back"
    SUPERSEDED = "superseded"
    REJECTED = "rejected"
    SHADOWING = "shadowing"  # of a shadow: the challenger runs beside what serves
    DONE = "done"  # of a shadow: it ran to its end


class Result(StrEnum):
    """How an update ended, in terms of what the device runs now."""

    RUNS_NEW = "runs_new"  # confirmed: the offered bundle serves
    RUNS_OLD_UNTOUCHED = "runs_old_untouched"  # ended before the switch
    RUNS_OLD_RESTORED = "runs_old_restored"  # switched, then switched back
    RUNS_NOTHING = "runs_nothing"  # there was nothing to go back to


@dataclass(frozen=True, slots=True, kw_only=True)
class Desired:
    """Fleet to device, retained: run this bundle. A new ``job`` is a new attempt, even for the same bundle.

    Nothing in it is signed: whether a device may run the bundle is said by the metadata on the topic ``tuf``. A device
    downloads at any time and switches not before ``not_before``, inside ``window`` only; what has not
    switched by ``deadline`` has failed.
    """

    SCHEMA: ClassVar[int] = 2
    MAX_BYTES: ClassVar[int] = 16 * _KIB

    job: str
    bundle: str
    bake_seconds: float
    deadline: int | None = None
    not_before: int | None = None
    window: Window | None = None
    extra: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_digest(self.bundle)
        if not 0 < len(self.job) <= 128:
            raise ValueError("expected a job of 1-128 characters")
        if not 0 <= self.bake_seconds <= 30 * 86400:
            raise ValueError(f"expected bake_seconds from 0 to 30 days, got {self.bake_seconds}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Shadow:
    """Fleet to device, retained: run ``bundle`` beside what serves until then, and count how well they agree.

    It never answers anybody. ``share`` of the requests that were answered is run by it, too; ``until`` (seconds since
    1970) must be said, for a shadow that everybody forgot must end. Trust is as for :class:`Desired`.
    """

    SCHEMA: ClassVar[int] = 1
    MAX_BYTES: ClassVar[int] = 16 * _KIB

    job: str
    bundle: str
    share: float
    until: int
    extra: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_digest(self.bundle)
        if not 0 < len(self.job) <= 128:
            raise ValueError("expected a job of 1-128 characters")
        if not 0 < self.share <= 1:
            raise ValueError(f"expected a share above 0, at most 1, got {self.share}")
        if self.until < 1:
            raise ValueError(f"expected until in seconds since 1970, got {self.until}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Reported:
    """Device to fleet: a state was entered. ``result`` is set in final states; ``running`` is what serves now.

    ``extra["shadow"]`` is true when it is about a :class:`Shadow` and not about a :class:`Desired`.
    """

    SCHEMA: ClassVar[int] = 1
    MAX_BYTES: ClassVar[int] = 16 * _KIB

    session: int
    number: int
    at: int
    job: str
    bundle: str
    state: DeviceState
    running: str | None
    result: Result | None = None
    detail: str = ""
    extra: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _check_number(self.session, self.number)
        check_digest(self.bundle)
        if self.running is not None:
            check_digest(self.running)


@dataclass(frozen=True, slots=True, kw_only=True)
class Telemetry:
    """Device to fleet: one profile window of one bundle.

    ``cells`` maps a feature's name to its counts (see :mod:`edgeopt_contract.profile`), ``latency`` counts
    inferences by :data:`~edgeopt_contract.profile.LATENCY_EDGES_US`, ``infrastructure`` holds gauges such as
    ``memory_bytes`` and ``temperature_celsius``. ``rows`` are inferences that answered, ``errors`` those that did not.
    ``extra["shadow"]`` is the job of the :class:`Shadow` that counted it: then ``bundle`` served nobody, and the cells
    of :mod:`edgeopt_contract.agreement` stand beside those of its profile.
    """

    SCHEMA: ClassVar[int] = 1
    MAX_BYTES: ClassVar[int] = 64 * _KIB

    session: int
    number: int
    bundle: str
    variant: str
    start: int
    end: int
    rows: int
    errors: int
    cells: dict[str, tuple[int, ...]]
    latency: tuple[int, ...]
    infrastructure: dict[str, float] = field(default_factory=dict)
    extra: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _check_number(self.session, self.number)
        check_digest(self.bundle)
        counts = ((self.rows, self.errors), self.latency, *self.cells.values())
        if min(min(part, default=0) for part in counts) < 0:
            raise ValueError("expected counts of zero or more")
        if self.end < self.start:
            raise ValueError("expected a window that ends after it starts")


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """Device to fleet, retained: birth (``online``) and, as the will, death. ``boot`` counts agent starts.

    ``machine`` says in words what the device is: ``model``, ``kernel``, ``system``, ``python``, as far as it knows.
    """

    SCHEMA: ClassVar[int] = 1
    MAX_BYTES: ClassVar[int] = 16 * _KIB

    device: str
    boot: int
    online: bool
    agent_version: str
    running: str | None
    capabilities: Capabilities
    machine: dict[str, str] = field(default_factory=dict)
    extra: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_device_id(self.device)
        if self.running is not None:
            check_digest(self.running)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ack:
    """Fleet to device: of ``session``, all numbers up to ``upto`` and those in ``beyond`` are committed.

    ``reconnect_window_seconds`` is from what window a first reconnect is drawn from now on: the fleet has grown or
    shrunk since the device was told at its enrolment. ``None``: as before.
    """

    SCHEMA: ClassVar[int] = 1
    MAX_BYTES: ClassVar[int] = 64 * _KIB

    session: int
    upto: int
    beyond: tuple[int, ...] = ()
    reconnect_window_seconds: float | None = None
    extra: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.session < 1 or self.upto < 0 or min(self.beyond, default=1) < 1:
            raise ValueError("expected a session from 1 on, upto from 0 on and numbers beyond from 1 on")
        window = self.reconnect_window_seconds
        if window is not None and not 0 < window <= _LONGEST_RECONNECT_WINDOW_SECONDS:
            raise ValueError(f"expected reconnect_window_seconds above 0, at most an hour, got {window}")

    def covers(self, number: int) -> bool:
        """Say whether ``number`` of this session is committed."""
        return number <= self.upto or number in self.beyond


def _check_number(session: int, number: int) -> None:
    if session < 1 or number < 1:
        raise ValueError(f"expected a session and a number from 1 on, got {session} and {number}")
