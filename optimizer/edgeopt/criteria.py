"""Several criteria judged together: the overall drop, the worst class, agreement with the float model.

One number hides a collapse, so each criterion that is asked for must hold. Two error rates are kept, both at
1 - confidence for the whole, however many criteria and classes there are:

- A variant that breaks any limit passes as rarely as that. The whole passes only if every part does, so every part is
  tested at the full level: the intersection-union test (Berger, Technometrics 24:295, 1982). Splitting the level here
  would only cost power.
- A variant that keeps all limits fails as rarely as that. The whole fails if any part does, so the level is split
  evenly over the criteria, and that of the class criterion over its classes (Bonferroni). Holm's steps would change
  nothing: whether any part fails hangs on the first of them.

The intervals of the criteria and of the classes carry the split level too: all upper bounds hold together at the
stated confidence, and so do all lower ones. The ``bound`` of a criterion is the one its verdict rests on: at the full
level, but for FAIL.

Pure: arrays in, verdicts out. Example::

    judge_all(paired, Limits(max_drop=0.01, confidence=0.95, min_agreement=0.95)).verdict       # Verdict.PASS
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
import numpy.typing as npt

from edgeopt.gate import Judgement, Verdict, judge

__all__ = [
    "ClassDrop",
    "Classes",
    "Criterion",
    "JointJudgement",
    "Limits",
    "Name",
    "PairedScores",
    "joint_verdict",
    "judge_all",
]

Scores = npt.NDArray[np.float64]


class Name(StrEnum):
    """What is judged."""

    DROP = "drop"
    CLASS_DROP = "class_drop"
    AGREEMENT = "agreement"


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What is asked for; drops in the metric's unit, agreement as a share, ``None``: not asked for."""

    max_drop: float
    confidence: float
    max_class_drop: float | None = None
    min_agreement: float | None = None

    @property
    def count(self) -> int:
        """How many criteria are asked for."""
        return 1 + (self.max_class_drop is not None) + (self.min_agreement is not None)


@dataclass(frozen=True, slots=True)
class Classes:
    """The class of each certification sample, int64 of shape (n,), and every class that must be judged.

    ``known`` may name classes that no certification sample has: they are not forgotten for that.
    """

    of_sample: npt.NDArray[np.int64]
    known: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class PairedScores:
    """Both models on the certification samples, float64 of shape (n,) each; higher is better.

    ``agreement`` is the share of equal answers of each sample. ``ceiling`` says that the baseline is 1 by definition.
    ``classes`` are needed for the class criterion only.
    """

    baseline: Scores
    variant: Scores
    agreement: Scores
    ceiling: bool = False
    classes: Classes | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassDrop:
    """One class: its drop with simultaneous bounds (``None``: no sample of it) and the bound that decides."""

    label: int
    verdict: Verdict
    n: int
    value: float | None
    lower: float | None
    upper: float | None
    bound: float | None
    samples_needed: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Criterion:
    """One criterion with what its verdict rests on.

    ``value`` is the drop seen, or the agreement; ``lower`` and ``upper`` are simultaneous at ``confidence``; ``bound``
    is what was held against ``limit``. For the class criterion they are those of the worst class, ``label``, and
    ``classes`` has all of them; ``n`` and ``samples_needed`` (in all, ``None``: none needed, or no number would help)
    are that class's too.
    """

    name: Name
    verdict: Verdict
    value: float | None
    lower: float | None
    upper: float | None
    bound: float | None
    limit: float
    confidence: float
    n: int
    samples_needed: int | None
    label: int | None = None
    classes: tuple[ClassDrop, ...] = ()


@dataclass(frozen=True, slots=True)
class JointJudgement:
    """All criteria that were asked for, the overall drop first; ``overall`` is that drop judged by itself."""

    overall: Judgement
    criteria: tuple[Criterion, ...]

    @property
    def verdict(self) -> Verdict:
        """The verdict of the whole."""
        return joint_verdict(criterion.verdict for criterion in self.criteria)


def joint_verdict(verdicts: Iterable[Verdict]) -> Verdict:
    """Return FAIL if any part fails, PASS if all pass, else INCONCLUSIVE."""
    return max(verdicts, key=_severity)


def judge_all(paired: PairedScores, limits: Limits) -> JointJudgement:
    """Judge every criterion that is asked for.

    Raises ``ValueError`` for scores and limits that :func:`edgeopt.gate.judge` refuses, and for a class criterion
    without classes.
    """
    share = (1 - limits.confidence) / limits.count
    part = _Part(limits.max_drop, limits.confidence, share)
    overall = _judge_twice(paired.baseline, paired.variant, part, ceiling=paired.ceiling)
    criteria = [_drop(overall, limits)]
    if limits.max_class_drop is not None:
        criteria.append(_class_drop(paired, limits.max_class_drop, limits.confidence, share))
    if limits.min_agreement is not None:
        part = _Part(1 - limits.min_agreement, limits.confidence, share)
        both = _judge_twice(np.ones_like(paired.agreement), paired.agreement, part, ceiling=True)
        criteria.append(_agreement(both, limits.min_agreement, limits.confidence))
    return JointJudgement(overall.full, tuple(criteria))


