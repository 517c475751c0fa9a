"""The comparison of two arms as sentences.

Pure. Units are those of the policy. Example::

    reasons_of(result, found, evidence, margins, [])[0]     # 'B is better: it is faster (p95)'
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from edgeopt_fleet.gate.policy import Margins, Metric
from edgeopt_fleet.gate.wording import TITLES, amount, count, names

if TYPE_CHECKING:
    from edgeopt_fleet.gate.arms import ArmsEvidence, Difference, Result

__all__ = ["reasons_of"]

# How B is, when it is better and when it is worse.
_B_IS: dict[Metric, tuple[str, str]] = {
    Metric.ERRORS: ("fails less often", "fails more often"),
    Metric.LATENCY: ("is faster (p95)", "is slower (p95)"),
    Metric.MEDIAN: ("is faster (p50)", "is slower (p50)"),
    Metric.CONFIDENCE: ("is more confident", "is less confident"),
    Metric.CLASS_MIX: ("keeps the class mix better", "moves the class mix"),
    Metric.DRIFT: ("sees inputs nearer to its reference", "sees inputs further from its reference"),
    Metric.DIVERGENCE: ("is nearer to the golden outputs", "is further from the golden outputs"),
}
_ANSWERS = {
    "a_better": "A is better: B {worse}",
    "b_better": "B is better: it {better}",
    "trade_off": "a trade-off: B {better}, but {worse}",
    "alike": "no difference larger than the margins",
    "not_enough_data": "not enough data",
}


def reasons_of(
    result: Result, found: Sequence[Difference], evidence: ArmsEvidence, margins: Margins, aside: Sequence[str]
) -> tuple[str, ...]:
    """Return what the comparison came to, then why, each a sentence."""
    better = _joined([one for one in found if one.side == "b_better"], 0)
    worse = _joined([one for one in found if one.side == "a_better"], 1)
    sentences = [_ANSWERS[result].format(better=better, worse=worse)]
    for arm, devices in (("A", evidence.a), ("B", evidence.b)):
        rows = int(devices.after.sum())
        if rows < margins.minimum_rows:
            sentences.append(f"arm {arm} has served {rows} rows, at least {margins.minimum_rows} are needed")
    for arm, tally in (("A", evidence.tally_a), ("B", evidence.tally_b)):
        sentences.append(f"arm {arm}: {tally.failed} of {tally.executed} updates failed")
    sentences += [_sentence(one) for one in found if not one.group or one.side in ("a_better", "b_better")]
    sentences.append(f"all these intervals together hold with a confidence of {margins.confidence:.1%}")
    classes = sorted({one.group for one in found if one.group})
    if classes:
        sentences.append(f"also compared for each of {count(len(classes), 'hardware class', 'es')}: {names(classes)}")
    if evidence.levels:
        sentences.append("hardly any device had served before: levels are compared, not each device with its own past")
    if aside:
        sentences.append(f"set aside, too far from all others: {len(aside)} ({names(aside)})")
    return tuple(sentences)


def _joined(found: Sequence[Difference], place: int) -> str:
    """Return what B is in words, each once: of all devices first, then of classes of which alone it is sure."""
    everywhere = {one.metric for one in found if not one.group}
    words = [_B_IS[one.metric][place] for one in found if not one.group]
    words += [
        f"{_B_IS[one.metric][place]} in hardware class {one.group}"
        for one in found
        if one.group and one.metric not in everywhere
    ]
    return " and ".join(words)


def _sentence(one: Difference) -> str:
    where = f" in hardware class {one.group}" if one.group else ""
    title = f"{'fall of confidence' if one.metric is Metric.CONFIDENCE else TITLES[one.metric]}{where}"
    if one.side == "unmeasured":
        return f"{title}: not measured on both arms"
    low, high = (amount(one.metric, bound, signed=True) for bound in (one.lower, one.upper))
    figures = (
        f"{title}: B - A is {amount(one.metric, one.estimate, signed=True)}, between {low} and {high} "
        f"(margin {amount(one.metric, one.margin)}; {count(one.devices_a, 'device')} against {one.devices_b})"
    )
    return f"{figures}: {_meaning(one)}"


def _meaning(one: Difference) -> str:
    if one.side == "alike":
        return "no difference larger than the margin"
    if one.side != "unknown":
        return f"B {_B_IS[one.metric][one.side == 'a_better']}"
    ways = []
    if one.more_devices is not None:
        ways.append(f"{count(one.more_devices, 'more device', 's')} in each arm")
    if one.more_hours is not None:
        ways.append(f"{one.more_hours:.1f} more hours")
    return f"not known yet; about {' or '.join(ways)} would decide" if ways else "not known yet"
