"""Which claims the rows bear out: pure arithmetic over what was measured.

Two models differ only where the measurement can tell. One is *less accurate* than another if it agrees with fp32 on
fewer of the same samples, by the exact test of the samples on which just one of them agrees (McNemar 1947, one-sided,
5 %). It is *slower* if the interval of its ratio lies wholly below the other's. Then, on one model:

- a peer **beats** edgeopt if it is more accurate and faster;
- a peer **matches** edgeopt if it is neither less accurate nor slower;
- edgeopt is **strictly best** if no peer matches it: each is less accurate, or slower, or failed.

Example::

    for claim in claims(rows, CASES): print(claim)          # "MET: no peer is both more accurate and faster ..."
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from scipy import stats

from benchmarks.optimizer.cases import Case
from benchmarks.optimizer.rows import Figures, Row

__all__ = ["Claim", "Held", "beats", "claims", "keeps", "less_accurate", "matches", "slower", "strictly_best"]

STRICTLY_BEST = 0.7  # of the models
SMALL = 0.4  # of fp32's size, for transformers and recurrent networks
SMALL_DROP = 0.01  # greatest drop of the score at which such a size counts
SURELY_SLOWER = 0.97  # a ratio below it, interval and all below one, is slower than fp32
LITE0, LITE0_AGREEMENT, LITE0_RATIO = "efficientnet_lite0", 0.95, 2.0
_ERROR = 0.05


class Held(StrEnum):
    """What became of a claim."""

    MET = "MET"
    MISSED = "MISSED"
    NOT_MADE = "NOT MADE"


@dataclass(frozen=True, slots=True)
class Claim:
    """A claim with its figures, in words."""

    held: Held
    words: str

    def __str__(self) -> str:
        return f"{self.held}: {self.words}"


def less_accurate(right_alone: int, other_alone: int) -> bool:
    """Tell whether a model is surely less accurate than another.

    ``right_alone`` counts the samples on which it agrees with fp32 and the other does not, ``other_alone`` the reverse.
    """
    differing = right_alone + other_alone
    if differing == 0:
        return False
    return bool(stats.binomtest(right_alone, differing, 0.5, alternative="less").pvalue < _ERROR)


def slower(one: Figures, other: Figures) -> bool:
    """Tell whether ``one`` is surely slower than ``other``."""
    return one.ratio_high < other.ratio_low


def beats(peer: Figures, ours: Figures) -> bool:
    """Tell whether ``peer`` is surely more accurate and surely faster than edgeopt's choice."""
    return less_accurate(peer.farther, peer.nearer) and slower(ours, peer)


def matches(peer: Figures, ours: Figures) -> bool:
    """Tell whether ``peer`` is neither surely less accurate nor surely slower than edgeopt's choice."""
    return not less_accurate(peer.nearer, peer.farther) and not slower(peer, ours)


def keeps(row: Row, case: Case) -> bool:
    """Tell whether the drop of the score, as counted, is within what ``case`` allows."""
    return row.figures is not None and row.fp32_score - row.figures.score <= case.margin


def strictly_best(rows: Sequence[Row]) -> bool:
    """Tell whether no peer matches edgeopt's choice; ``rows`` are those of one model."""
    ours = _ours(rows)
    return ours is not None and not any(matches(peer, ours) for _, peer in _peers(rows))


def claims(rows: Sequence[Row], cases: Mapping[str, Case]) -> list[Claim]:
    """Return every claim for the models that ``rows`` are about."""
    by_case: dict[str, list[Row]] = {}
    for row in rows:
        by_case.setdefault(row.case, []).append(row)
    if not by_case:
        return []
    return [
        _unbeaten(by_case),
        _best(by_case),
        _fastest_of_keeping(by_case, cases),
        _never_slower(by_case),
        *_sizes(by_case, cases),
        *_lite0(by_case),
    ]


def _unbeaten(by_case: Mapping[str, Sequence[Row]]) -> Claim:
    found, nearly = [], []
    for case, rows in by_case.items():
        ours = _ours(rows)
        for tool, peer in _peers(rows):
            if ours is None:
                continue
            if beats(peer, ours):
                found.append(f"{tool} on {case} ({_figures(peer)}, edgeopt {_figures(ours)})")
            elif peer.agreement > ours.agreement and peer.ratio > ours.ratio:
                nearly.append(f"{tool} on {case}")
    failed = [case for case, rows in by_case.items() if _ours(rows) is None]
    without = f"; edgeopt chose nothing on {', '.join(failed)}" if failed else ""
    within = f"; ahead in both, within the error: {', '.join(nearly)}" if nearly else ""
    if found:
        return Claim(
            Held.MISSED, f"more accurate and faster than edgeopt's choice: {'; '.join(found)}{within}{without}"
        )
    held = Held.MISSED if failed else Held.MET
    return Claim(
        held, f"no peer is both more accurate and faster on {len(by_case) - len(failed)} models{within}{without}"
    )