@dataclass(frozen=True, slots=True)
class _Part:
    """What one series of scores is held against; ``share`` is its part of the error rate of the whole."""

    margin: float
    confidence: float
    share: float


@dataclass(frozen=True, slots=True)
class _Twice:
    """The same scores judged at the full level, which PASS needs, and at its share, which FAIL needs."""

    full: Judgement
    split: Judgement

    @property
    def verdict(self) -> Verdict:
        if Verdict.PASS is self.full.verdict:
            return Verdict.PASS
        return Verdict.FAIL if Verdict.FAIL is self.split.verdict else Verdict.INCONCLUSIVE

    @property
    def bound(self) -> float:
        return self.split.drop_lower if Verdict.FAIL is self.verdict else self.full.drop_upper

    @property
    def samples_needed(self) -> int | None:
        return self.full.samples_needed


def _judge_twice(baseline: Scores, variant: Scores, part: _Part, *, ceiling: bool) -> _Twice:
    full = judge(baseline, variant, margin=part.margin, confidence=part.confidence, ceiling=ceiling)
    if math.isclose(1 - part.confidence, part.share):
        return _Twice(full, full)
    return _Twice(full, judge(baseline, variant, margin=part.margin, confidence=1 - part.share, ceiling=ceiling))


def _drop(both: _Twice, limits: Limits) -> Criterion:
    return Criterion(
        name=Name.DROP,
        verdict=both.verdict,
        value=both.full.drop,
        lower=both.split.drop_lower,
        upper=both.split.drop_upper,
        bound=both.bound,
        limit=limits.max_drop,
        confidence=limits.confidence,
        n=both.full.n,
        samples_needed=both.samples_needed,
    )


def _agreement(both: _Twice, limit: float, confidence: float) -> Criterion:
    """Return the criterion from the drop below full agreement, whose bounds are Clopper and Pearson's."""
    return Criterion(
        name=Name.AGREEMENT,
        verdict=both.verdict,
        value=both.full.value,
        lower=1 - both.split.drop_upper,
        upper=1 - both.split.drop_lower,
        bound=1 - both.bound,
        limit=limit,
        confidence=confidence,
        n=both.full.n,
        samples_needed=both.samples_needed,
    )


def _class_drop(paired: PairedScores, limit: float, confidence: float, share: float) -> Criterion:
    """Judge each class like the whole; the worst one stands for all."""
    if paired.classes is None:
        raise ValueError("expected the class of each sample to judge the worst class, got none")
    labels = sorted({*paired.classes.known, *paired.classes.of_sample.tolist()})
    part = _Part(limit, confidence, share / len(labels))
    classes = tuple(_one_class(paired, paired.classes.of_sample == label, label, part) for label in labels)
    worst = max(classes, key=_badness)
    return Criterion(
        name=Name.CLASS_DROP,
        verdict=worst.verdict,
        value=worst.value,
        lower=worst.lower,
        upper=worst.upper,
        bound=worst.bound,
        limit=limit,
        confidence=confidence,
        n=worst.n,
        samples_needed=worst.samples_needed,
        label=worst.label,
        classes=classes,
    )


def _one_class(paired: PairedScores, members: npt.NDArray[np.bool_], label: int, part: _Part) -> ClassDrop:
    if not members.any():
        return _unseen(label, part)
    both = _judge_twice(paired.baseline[members], paired.variant[members], part, ceiling=paired.ceiling)
    return ClassDrop(
        label=label,
        verdict=both.verdict,
        n=both.full.n,
        value=both.full.drop,
        lower=both.split.drop_lower,
        upper=both.split.drop_upper,
        bound=both.bound,
        samples_needed=both.samples_needed,
    )


def _unseen(label: int, part: _Part) -> ClassDrop:
    """Return a class that nothing is known about; it needs at least as many samples as one without any difference."""
    same = np.ones(1)
    return ClassDrop(
        label=label,
        verdict=Verdict.INCONCLUSIVE,
        n=0,
        value=None,
        lower=None,
        upper=None,
        bound=None,
        samples_needed=judge(same, same, margin=part.margin, confidence=part.confidence).samples_needed,
    )


def _badness(one: ClassDrop) -> tuple[int, float]:
    return _severity(one.verdict), math.inf if one.bound is None else one.bound


def _severity(verdict: Verdict) -> int:
    return (Verdict.PASS, Verdict.INCONCLUSIVE, Verdict.FAIL).index(verdict)
