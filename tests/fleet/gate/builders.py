"""Evidence for tests, made from a few words about each device."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from edgeopt_fleet.gate import METRICS, Devices, Evidence, Look, Metric, Outcome, Tally, Wave

__all__ = ["Told", "control", "evidence", "fall", "member"]


@dataclass(frozen=True, kw_only=True)
class Told:
    """One device as the gate is told of it; ``changes`` holds how much worse, and the variance of that."""

    name: str
    outcome: Outcome | None = None
    online: bool = True
    waiting: bool = False
    rows: int = 200
    before: int = 200
    hardware: str = "x86_64"
    failure: str = ""
    changes: Mapping[Metric, tuple[float, float]] = field(default_factory=dict)


def fall(amount: float, *, n: int = 200, sd: float = 0.1, before: int = 200) -> dict[Metric, tuple[float, float]]:
    """Return a fall of confidence of a device with ``n`` rows after and ``before`` rows before the update."""
    return {Metric.CONFIDENCE: (amount, 2 * (sd**2 / n + 0.1**2 / before))}


def member(name: str, outcome: Outcome | None = Outcome.CONFIRMED, **words: Any) -> Told:
    """Return a device of the wave that served 200 rows, as confident as before."""
    return Told(name=name, outcome=outcome, **{"changes": fall(0.0), **words})


def control(name: str, amount: float = 0.0, **words: Any) -> Told:
    """Return a device outside the wave whose confidence fell by ``amount``."""
    return Told(name=name, **{"changes": fall(amount), **words})


def evidence(
    wave: Sequence[Told],
    controls: Sequence[Told] = (),
    *,
    earlier: Sequence[Told] = (),
    history: Sequence[Look] = (),
    **words: Any,
) -> Evidence:
    """Return what the gate is told of a first wave; ``earlier`` are devices of waves before it."""
    classes = tuple(sorted({one.hardware for one in (*wave, *controls)}))
    everyone = [*earlier, *wave]
    spoken = [one.failure for one in everyone if one.outcome is Outcome.FAILED and one.failure]
    return Evidence(
        **{
            "wave": 0,
            "waves": 3,
            "members": len(wave),
            "age_seconds": 10.0,
            "silent_seconds": 10.0,
            "history": tuple(history),
            "hardware": classes,
            "exposed": Wave(
                devices=_devices(wave, classes),
                online=np.array([one.online for one in wave], dtype=bool),
                confirmed=np.array([one.outcome is Outcome.CONFIRMED for one in wave], dtype=bool),
                failed=np.array([one.outcome is Outcome.FAILED for one in wave], dtype=bool),
                waiting=np.array([one.waiting for one in wave], dtype=bool),
                rows=np.array([one.rows for one in wave], dtype=np.int64),
            ),
            "controls": _devices(controls, classes),
            "tally": _tally(wave),
            "overall": _tally(everyone),
            "failures": tuple(sorted(((w, spoken.count(w)) for w in set(spoken)), key=lambda one: (-one[1], one[0]))),
            **words,
        }
    )


def _tally(devices: Sequence[Told]) -> Tally:
    outcomes = [one.outcome for one in devices if one.outcome is not None]
    return Tally(len(outcomes), outcomes.count(Outcome.FAILED))


def _devices(told: Sequence[Told], classes: Sequence[str]) -> Devices:
    table = np.full((2, len(METRICS), len(told)), np.nan)
    table[1] = 0
    for place, one in enumerate(told):
        for metric, pair in one.changes.items():
            table[:, METRICS.index(metric), place] = pair
    return Devices(
        names=tuple(one.name for one in told),
        hardware=np.array([classes.index(one.hardware) for one in told], dtype=np.int32),
        before=np.array([one.before for one in told], dtype=np.int64),
        after=np.array([one.rows for one in told], dtype=np.int64),
        changes=table[0].astype(np.float32),
        noise=table[1].astype(np.float32),
    )
