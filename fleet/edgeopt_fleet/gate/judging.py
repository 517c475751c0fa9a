"""The gate of a wave: promote, hold or roll back, from what its devices lived through.

Pure. It does not collect evidence and does not act. The rules, in this order:

1. A wave without members is promoted: there is nobody to ask.
2. More failures among *executed* devices than the policy allows, in the wave or over all waves: roll back.
3. Each metric is compared, for the wave as a whole and for each hardware class: every device against its own baseline,
   and the wave's changes against those of devices outside of it in the same time. *Surely worse* than allowed, at the
   error that this look may spend, is a failed look; more than ``failure_limit`` of them: roll back.
4. Anything missing (an online member that has not executed, fewer executed than the minimum, a confirmed device that
   has not served enough rows) holds. No data never promotes. A hold past the step timeout says so.
5. A wave that is not surely *no worse* than allowed is held: not yet known. With few devices, which can show little,
   the estimate itself must be within what is allowed, and the verdict says so.
6. ``count`` successful looks promote.

Example::

    verdict = judge(evidence, Policy(minimum_rows=200))
    verdict.decision, verdict.reasons[0].text
"""

from __future__ import annotations

import numpy as np

from edgeopt_fleet.gate.comparing import ASIDE
from edgeopt_fleet.gate.evidence import Evidence, Look, Tally
from edgeopt_fleet.gate.findings import Finding, Findings, Standing, find
from edgeopt_fleet.gate.policy import Policy
from edgeopt_fleet.gate.verdict import Criterion, Decision, Reason, Verdict
from edgeopt_fleet.gate.wording import count, names, sentence, unmeasured

__all__ = ["judge"]

_REASON_LENGTH = 200  # characters of a device's own words in a verdict


def judge(evidence: Evidence, policy: Policy) -> Verdict:
    """Judge the current wave; see the module's docstring for the rules."""
    if evidence.members == 0:
        return Verdict(Decision.PROMOTE, (Reason(Criterion.MEMBERS, "the wave has no members: nothing to wait for"),))
    failures, too_many = _judge_failures(evidence, policy)
    found = find(evidence, policy)
    missing = _missing(evidence, policy)
    look = _look(found, ready=not missing)
    number = len(evidence.history) + 1
    worse = [_reason(one) for one in found.of(Standing.WORSE)]
    condemned = look is Look.FAILED and evidence.history.count(Look.FAILED) >= policy.failure_limit
    if too_many or condemned:
        against = ([failures] if too_many else []) + (worse if condemned else [])
        return Verdict(Decision.ROLL_BACK, (*against, *_aside(found)), False, look, number, found.items)
    doubts = worse + ([] if missing else [_reason(one) for one in found.blocking])
    if look is Look.SUCCESSFUL:
        done = evidence.history.count(Look.SUCCESSFUL) + 1
        if done >= policy.count:
            reasons = _in_favour(evidence, found, failures)
            return Verdict(Decision.PROMOTE, reasons, False, look, number, found.items)
        doubts.append(Reason(Criterion.LOOKS, f"{done} of {policy.count} successful looks"))
    late = _lateness(evidence, policy, look)
    reasons = (*missing, *doubts, *([] if missing else _aside(found)), *late)
    return Verdict(Decision.HOLD, reasons, bool(late), look, number, found.items)


def _look(found: Findings, *, ready: bool) -> Look | None:
    """Say what this look came to; ``None`` when there was nothing to compare and something is missing."""
    if found.of(Standing.WORSE):
        return Look.FAILED
    if not ready:
        return Look.EARLY if found.measured else None
    return Look.INCONCLUSIVE if found.blocking else Look.SUCCESSFUL


def _lateness(evidence: Evidence, policy: Policy, look: Look | None) -> list[Reason]:
    """Say why a person must look at a wave that is held, if one must."""
    late = []
    undecided = evidence.history.count(Look.INCONCLUSIVE) + (look is Look.INCONCLUSIVE)
    if policy.inconclusive_limit is not None and undecided > policy.inconclusive_limit:
        text = f"{undecided} inconclusive looks, more than the {policy.inconclusive_limit} allowed"
        late.append(Reason(Criterion.TIMEOUT, text))
    silent = int(evidence.silent_seconds / policy.interval_seconds)
    if look is None and policy.consecutive_error_limit is not None and silent > policy.consecutive_error_limit:
        text = f"no data at {silent} looks in a row, more than the {policy.consecutive_error_limit} allowed"
        late.append(Reason(Criterion.TIMEOUT, text))
    if evidence.age_seconds > policy.step_timeout_seconds:
        age, allowed = evidence.age_seconds, policy.step_timeout_seconds
        text = f"the wave has taken {age:.0f} s, more than the {allowed:.0f} s allowed"
        late.append(Reason(Criterion.TIMEOUT, text))
    return late


