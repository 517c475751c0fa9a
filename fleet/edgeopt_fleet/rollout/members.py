"""One device of a rollout: what it was offered, what it said, and what it should run.

Pure. Everything here is about one device; :mod:`edgeopt_fleet.rollout.record` is about the whole. Rules:

- Only a device that runs the bundle is a success, whatever it calls itself (hawkbit#3185).
- The newest report of the job counts: a late success is a success, a fallback after confirming is a failure.
- A failed or timed-out update is offered again as often as the rollout says, under a new job; only the last one is a
  failure (boto3#4656). A rejected or rolled-back one is not tried again: the device has said no, or was disturbed.
- A device's time runs from its first report on a job to its end, but not while it waits for its window. One that
  says nothing has no time running: it is late for its wave, not failed.
- A device that does not get back is asked four times; then a person must look.
- What another rollout has taken is not offered anything, not sent back and not waited for.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum

from edgeopt_contract.messages import DeviceState, Result
from edgeopt_contract.windows import Window
from edgeopt_fleet.gate import Outcome
from edgeopt_fleet.rollout.thresholds import Failure

__all__ = [
    "Count",
    "Member",
    "Sighting",
    "Terms",
    "Wanted",
    "counts_of",
    "give_up_to_another",
    "inherit",
    "observe",
    "offer",
    "time_out",
    "withdraw",
]

_LAST_RETURN = 4
_FINAL_STATES = {DeviceState.CONFIRMED, DeviceState.FAILED, DeviceState.ROLLED_BACK, DeviceState.REJECTED}
_FAILURES = {DeviceState.REJECTED: Failure.REJECTED, DeviceState.ROLLED_BACK: Failure.ROLLED_BACK}
_TRIED_AGAIN = {Failure.FAILED, Failure.TIMED_OUT}


class Count(StrEnum):
    """What a rollout counts its members as; a member may be several of them."""

    MEMBERS = "members"  # but for those that another rollout took before they ended
    TAKEN = "taken"
    TO_OFFER = "to_offer"  # not offered yet, or to be offered again
    NOTIFIED = "notified"
    PENDING = "pending"  # under way and online
    HELD = "held"  # has everything and waits for the time at which it may switch
    ABSENT = "absent"  # under way and offline
    CONFIRMED = "confirmed"
    FAILED = "failed"
    REJECTED = "rejected"
    TIMED_OUT = "timed_out"
    ROLLED_BACK = "rolled_back"
    RETURNING = "returning"  # on the way back and online
    RETURNED = "returned"
    OPEN = "open"  # something may still come of it


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """One device of a rollout.

    ``attempt`` numbers the jobs that it was given (0: none); ``tries`` counts those of the present direction, there
    or back (``withdrawn``). ``again``: the update failed and is to be offered once more. ``deadline``: when it is too
    late (seconds since 1970).
    """

    device: str
    wave: int
    place: int
    bundle: str  # what the rollout brings it
    arm: str = ""  # of two that are compared, see edgeopt_fleet.rollout.arms
    previous: str | None = None
    distrusted: str | None = None  # it may run this, but no rollout found it good: nothing to go back to
    attempt: int = 0
    tries: int = 0
    again: bool = False
    withdrawn: bool = False
    taken: bool = False
    state: DeviceState | None = None  # of the job it was given last
    outcome: Outcome | None = None  # of the update itself
    kind: Failure | None = None  # how it failed
    returned: bool = False
    result: Result | None = None
    detail: str = ""
    failure: str = ""  # why the update failed here; stays when the device is sent back
    running: str | None = None
    online: bool = False
    deadline: float | None = None

    @property
    def exposed(self) -> bool:
        """Whether this device was ever offered the bundle."""
        return self.attempt > 0

    @property
    def to_offer(self) -> bool:
        """Whether this device waits for its turn."""
        return not self.taken and not self.withdrawn and (self.attempt == 0 or self.again)

    @property
    def open(self) -> bool:
        """Whether something may still come of this device."""
        if not self.exposed or self.taken:
            return False
        if self.withdrawn:
            gave_up = self.tries >= _LAST_RETURN and self.state in _FINAL_STATES
            return not (self.returned or self.previous is None or gave_up)
        return self.outcome is None


@dataclass(frozen=True, slots=True, kw_only=True)
class Sighting:
    """What the fleet knows of one device now; ``job`` and what follows are of its newest report."""

    online: bool
    running: str | None
    job: str | None = None
    state: DeviceState | None = None
    result: Result | None = None
    detail: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """What a member's rollout says at this moment: its name, whether it may try again, and how long devices have."""

    rollout: str
    retries: int = 0
    device_timeout_seconds: float | None = None
    timed: bool = False  # devices wait for a window, or for a time
    may_try_again: bool = True

    def job_of(self, member: Member) -> str:
        """Return the id of the job that ``member`` was given last: the same however often it is published."""
        return f"{self.rollout}.{member.attempt}.{member.device}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What one device should run; ``bundle`` is None when it may keep what it runs.

    It switches not before ``not_before`` (seconds since 1970) and inside ``window`` only, where those are given.
    """

    job: str
    bundle: str | None
    not_before: int | None = None
    window: Window | None = None


def counts_of(member: Member) -> tuple[Count, ...]:
    """Return what ``member`` counts as."""
    if member.taken and member.outcome is None:
        return (Count.TAKEN, Count.NOTIFIED) if member.exposed else (Count.TAKEN,)
    counts = [Count.MEMBERS]
    if member.to_offer:
        counts.append(Count.TO_OFFER)
    if member.exposed:
        counts.append(Count.NOTIFIED)
    if member.outcome is Outcome.CONFIRMED:
        counts.append(Count.CONFIRMED)
    elif member.outcome is not None:
        counts.append(Count(member.kind or Failure.FAILED))
    if member.returned:
        counts.append(Count.RETURNED)
    if not member.open:
        return tuple(counts)
    counts.append(Count.OPEN)
    if member.withdrawn:
        counts += [Count.RETURNING] if member.online else []
    elif not member.again:
        counts.append(_progress(member))
    return tuple(counts)


def _progress(member: Member) -> Count:
    if not member.online:
        return Count.ABSENT
    return Count.HELD if member.state is DeviceState.STAGED else Count.PENDING


def offer(member: Member, seen: Sighting) -> Member:
    """Return ``member`` with a new job for the bundle; what it runs now is what it would go back to."""
    previous = member.previous
    if member.attempt == 0 and seen.running is not None and seen.running != member.distrusted:
        previous = seen.running
    return replace(
        member,
        attempt=member.attempt + 1,
        tries=member.tries + 1,
        again=False,
        previous=previous,
        running=seen.running,
        online=seen.online,
        state=None,
        result=None,
        detail="",
        deadline=None,
    )


def give_up_to_another(member: Member) -> Member:
    """Return ``member`` as taken by another rollout: this one neither offers, sends back nor waits any more."""
    return replace(member, taken=True, again=False, deadline=None)


def inherit(member: Member, other: Member) -> Member:
    """Return ``member``, which takes its device from ``other`` of another rollout, with something to go back to.

    A bundle that the other rollout had not found good on this device is nothing to go back to.
    """
    if not other.exposed or other.withdrawn or other.outcome is Outcome.CONFIRMED:
        return member
    return replace(member, distrusted=other.bundle, previous=other.previous)


def withdraw(member: Member, *, keep_confirmed: bool) -> Member:
    """Return ``member`` on its way back, if it was offered anything and is not one to be kept."""
    kept = keep_confirmed and member.outcome is Outcome.CONFIRMED
    if not member.exposed or member.withdrawn or member.taken or kept:
        return member
    return replace(
        member,
        attempt=member.attempt + 1,
        tries=1,
        withdrawn=True,
        again=False,
        state=None,
        result=None,
        detail="",
        deadline=None,
    )


def observe(member: Member, seen: Sighting, terms: Terms, now: float) -> Member:
    """Return ``member`` with what its device said last. Seeing the same again changes nothing.

    A report counts only for the job that the device was given last.
    """
    if not member.exposed or member.taken:
        return member
    member = replace(member, online=seen.online, running=seen.running)
    if seen.job is None or member.again or seen.job != terms.job_of(member):
        return member
    before = member.state
    member = replace(member, state=seen.state, result=seen.result, detail=seen.detail)
    if seen.state in _FINAL_STATES:
        return _came_back(member) if member.withdrawn else _ended(member, terms)
    if member.withdrawn or member.outcome is not None:
        return member
    waits = terms.timed and seen.state is DeviceState.STAGED
    if waits or terms.device_timeout_seconds is None:
        return replace(member, deadline=None)
    if member.deadline is None or (terms.timed and before is DeviceState.STAGED):
        return replace(member, deadline=now + terms.device_timeout_seconds)
    return member


def time_out(member: Member, terms: Terms, now: float) -> Member:
    """Return ``member`` as failed if its time is over: what it reports later still counts."""
    if member.deadline is None or now < member.deadline or member.withdrawn or member.taken:
        return member
    words = f"no end within {terms.device_timeout_seconds or 0:.0f} s, last heard of as {member.state}"
    return _failed(replace(member, detail=words), Failure.TIMED_OUT, words, terms)


def _ended(member: Member, terms: Terms) -> Member:
    """Only a device that runs the rollout's bundle is a success, whatever it calls itself (hawkbit#3185)."""
    assert member.state is not None  # a final one
    if member.state is not DeviceState.CONFIRMED:
        kind = _FAILURES.get(member.state, Failure.FAILED)
        return _failed(member, kind, member.detail or str(member.state), terms)
    if member.running == member.bundle:
        return replace(member, outcome=Outcome.CONFIRMED, kind=None, deadline=None)
    runs = member.running[:12] if member.running else "nothing"
    detail = f"reported confirmed, but runs {runs}"
    return _failed(replace(member, detail=detail), Failure.FAILED, detail, terms)


def _failed(member: Member, kind: Failure, words: str, terms: Terms) -> Member:
    """Note the failure, or that the update is to be tried again: then it has no outcome."""
    failure = member.failure or words
    untried = member.outcome is None and kind in _TRIED_AGAIN and member.tries <= terms.retries
    if untried and terms.may_try_again:
        return replace(member, again=True, failure=failure, deadline=None)
    return replace(member, outcome=Outcome.FAILED, kind=kind, failure=failure, deadline=None)


def _came_back(member: Member) -> Member:
    """Return ``member`` as returned if it runs what it should; else asked once more, but not for ever."""
    if member.returned:
        return member
    if member.previous is None or member.running == member.previous:
        return replace(member, returned=True)
    if member.tries >= _LAST_RETURN:
        return member
    return replace(member, attempt=member.attempt + 1, tries=member.tries + 1, state=None, result=None)
