"""The performance report: how fast each variant is on each target, with the machine and the intervals.

Times are measurements, so this paper differs from run to run and is not part of the bundle's identity; it stands
beside the bundle. Pure: it writes nothing and measures nothing. Example::

    performance_report(run)          # bytes of performance.md
"""

from __future__ import annotations

from collections.abc import Iterator

from edgeopt.markdown import cell, table
from edgeopt.results import RunResult, SpeedResult, TargetResult
from edgeopt.wording import Wording, milliseconds, size, with_interval

__all__ = ["performance_report"]

_SHARES = Wording(is_share=True)


def performance_report(run: RunResult) -> bytes:
    """Return the report as Markdown."""
    return ("\n\n".join(_parts(run)) + "\n").encode()


def _parts(run: RunResult) -> Iterator[str]:
    yield f"# Performance of {cell(run.name)} {cell(run.version)}"
    yield (
        f"Measured on {cell(run.machine)}; finished {run.created} after {run.seconds:.1f} s. One inference at a time, "
        "interleaved with fp32; a ratio is fp32 time / variant time with its interval, above one is faster. These are "
        "measurements: another run gives other times, so this file is not part of the bundle's digest."
    )
    for target in run.targets:
        yield f"## {cell(target.target)}"
        yield f"{_choice(target)} Certified on: {cell(target.execution)}."
        yield table(("variant", "fp32 takes", "it takes", "times as fast", "rounds", "size"), _variants(target))
        if target.trials:
            yield "What was tried on the way, on the selection split:"
            yield table(("rung", "recipe", "answers as fp32", "times as fast", "size", "remark"), _trials(target))


def _choice(target: TargetResult) -> str:
    return f"Gets {cell(target.chosen)}." if target.chosen else "Gets none: the gate did not pass."


def _variants(target: TargetResult) -> Iterator[tuple[str, ...]]:
    for variant in target.variants:
        speed = variant.speed
        yield (
            variant.name,
            milliseconds(None if speed is None else speed.baseline_ms),
            milliseconds(None if speed is None else speed.variant_ms),
            _ratio(speed),
            "" if speed is None else str(speed.rounds),
            size(variant.size_bytes),
        )


def _trials(target: TargetResult) -> Iterator[tuple[str, ...]]:
    for trial in target.trials:
        remarks = ("chosen" if trial.chosen else "", "on the front" if trial.on_front else "", trial.problem or "")
        yield (
            trial.rung,
            trial.title,
            "" if trial.agreement is None else _SHARES.score(trial.agreement),
            _ratio(trial.speed),
            "" if trial.size_bytes is None else size(trial.size_bytes),
            "; ".join(filter(None, remarks)),
        )


def _ratio(speed: SpeedResult | None) -> str:
    if speed is None:
        return "not measured"
    return with_interval(speed.ratio, speed.ratio_low, speed.ratio_high)
