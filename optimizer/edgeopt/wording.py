"""Numbers in words, the same in the report, in the reasons and on the terminal.

Accuracy and agreement are shares: people read them in per cent, and their differences in points. A user's own metric
has a unit that edgeopt does not know, so it stays a plain number. Pure. Example::

    Wording(is_share=True).score(0.9825)        # "98.25 %"
    Wording(is_share=True).drop(0.0117)         # "1.17 points"
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["CRITERIA", "Wording", "milliseconds", "size", "with_interval"]

CRITERIA = {"drop": "overall drop", "class_drop": "worst class", "agreement": "answers as fp32"}  # by criteria.Name
_MINUS = "\N{MINUS SIGN}"


@dataclass(frozen=True, slots=True)
class Wording:
    """How to write scores of a metric and differences between them."""

    is_share: bool

    def score(self, value: float) -> str:
        """Return a score for people."""
        return f"{value * 100:.2f} %" if self.is_share else _signed(f"{value:.4g}")

    def number(self, difference: float) -> str:
        """Return a difference as the bare number, in points for a share."""
        return _signed(f"{difference * 100:.2f}" if self.is_share else f"{difference:.4g}")

    def drop(self, difference: float) -> str:
        """Return a difference with its unit."""
        return f"{self.number(difference)}{self.unit}"

    def margin(self, margin: float) -> str:
        """Return what is allowed, as short as it was given."""
        if not self.is_share:
            return f"{margin:g}"
        return "1 point" if margin == 0.01 else f"{round(margin * 100, 6):g} points"

    @property
    def unit(self) -> str:
        """The unit of a difference, with a space before it; empty for a metric of unknown unit."""
        return " points" if self.is_share else ""


def size(count: int) -> str:
    """Return a number of bytes in units of a thousand."""
    return f"{count / 1e6:.2f} MB" if count >= 1e6 else f"{count / 1e3:.1f} kB"


def milliseconds(value: float | None) -> str:
    """Return a latency; ``None`` is one that was not measured."""
    return "not measured" if value is None else f"{value:.3f} ms"


def with_interval(ratio: float, low: float, high: float) -> str:
    """Return a ratio with its interval."""
    return f"{ratio:.2f} ({low:.2f} to {high:.2f})"


def _signed(number: str) -> str:
    """Return ``number`` with a real minus sign, and never minus zero."""
    if not number.strip("-0."):
        return number.lstrip("-")
    return number.replace("-", _MINUS)
