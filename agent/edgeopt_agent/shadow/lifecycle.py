"""The life cycle of one shadow on one device. Pure: no I/O, no clock, no threads.

Rules, all of them in the table (:mod:`edgeopt_agent.shadow.transitions`) and in :func:`step`:

1. A command follows from the state that is *entered*, so resuming after a power cut is entering the saved state once
   more. Every command may be carried out twice.
2. An event that does not belong to the state, or to the job under way, changes nothing.
3. The same job offered twice does nothing. Another job supersedes one that is under way; it begins when that has
   settled, with nothing left of it.
4. A final state is reported when the device has settled in it: runner, files and blocks of the challenger are gone.
5. One job has one champion: what serves when it first ran. When another bundle serves, the job is superseded.
6. ``until`` ends it wherever it is: done if it ran, failed if it never came to that, rejected if it was never trusted.
7. A disk that refuses is tried again with growing pauses, ``TRIES`` times.
8. A shadow with which the agent was started ``MAX_STARTS`` times without a steady run has failed, for then it may be
   what takes the device down.

Example::

    trial, commands = step(Trial(), Happened(Event.OFFERED, order=order), now=1_795_300_000)
    trial.state, commands                           # OFFERED, (Command.REPORT, Command.EXAMINE)
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from edgeopt_agent.shadow.transitions import FINAL, ON_ENTER, TRANSITIONS, UNDER_WAY, Command, Event, State
from edgeopt_agent.update.lifecycle import MAX_STARTS, TRIES
from edgeopt_contract.messages import Shadow

__all__ = ["Happened", "Trial", "step"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """All that is kept across a power cut.

    ``champion`` is the digest of what served when the challenger first ran; ``pending`` an order that waits until this
    one has settled; ``starts`` counts those of the agent without a steady run since.
    """

    state: State = State.IDLE
    order: Shadow | None = None
    pending: Shadow | None = None
    champion: str = ""
    settled: bool = False
    detail: str = ""
    paused: str = ""  # why it waits
    retries: int = 0
    starts: int = 0
    at: float = 0.0  # when the state was entered, seconds since 1970

    @property
    def job(self) -> str:
        """The job under way, or the last one; empty before the first."""
        return self.order.job if self.order else ""

    @property
    def is_under_way(self) -> bool:
        """Whether the challenger has, or may come to have, a place on this device."""
        return self.state in UNDER_WAY or (self.state in FINAL and not self.settled)


@dataclass(frozen=True, slots=True, kw_only=True)
class Happened:
    """An event with its facts: ``order`` comes with OFFERED, ``champion`` with PASSED; ``job`` names a stale one."""

    event: Event
    job: str = ""
    detail: str = ""
    order: Shadow | None = None
    champion: str = ""


def step(trial: Trial, happened: Happened, now: float) -> tuple[Trial, tuple[Command, ...]]:
    """Return the next record and the commands to carry out once it is saved. ``now`` in seconds since 1970."""
    event = happened.event
    if event is Event.OFFERED:
        return _offer(trial, happened.order, now)
    if event is Event.WITHDRAWN and trial.pending:
        trial = replace(trial, pending=None)
    if (trial.state, event) not in TRANSITIONS or (happened.job and happened.job != trial.job):
        return trial, ()
    if event is Event.SETTLED:
        return _settle(trial, happened, now)
    if event is Event.RESTARTED:
        return _restart(trial, now)
    if event is Event.STEADY:
        return replace(trial, starts=0), ()
    if event in (Event.PAUSED, Event.RESUMED):
        return replace(trial, paused=happened.detail), ()
    if event is Event.DISK_REFUSED and trial.retries + 1 >= TRIES:
        happened = replace(happened, event=Event.FAULT, detail=f"tried {TRIES} times: {happened.detail}")
    return _enter(trial, happened, now)


def _offer(trial: Trial, order: Shadow | None, now: float) -> tuple[Trial, tuple[Command, ...]]:
    if order is None or order.job == trial.job:
        return (replace(trial, pending=None) if order else trial), ()
    if trial.pending and trial.pending.job == order.job and trial.is_under_way:
        return trial, ()
    if trial.state in UNDER_WAY:
        why = Happened(event=Event.OFFERED, detail=f"superseded by {order.job}")
        return _enter(replace(trial, pending=order), why, now)
    if trial.is_under_way:
        return replace(trial, pending=order), ()
    return _enter(Trial(state=trial.state, order=order), Happened(event=Event.OFFERED), now)


def _settle(trial: Trial, happened: Happened, now: float) -> tuple[Trial, tuple[Command, ...]]:
    if trial.settled:
        return trial, ()
    detail = "; ".join(part for part in (trial.detail, happened.detail) if part)
    settled = replace(trial, settled=True, detail=detail, paused="", at=now)
    return settled, (Command.REPORT, *_waiting(trial))


def _restart(trial: Trial, now: float) -> tuple[Trial, tuple[Command, ...]]:
    if not trial.is_under_way:
        return trial, _waiting(trial)
    starts = trial.starts + (trial.state in (State.SELF_TEST, State.SHADOWING))
    if starts >= MAX_STARTS and trial.state in UNDER_WAY:
        why = f"the agent was started {starts} times with it and never ran steadily"
        return _enter(trial, Happened(event=Event.FAULT, detail=why), now)
    return _enter(replace(trial, starts=starts), Happened(event=Event.RESTARTED, detail=trial.detail), now)


def _waiting(trial: Trial) -> tuple[Command, ...]:
    return (Command.TAKE_PENDING,) if trial.pending else ()


def _enter(trial: Trial, happened: Happened, now: float) -> tuple[Trial, tuple[Command, ...]]:
    state, refused = TRANSITIONS[trial.state, happened.event], happened.event is Event.DISK_REFUSED
    restarted = happened.event is Event.RESTARTED
    entered = replace(
        trial,
        state=state,
        champion=happened.champion or trial.champion,
        detail=happened.detail,
        paused="",
        retries=0 if restarted or state is State.SELF_TEST else trial.retries + refused,
        at=trial.at if restarted and state is trial.state else now,
    )
    report = (Command.REPORT,) if (state is not trial.state or refused) and state not in FINAL else ()
    command = ON_ENTER[state]
    return entered, (*report, *((command,) if command else ()))