def _judge_failures(evidence: Evidence, policy: Policy) -> tuple[Reason, bool]:
    """Say how many of the executed devices failed, and whether those are too many."""
    here: tuple[Tally, str] = (evidence.tally, "in this wave")
    tally, where = max((evidence.overall, "over all waves"), here, key=lambda one: (one[0].share, one[0].failed))
    text = (
        f"{tally.failed} of {tally.executed} executed devices failed {where} "
        f"({tally.share:.0%}, at most {policy.failure_threshold:.0%} allowed)"
    )
    if evidence.failures:
        words, times = evidence.failures[0]
        total = sum(n for _, n in evidence.failures)
        text += f"; most often ({times} of {total}): {words[:_REASON_LENGTH]}"
    return Reason(Criterion.FAILURES, text), tally.share > policy.failure_threshold


def _missing(evidence: Evidence, policy: Policy) -> list[Reason]:
    """Return what is not yet known of the wave. An offline device is not waited for, but proves nothing either.

    Of ten or more confirmed devices, a tenth may be silent: one camera that is covered stops no fleet.
    """
    wave, who = evidence.exposed, evidence.exposed.devices.names
    reasons = []
    executed = wave.confirmed | wave.failed
    pending = ~executed & wave.online & ~wave.waiting
    waiting = ~executed & wave.online & wave.waiting
    needed = min(policy.minimum_executed, evidence.members)
    if pending.any():
        text = f"not executed yet although online: {pending.sum()} ({names(who, pending)})"
        reasons.append(Reason(Criterion.EXECUTED, text))
    if waiting.any():
        reasons.append(Reason(Criterion.WINDOW, f"waiting for the window: {waiting.sum()} ({names(who, waiting)})"))
    if executed.sum() < needed:
        text = f"executed: {executed.sum()} of {evidence.members}, at least {needed} must"
        reasons.append(Reason(Criterion.EXECUTED, text))
    proven = wave.confirmed & (wave.rows >= policy.minimum_rows)
    behind = wave.confirmed & (wave.rows < policy.minimum_rows) & wave.online
    if behind.sum() > int(ASIDE * wave.confirmed.sum()):
        rows, least = min((int(wave.rows[place]), who[place]) for place in np.flatnonzero(behind))
        text = f"{least} has served {rows} rows on the new bundle, at least {policy.minimum_rows} are needed"
        reasons.append(Reason(Criterion.ROWS, text))
    elif proven.sum() < needed:
        text = f"proven on {policy.minimum_rows} rows of the new bundle: {proven.sum()}, at least {needed} must"
        reasons.append(Reason(Criterion.ROWS, text))
    return reasons


def _in_favour(evidence: Evidence, found: Findings, failures: Reason) -> tuple[Reason, ...]:
    rows = int(evidence.exposed.rows.sum())
    served = Reason(Criterion.ROWS, f"the wave's devices served {rows} rows on the new bundle")
    whole = [_reason(one) for one in found.items if not one.group and one.standing is not Standing.UNMEASURED]
    classes = {one.group for one in found.items if one.group}
    if classes:
        text = f"none of {count(len(classes), 'hardware class', 'es')} became worse for itself"
        whole.append(Reason(Criterion.HARDWARE, text))
    absent = [one.metric for one in found.items if not one.group and one.standing is Standing.UNMEASURED]
    if absent:
        whole.append(Reason(Criterion.UNMEASURED, unmeasured(absent)))
    return (failures, served, *whole, *_aside(found))


def _reason(finding: Finding) -> Reason:
    return Reason(Criterion(finding.metric), sentence(finding))


def _aside(found: Findings) -> list[Reason]:
    """Name the devices whose figures were set aside."""
    if not found.aside:
        return []
    text = f"set aside, too far from all others: {len(found.aside)} ({names(found.aside)})"
    return [Reason(Criterion.DEVICES, text)]
