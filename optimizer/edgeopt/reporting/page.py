"""The report as one HTML page that works offline: no scripts, no fonts, no links to anywhere but into itself.

Whatever users named is escaped. It judges nothing: all figures are those of ``report.json``. Example::

    Path("report.html").write_bytes(report_html(run))
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from edgeopt import wording
from edgeopt.explain import advice
from edgeopt.reporting import plots, sections
from edgeopt.results import RunResult, TargetResult
from edgeopt.rungs import rung_gains

if TYPE_CHECKING:
    import jinja2

__all__ = ["report_html"]


@dataclass(frozen=True, slots=True)
class _TargetView:
    """A target with its pictures."""

    place: int
    result: TargetResult
    headline: str
    drop: Markup | None
    pareto: plots.Pareto | None
    times: Markup | None
    times_tried: Markup | None


def report_html(run: RunResult) -> bytes:
    """Return ``run`` as one HTML page in UTF-8."""
    words = wording.Wording(run.is_share)
    page = _environment().get_template("page.html")
    return page.render(
        run=run,
        headline=sections.run_headline(run),
        views=[_view(run, place, words) for place in range(len(run.targets))],
        advice=advice(run),
        words=words,
        shares=wording.Wording(is_share=True),
        sections=sections,
        plots=plots,
        rung_gains=rung_gains,
        criteria_names=wording.CRITERIA,
    ).encode()


def _view(run: RunResult, place: int, words: wording.Wording) -> _TargetView:
    target = run.targets[place]
    judged = target.variants[0] if target.variants and target.criteria else None
    return _TargetView(
        place=place + 1,
        result=target,
        headline=sections.headline(target),
        drop=None if judged is None else plots.drop_chart(judged.metric, run.margin, words),
        pareto=plots.pareto_plot(target.trials, run.baseline.size_bytes),
        times=plots.timing_plot(sections.timed_variants(target)),
        times_tried=plots.timing_plot(sections.timed_trials(target)),
    )


def _breakable(name: str) -> Markup:
    """Return a dotted name so that it may be broken behind its separators: a long one would widen its column."""
    return Markup("<wbr>").join(re.split(r"(?<=[:._/])", name))


@cache
def _environment() -> jinja2.Environment:
    import jinja2

    environment = jinja2.Environment(
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        loader=jinja2.PackageLoader("edgeopt", "templates"),
        trim_blocks=True,
        lstrip_blocks=True,
    )
    filters: dict[str, Any] = {
        "size": wording.size,
        "ms": wording.milliseconds,
        "plain": sections.plain,
        "breakable": _breakable,
    }
    environment.filters.update(filters)
    return environment
