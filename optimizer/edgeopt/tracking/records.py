"""What of a run goes into MLflow, and under which names: parameters, metrics and tags.

Names are those that MLflow takes on any of its stores, where a name may become a path. Pure: records in,
dictionaries out. Example::

    metrics(run)["raspberry-pi-4/int8/drop_upper"]      # 0.008
    tags(run, digest)["edgeopt.git.dirty"]              # "false"
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from edgeopt.results import RunResult, TargetResult, VariantResult

__all__ = ["TAG", "clean_name", "metrics", "params", "tags"]

TAG = "edgeopt."  # begins every tag that is ours
_LONGEST_VALUE = 6000  # https://mlflow.org/docs/latest/api_reference/rest-api.html#request-limits
_LONGEST_TAG = 5000


def params(run: RunResult) -> dict[str, str]:
    """Return the settings, flattened (``target.name``), and what each target got: the variant and its recipe."""
    settings = run.lineage.get("settings", {})
    found = {clean_name(name): str(value)[:_LONGEST_VALUE] for name, value in _flat(settings, "")}
    for target in run.targets:
        chosen = next((one for one in target.variants if one.name == target.chosen), None)
        found[f"{clean_name(target.target)}/chosen"] = "none" if chosen is None else chosen.name
        if chosen is not None:
            found[f"{clean_name(target.target)}/recipe"] = chosen.recipe.title[:_LONGEST_VALUE]
    return found


def metrics(run: RunResult) -> dict[str, float]:
    """Return every number of the result with its interval, by target and variant; what was not measured is absent."""
    found: dict[str, float | None] = {
        f"baseline/{clean_name(run.metric)}": run.baseline.metric,
        "baseline/size_bytes": run.baseline.size_bytes,
        "baseline/latency_ms": run.baseline.latency_ms,
        "seconds": run.seconds,
    }
    for target in run.targets:
        found.update(_criteria(target))
        for variant in target.variants:
            prefix = f"{clean_name(target.target)}/{clean_name(variant.name)}"
            found.update({f"{prefix}/{name}": value for name, value in _variant(variant).items()})
    return {name: float(value) for name, value in found.items() if value is not None}


def tags(run: RunResult, digest: str | None) -> dict[str, str]:
    """Return where the run comes from and what came of it; ``digest`` is the bundle's, ``None`` without one."""
    git = run.lineage.get("git") or {}
    found = {
        "verdict": run.verdict,
        "version": run.lineage.get("versions", {}).get("edgeopt"),
        "environment": run.lineage.get("environment"),
        "targets": ", ".join(target.target for target in run.targets),
        "digest": digest,
        "git.commit": git.get("commit"),
        "git.dirty": str(git["dirty"]).lower() if "dirty" in git else None,
        **{f"data.{name}": split.hash for name, split in run.splits.items()},
        **dict(_flat(run.lineage.get("data_versions", {}), "data_version.")),
    }
    own = {clean_name(f"{TAG}{name}"): str(value)[:_LONGEST_TAG] for name, value in found.items() if value is not None}
    standard = {"mlflow.source.name": "edgeopt", "mlflow.note.content": _note(run)[:_LONGEST_TAG]}
    if git:
        standard["mlflow.source.git.commit"] = str(git["commit"])
    return own | standard


def clean_name(name: str) -> str:
    """Return ``name`` with every character replaced that MLflow, or a path, would not take in one part of a name."""
    return re.sub(r"[^A-Za-z0-9_.: -]|^\.+", "_", name) or "_"


def _flat(value: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    for key, item in value.items():
        if isinstance(item, Mapping):
            yield from _flat(item, f"{prefix}{key}.")
        elif item is not None:
            yield f"{prefix}{key}", item


def _criteria(target: TargetResult) -> dict[str, float | None]:
    found: dict[str, float | None] = {}
    for one in target.criteria:
        prefix = f"{clean_name(target.target)}/criteria/{one.name}"
        found |= {
            prefix: one.value,
            f"{prefix}_lower": one.lower,
            f"{prefix}_upper": one.upper,
            f"{prefix}_bound": one.bound,
            f"{prefix}_limit": one.limit,
        }
    return found


def _variant(variant: VariantResult) -> dict[str, float | None]:
    metric, speed = variant.metric, variant.speed
    found: dict[str, float | None] = {
        clean_name(metric.name): metric.value,
        "drop": metric.drop,
        "drop_lower": metric.drop_lower,
        "drop_upper": metric.drop_upper,
        "agreement": variant.agreement,
        "size_bytes": variant.size_bytes,
    }
    if speed is not None:
        found |= {
            "latency_ms": speed.variant_ms,
            "ratio": speed.ratio,
            "ratio_low": speed.ratio_low,
            "ratio_high": speed.ratio_high,
        }
    return found


def _note(run: RunResult) -> str:
    """Return what MLflow's page shows above a run, as Markdown."""
    lines = [f"**{run.verdict}**"]
    for target in run.targets:
        lines.append(f"- {target.target}: {target.verdict}, {target.chosen or 'no variant'}")
        lines.extend(f"    - {reason}" for reason in target.reasons)
    return "\n".join(lines)
