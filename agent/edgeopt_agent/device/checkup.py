"""What a check of the doctor found. Pure.

Example::

    fail("identity", "the private key is readable by others", "chmod 600 /var/lib/edgeopt/device-….key")
    worst([…])                                   # Verdict.FAIL
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum

__all__ = ["Finding", "Verdict", "describe", "fail", "good", "warn", "worst"]


class Verdict(StrEnum):
    """How it is."""

    GOOD = "good"
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True, slots=True)
class Finding:
    """One check: what was looked at, how it is, what was seen, and what to do about it."""

    check: str
    verdict: Verdict
    seen: str
    advice: str = ""


def good(check: str, seen: str) -> Finding:
    """Return that all is well."""
    return Finding(check, Verdict.GOOD, seen)


def warn(check: str, seen: str, advice: str) -> Finding:
    """Return what may become a fault, or is none for certain."""
    return Finding(check, Verdict.WARN, seen, advice)


def fail(check: str, seen: str, advice: str) -> Finding:
    """Return a fault."""
    return Finding(check, Verdict.FAIL, seen, advice)


def worst(findings: Iterable[Finding]) -> Verdict:
    """Return the worst verdict."""
    order = list(Verdict)
    return max((finding.verdict for finding in findings), key=order.index, default=Verdict.GOOD)


def describe(findings: Sequence[Finding]) -> str:
    """Return the findings as lines, each followed by what to do."""
    lines = []
    for finding in findings:
        lines.append(f"{finding.verdict:<4}  {finding.check:<12} {finding.seen}")
        if finding.advice:
            lines.append(f"{'':19}-> {finding.advice}")
    return "\n".join(lines)
