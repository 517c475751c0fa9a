"""Judging again what was judged before, from its stored bytes: the same, byte for byte, or under another policy.

Pure. Example::

    replay(stored)                                           # Replayed(same=True, …)
    replay_arms(stored)                                      # Compared(same=True, …)
    changed_policy(stored.policy, {"max_latency_increase": "0.02"})
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import msgspec

from edgeopt_fleet.gate.arms import ArmsEvidence, ArmsVerdict, canonical_arms, compare_arms, decode_arms
from edgeopt_fleet.gate.evidence import Look, decode
from edgeopt_fleet.gate.judging import judge
from edgeopt_fleet.gate.policy import Margins, Policy
from edgeopt_fleet.gate.verdict import Verdict, canonical

__all__ = ["Compared", "Replayed", "StoredLook", "changed_policy", "replay", "replay_arms", "what_if"]


@dataclass(frozen=True, slots=True)
class StoredLook:
    """One look as it was stored: when (seconds since 1970), by which rules (``code``), told what, and what it said.

    ``arm`` is the one that was looked at, if there are two.
    """

    at: float
    wave: int
    arm: str
    code: str
    policy: bytes
    evidence: bytes
    verdict: bytes


@dataclass(frozen=True, slots=True)
class Replayed:
    """One look judged again; ``same`` says whether that gives the stored verdict, byte for byte."""

    stored: StoredLook
    verdict: Verdict
    same: bool


@dataclass(frozen=True, slots=True)
class Compared:
    """One comparison of two arms made again; ``same`` as in :class:`Replayed`."""

    stored: StoredLook
    evidence: ArmsEvidence
    verdict: ArmsVerdict
    same: bool


def replay_arms(stored: StoredLook) -> Compared:
    """Compare two arms again. Raises :class:`~edgeopt_contract.errors.MessageError` for what cannot be read."""
    evidence = decode_arms(stored.evidence)
    verdict = compare_arms(evidence, msgspec.json.decode(stored.policy, type=Margins))
    return Compared(stored, evidence, verdict, canonical_arms(verdict) == stored.verdict)


def replay(stored: StoredLook) -> Replayed:
    """Judge one look again. Raises :class:`~edgeopt_contract.errors.MessageError` for evidence that cannot be read."""
    verdict = judge(decode(stored.evidence), changed_policy(stored.policy, {}))
    return Replayed(stored, verdict, canonical(verdict) == stored.verdict)


def what_if(looks: Sequence[StoredLook], changes: Mapping[str, str]) -> list[Replayed]:
    """Judge looks, oldest first, under a changed policy; what earlier ones of a wave came to changes with it."""
    history: dict[tuple[int, str], tuple[Look, ...]] = {}
    found = []
    for stored in looks:
        subject = stored.wave, stored.arm
        past = history.get(subject, ())
        told = replace(decode(stored.evidence), history=past)
        verdict = judge(told, changed_policy(stored.policy, changes))
        if verdict.look is not None:
            history[subject] = (*past, verdict.look)
        found.append(Replayed(stored, verdict, canonical(verdict) == stored.verdict))
    return found


def changed_policy(stored: bytes, changes: Mapping[str, str]) -> Policy:
    """Return the stored policy with ``changes`` (names to values as text). Raises ``ValueError`` for what cannot be."""
    values = msgspec.json.decode(stored)
    for name, text in changes.items():
        if name not in values:
            raise ValueError(f"expected a field of the policy such as {', '.join(sorted(values)[:5])}, got {name!r}")
        values[name] = [part for part in text.split(",") if part] if name == "dry_run" else text
    try:
        return msgspec.convert(values, Policy, strict=not changes)
    except msgspec.ValidationError as error:
        raise ValueError(str(error)) from error
