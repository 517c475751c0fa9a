"""Judging again what was judged before, from its stored bytes: the same, byte for byte, or under another policy.

Pure. Example::

    replay(stored)                                           # Replayed(same=True, …)
    changed_policy(stored.policy, {"max_latency_increase": "0.02"})
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import msgspec

from edgeopt_fleet.gate.evidence import Look, decode
from edgeopt_fleet.gate.judging import judge
from edgeopt_fleet.gate.policy import Policy
from edgeopt_fleet.gate.verdict import Verdict, canonical

__all__ = ["Replayed", "StoredLook", "changed_policy", "replay", "what_if"]


@dataclass(frozen=True, slots=True)
class StoredLook:
    """One look as it was stored: when (seconds since 1970), by which rules (``code``), told what, and what it said."""

    at: float
    wave: int
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


def replay(stored: StoredLook) -> Replayed:
    """Judge one look again. Raises :class:`~edgeopt_contract.errors.MessageError` for evidence that cannot be read."""
    verdict = judge(decode(stored.evidence), changed_policy(stored.policy, {}))
    return Replayed(stored, verdict, canonical(verdict) == stored.verdict)


def what_if(looks: Sequence[StoredLook], changes: Mapping[str, str]) -> list[Replayed]:
    """Judge looks, oldest first, under a changed policy; what earlier ones of a wave came to changes with it."""
    history: dict[int, tuple[Look, ...]] = {}
    found = []
    for stored in looks:
        past = history.get(stored.wave, ())
        told = replace(decode(stored.evidence), history=past)
        verdict = judge(told, changed_policy(stored.policy, changes))
        if verdict.look is not None:
            history[stored.wave] = (*past, verdict.look)
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
