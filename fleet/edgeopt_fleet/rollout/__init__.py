"""The life cycle of a rollout: pure, no I/O, no clock.

:mod:`.states` has the table of every rule about where a rollout goes next, :mod:`.record` the rollout as a whole and
its ``step``, :mod:`.members` one device of it, :mod:`.waves` who comes when, :mod:`.arms` who gets which of two
bundles, :mod:`.pace` how fast, :mod:`.thresholds` when too many failed. What a device should run follows from the
saved rows alone, so resuming after a crash is publishing it again. It loads and saves nothing;
:mod:`edgeopt_fleet.store.rollouts` is the shell around it. Example::

    record, commands = step(record, Event.STARTED, now=1764000000.0)
    member = offer(member, sighting)
    wanted(record, member)            # Wanted(job='v2.1.cam-3', bundle='cd34…')
"""

from __future__ import annotations

from edgeopt_fleet.rollout.arms import ARMS, Arm, Trial, draw, draw_arms, draw_members
from edgeopt_fleet.rollout.members import (
    Count,
    Member,
    Sighting,
    Terms,
    Wanted,
    counts_of,
    give_up_to_another,
    inherit,
    observe,
    offer,
    time_out,
    withdraw,
)
from edgeopt_fleet.rollout.pace import Pace, Pacing, allowance
from edgeopt_fleet.rollout.record import (
    Execution,
    Rollout,
    allowed_offers,
    arms_of,
    at_fault,
    conclude,
    event_of,
    excuse,
    forecast_seconds,
    has_executed,
    is_look_due,
    is_settled,
    keeps_confirmed,
    look_pause,
    offered,
    overrun,
    start_event,
    step,
    terms_of,
    wanted,
)
from edgeopt_fleet.rollout.states import ACTIVE, TRANSITIONS, Command, Event, IllegalTransitionError, State
from edgeopt_fleet.rollout.tally import Tally
from edgeopt_fleet.rollout.thresholds import Failure, Threshold, too_many
from edgeopt_fleet.rollout.waves import Candidate, Place, Wave, WaveKind, assign, check_waves, rank

__all__ = [
    "ACTIVE",
    "ARMS",
    "TRANSITIONS",
    "Arm",
    "Candidate",
    "Command",
    "Count",
    "Event",
    "Execution",
    "Failure",
    "IllegalTransitionError",
    "Member",
    "Pace",
    "Pacing",
    "Place",
    "Rollout",
    "Sighting",
    "State",
    "Tally",
    "Terms",
    "Threshold",
    "Trial",
    "Wanted",
    "Wave",
    "WaveKind",
    "allowance",
    "allowed_offers",
    "arms_of",
    "assign",
    "at_fault",
    "check_waves",
    "conclude",
    "counts_of",
    "draw",
    "draw_arms",
    "draw_members",
    "event_of",
    "excuse",
    "forecast_seconds",
    "give_up_to_another",
    "has_executed",
    "inherit",
    "is_look_due",
    "is_settled",
    "keeps_confirmed",
    "look_pause",
    "observe",
    "offer",
    "offered",
    "overrun",
    "rank",
    "start_event",
    "step",
    "terms_of",
    "time_out",
    "too_many",
    "wanted",
    "withdraw",
]