def _best(by_case: Mapping[str, Sequence[Row]]) -> Claim:
    best = [case for case, rows in by_case.items() if strictly_best(rows)]
    others = []
    for case, rows in by_case.items():
        ours = _ours(rows)
        alike = [] if ours is None else [tool for tool, peer in _peers(rows) if matches(peer, ours)]
        if alike:
            others.append(f"{case} (matched by {', '.join(alike)})")
    share = len(best) / len(by_case)
    beside = f"; not on {'; '.join(others)}" if others else ""
    words = f"edgeopt is strictly best on {len(best)} of {len(by_case)} models ({share:.0%}, at least 70 %){beside}"
    return Claim(Held.MET if share >= STRICTLY_BEST else Held.MISSED, words)


def _fastest_of_keeping(by_case: Mapping[str, Sequence[Row]], cases: Mapping[str, Case]) -> Claim:
    behind = []
    for case, rows in by_case.items():
        ours = _ours(rows)
        quicker = [
            f"{row.tool} ({_figures(row.figures)})"
            for row in rows
            if ours and not row.is_ours and row.figures and keeps(row, cases[case]) and slower(ours, row.figures)
        ]
        if ours is not None and quicker:
            behind.append(f"{case} ({_figures(ours)}): {', '.join(quicker)}")
    if behind:
        return Claim(Held.MISSED, f"of the peers that keep the score, faster than edgeopt on {'; '.join(behind)}")
    return Claim(Held.MET, "no peer that keeps the score within what was allowed is faster than edgeopt's choice")


def _never_slower(by_case: Mapping[str, Sequence[Row]]) -> Claim:
    shipped = {case: ours for case, rows in by_case.items() if (ours := _ours(rows)) is not None}
    slow = [
        f"{case} ({_figures(ours)})"
        for case, ours in shipped.items()
        if ours.ratio < SURELY_SLOWER and ours.ratio_high < 1
    ]
    if slow:
        return Claim(Held.MISSED, f"slower than fp32: {', '.join(slow)}")
    least = min(shipped.items(), key=lambda item: item[1].ratio, default=None)
    beside = "" if least is None else f"; the least is {least[0]} ({_figures(least[1])})"
    return Claim(Held.MET if shipped else Held.NOT_MADE, f"nothing that edgeopt ships is slower than fp32{beside}")


def _sizes(by_case: Mapping[str, Sequence[Row]], cases: Mapping[str, Case]) -> Iterator[Claim]:
    for case, rows in by_case.items():
        row = next((row for row in rows if row.is_ours), None)
        if not cases[case].sequence or row is None:
            continue
        if row.figures is None or row.figures.size_bytes >= row.fp32_bytes:
            yield Claim(Held.NOT_MADE, f"{case} did not compress: {row.problem or row.what}")
            continue
        share, drop = row.figures.size_bytes / row.fp32_bytes, row.fp32_score - row.figures.score
        held = Held.MET if share <= SMALL and drop <= SMALL_DROP else Held.MISSED
        yield Claim(held, f"{case} has {share:.0%} of its size (at most 40 %) and loses {drop:.2%} (at most 1 %)")


def _lite0(by_case: Mapping[str, Sequence[Row]]) -> Iterator[Claim]:
    if LITE0 not in by_case:
        return
    ours = _ours(by_case[LITE0])
    met = ours is not None and ours.agreement >= LITE0_AGREEMENT and ours.ratio >= LITE0_RATIO
    found = "nothing was chosen" if ours is None else _figures(ours)
    words = f"EfficientNet-Lite0: agreement of at least 95 % at 2.0 times the speed; it is {found}"
    yield Claim(Held.MET if met else Held.MISSED, words)


def _ours(rows: Sequence[Row]) -> Figures | None:
    return next((row.figures for row in rows if row.is_ours), None)


def _peers(rows: Sequence[Row]) -> list[tuple[str, Figures]]:
    return [(row.tool, row.figures) for row in rows if not row.is_ours and row.figures is not None]


def _figures(one: Figures) -> str:
    return f"{one.agreement:.2%} at {one.ratio:.2f} ({one.ratio_low:.2f} to {one.ratio_high:.2f})"
