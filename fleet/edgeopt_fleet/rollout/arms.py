"""Two bundles side by side: which devices get which, and for how long they are watched.

Pure. Devices are drawn by a hash of rollout and device, so that neither people nor the order of enrolment choose; and
in proportion within every hardware class, and within every wave, so that both arms have like devices at all times. A
share below 100 % leaves devices out: they are no members and keep what they run. Rules:

- An arm's bundle may be what devices run now: then the arm is the control, and nothing is downloaded for it.
- The gate watches each arm as it watches a wave. The arm that harms goes back; the other arm is not at fault: who
  confirmed it keeps it, who was still on the way goes back. Nothing is left to compare, so the rollout ends there.
- After the last wave both arms are observed, then compared once. Rows that are missing are waited for as long again.

Example::

    trial = Trial(arms=(Arm(bundle="ab12…", percent=50), Arm(bundle="cd34…", percent=50)), observe_seconds=86400.0)
    draw("v2", {"cam-1": ("aarch64",), "cam-2": ("aarch64",)}, [50, 50])       # {'cam-1': 1, 'cam-2': 0}
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field

from edgeopt_fleet.gate import Margins
from edgeopt_fleet.rollout.waves import Place, rank

__all__ = ["ARMS", "Arm", "Trial", "draw", "draw_arms", "draw_members"]

ARMS = ("A", "B")
_LONGEST_SECONDS = 90 * 86400.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Arm:
    """One arm: the bundle's digest, and the percent of the cohort's devices that get it."""

    bundle: str
    percent: int

    def __post_init__(self) -> None:
        if not 1 <= self.percent <= 99:
            raise ValueError(f"expected an arm of 1 to 99 percent, got {self.percent}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """Two arms, A and B; how many seconds they are observed after the last wave, and how they are compared then."""

    arms: tuple[Arm, ...]
    observe_seconds: float = 86400.0
    margins: Margins = field(default_factory=Margins)

    def __post_init__(self) -> None:
        if len(self.arms) != len(ARMS):
            raise ValueError(f"expected two arms, got {len(self.arms)}")
        if self.arms[0].bundle == self.arms[1].bundle:
            raise ValueError(f"expected two different bundles, got {self.arms[0].bundle[:12]} twice")
        if sum(self.percents) > 100:
            raise ValueError(f"expected arms of 100 percent together at most, got {sum(self.percents)}")
        if not 0 < self.observe_seconds <= _LONGEST_SECONDS:
            raise ValueError(f"expected observe_seconds above 0, up to 90 days, got {self.observe_seconds}")

    @property
    def percents(self) -> tuple[int, ...]:
        """The share of each arm."""
        return tuple(arm.percent for arm in self.arms)

    def bundle_of(self, arm: str) -> str:
        """Return the digest that the arm ``A`` or ``B`` gets."""
        return self.arms[ARMS.index(arm)].bundle

    def is_over(self, seconds: float, rows: Sequence[int]) -> bool:
        """Say whether it was observed for long enough: ``seconds``, in which the arms served ``rows``."""
        enough = min(rows, default=0) >= self.margins.minimum_rows
        return seconds >= self.observe_seconds * (1 if enough else 2)


def draw_members(rollout: str, hardware: Mapping[str, str], trial: Trial) -> list[str]:
    """Return the devices (of those with a hardware class each) that are in one of the arms."""
    share = sum(trial.percents)
    drawn = draw(f"{rollout}\nmember", {name: (kind,) for name, kind in hardware.items()}, (share, 100 - share))
    return [name for name, group in drawn.items() if group == 0]


def draw_arms(rollout: str, places: Mapping[str, Place], hardware: Mapping[str, str], trial: Trial) -> dict[str, str]:
    """Return the arm of each device in ``places``, in proportion in every wave and every hardware class."""
    strata = {name: (f"class {hardware[name]}", f"wave {place.wave}") for name, place in places.items()}
    return {name: ARMS[group] for name, group in draw(f"{rollout}\narm", strata, trial.percents).items()}


def draw(seed: str, strata: Mapping[str, Sequence[Hashable]], shares: Sequence[int]) -> dict[str, int]:
    """Return the group (an index of ``shares``) of each device, in proportion in each of its ``strata``.

    Devices come in the order of their strata, within them of a hash; each joins the group that is furthest behind its
    share in the device's strata. What decides between equals is a hash of the seed and of how far one has come.
    """
    total = sum(shares)
    behind: dict[Hashable, list[float]] = {}
    drawn: dict[str, int] = {}
    ordered = sorted(strata, key=lambda name: (*(rank(seed, str(one)) for one in strata[name]), rank(seed, name)))
    for place, name in enumerate(ordered):
        mine = [behind.setdefault(one, [0.0] * len(shares)) for one in strata[name]]
        for debts in mine:
            for group, share in enumerate(shares):
                debts[group] += share / total
        wanting = [math.fsum(debts[group] for debts in mine) for group in range(len(shares))]
        best = max(wanting)
        equal = [group for group, want in enumerate(wanting) if want > best - 1e-9 and shares[group]]
        chosen = equal[int(rank(seed, f"#{place}")[:8], 16) % len(equal)]
        for debts in mine:
            debts[chosen] -= 1.0
        drawn[name] = chosen
    return drawn
