"""When a bundle that serves is at fault: crashes, failures, outputs that are no numbers, answers that come too late.

Pure. What happens then, the life cycle decides. Example::

    health = Health(HealthLimits(crashes=3))
    health.crashed()
    health.answered(rows=1, nonfinite=0)
    health.fault                                        # "" while all is well
    latency_fault(window.latency, HealthLimits(latency_us=5000.0))
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from edgeopt_contract.features import LATENCY_EDGES_US

__all__ = ["Health", "HealthLimits", "latency_fault"]

_ROWS_JUDGED = 200  # outputs are judged over so many rows, then anew


@dataclass(frozen=True, slots=True, kw_only=True)
class HealthLimits:
    """What is still healthy.

    ``crashes`` and ``failures`` count in a row; a failure is a request that the model itself failed on. Of at least
    ``least_rows`` answers at most the share ``nonfinite`` may hold NaN or infinity where the golden outputs hold none,
    and 95 % must come within ``latency_us`` microseconds, if that is given.
    """

    crashes: int = 3
    failures: int = 20
    least_rows: int = 20
    nonfinite: float = 0.1
    latency_us: float | None = None


@dataclass(slots=True)
class Health:
    """What happened lately."""

    limits: HealthLimits
    crashes: int = 0  # since the last answer
    crashes_in_all: int = 0
    fault: str = ""
    _failures: int = field(default=0, init=False)
    _rows: int = field(default=0, init=False)
    _nonfinite: int = field(default=0, init=False)

    def crashed(self, reason: str) -> None:
        """Take notice of a crash."""
        self.crashes += 1
        self.crashes_in_all += 1
        if self.crashes >= self.limits.crashes:
            self.fault = f"{self.crashes} runner crashes in a row: {reason}"

    def failed(self, reason: str) -> None:
        """Take notice of a request that the model failed on."""
        self._failures += 1
        if self._failures >= self.limits.failures:
            self.fault = f"{self._failures} failed requests in a row: {reason}"

    def answered(self, rows: int, nonfinite: int) -> None:
        """Take notice of ``rows`` answers, of which ``nonfinite`` held NaN or infinity without need."""
        self.crashes = self._failures = 0
        self.fault = ""
        self._rows += rows
        self._nonfinite += nonfinite
        if self._rows >= self.limits.least_rows and self._nonfinite > self.limits.nonfinite * self._rows:
            self.fault = (
                f"NaN or infinity in {self._nonfinite} of {self._rows} answers, where the golden outputs have none"
            )
        if self._rows >= _ROWS_JUDGED:
            self._rows = self._nonfinite = 0


def latency_fault(latency: Sequence[int], limits: HealthLimits) -> str:
    """Say why ``latency`` (rows by the cells of every device) is too slow; empty when it is not, or not known yet."""
    rows = sum(latency)
    if limits.latency_us is None or rows < limits.least_rows:
        return ""
    # A cell counts as late only when all of it lies beyond the limit: eight cells a decade are no fine ruler.
    late = sum(
        count for count, lower in zip(latency, (0.0, *LATENCY_EDGES_US), strict=True) if lower >= limits.latency_us
    )
    if late <= 0.05 * rows:
        return ""
    return f"too slow: expected 95 % of the answers within {limits.latency_us:g} µs, {late} of {rows} took longer"
