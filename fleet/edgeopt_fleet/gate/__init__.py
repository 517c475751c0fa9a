"""The gate of a wave: what it is told, how it compares, what it answers. Pure: no I/O, no clock, no randomness.

:func:`judge` is the whole of it; its rules stand in :mod:`edgeopt_fleet.gate.judging`, formulas and figures in
docs/guides/gate.md. Example::

    verdict = judge(evidence, Policy(minimum_rows=200))
    verdict.decision, verdict.reasons[0].text
"""

from edgeopt_fleet.gate.evidence import Devices, Evidence, Look, Outcome, Tally, Wave, decode, encode, no_devices
from edgeopt_fleet.gate.findings import Finding, Standing
from edgeopt_fleet.gate.judging import judge
from edgeopt_fleet.gate.policy import COMPARED, METRICS, Margins, Metric, Policy
from edgeopt_fleet.gate.verdict import Criterion, Decision, Reason, Verdict, canonical, together

__all__ = [
    "COMPARED",
    "METRICS",
    "Criterion",
    "Decision",
    "Devices",
    "Evidence",
    "Finding",
    "Look",
    "Margins",
    "Metric",
    "Outcome",
    "Policy",
    "Reason",
    "Standing",
    "Tally",
    "Verdict",
    "Wave",
    "canonical",
    "decode",
    "encode",
    "judge",
    "no_devices",
    "together",
]
