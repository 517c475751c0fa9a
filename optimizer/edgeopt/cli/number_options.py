"""Numbers on the command line: a range that does not hold NaN, and the confidence, which several commands ask for.

Example::

    @click.option("--seconds", type=Within(min=1))
"""

from __future__ import annotations

import math
from typing import Any

import click

__all__ = ["Within", "confidence_option"]


class Within(click.FloatRange):
    """A range of numbers; click's own takes NaN, which is neither below its least nor above its greatest."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Return the number. Raises :class:`click.BadParameter`."""
        number: float = super().convert(value, param, ctx)
        if math.isnan(number):
            self.fail(f"{value!r} is no number.", param, ctx)
        return number


confidence_option = click.option(
    "--confidence", type=Within(0.5, 1, min_open=True, max_open=True), default=0.95, show_default=True
)
