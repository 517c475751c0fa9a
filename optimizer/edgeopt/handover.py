"""The papers that are handed over with a bundle: evidence, model card, features, inference API, performance.

A bundle must have the same digest whenever it is built from the same inputs, so what was measured stays outside
(ADR 0015): :func:`evidence_files` are part of the bundle and hold only what repeats; :func:`performance_report` has
the times and stands beside it. The evidence is built from named fields, not by leaving some out, so that a time added
to the records later cannot slip in. How the search went (trials, ranking of layers) hangs on the stopwatch and its
budget, and so do reasons in words: they stay in ``report.json``. Pure. Example::

    files = evidence_files(run, contents)       # {"evidence.json": b"…", "model_card.md": b"…", …}
    beside = {"performance.md": performance_report(run)}
"""

from __future__ import annotations

from typing import Any

import msgspec

from edgeopt.inference_api import inference_api
from edgeopt.model_card import model_card
from edgeopt.performance import performance_report
from edgeopt.results import RunResult, TargetResult, VariantResult
from edgeopt_contract.bundle import BundleContents
from edgeopt_contract.codec import decode
from edgeopt_contract.manifest import Role, TensorSpec
from edgeopt_contract.profile import ReferenceFeature, ReferenceProfile
from edgeopt_contract.values import canonical_json, digest_of

__all__ = [
    "EVIDENCE",
    "FEATURES",
    "INFERENCE_API",
    "MODEL_CARD",
    "PERFORMANCE",
    "SCHEMA",
    "evidence_files",
    "performance_report",
]

SCHEMA = 1
EVIDENCE = "evidence.json"
MODEL_CARD = "model_card.md"
FEATURES = "features.json"
INFERENCE_API = "inference_api.json"
PERFORMANCE = "performance.md"


def evidence_files(run: RunResult, contents: BundleContents) -> dict[str, bytes]:
    """Return what goes into the bundle as evidence, by file name. Equal findings give equal bytes.

    ``contents`` are the bundle's without these files; its variants' digests are named in ``evidence.json``.
    """
    return {
        EVIDENCE: _json(_evidence(run, contents)),
        MODEL_CARD: model_card(run, contents),
        FEATURES: _json(_features(run, contents)),
        INFERENCE_API: inference_api(contents),
    }


def _evidence(run: RunResult, contents: BundleContents) -> dict[str, Any]:
    return {
        "schema": SCHEMA,
        "name": run.name,
        "version": run.version,
        "verdict": run.verdict,
        "metric": run.metric,
        "is_share": run.is_share,
        "margin": run.margin,
        "confidence": run.confidence,
        "baseline": {"metric": run.baseline.metric, "size_bytes": run.baseline.size_bytes},
        "splits": dict(run.splits),
        "notes": run.notes,
        "targets": [_target(target) for target in run.targets],
        "variants": {path: digest_of(data) for path, (role, data) in contents.files.items() if role is Role.VARIANT},
    }


def _target(target: TargetResult) -> dict[str, Any]:
    return {
        "target": target.target,
        "arch": target.arch,
        "features": target.features,
        "execution": target.execution,
        "verdict": target.verdict,
        "chosen": target.chosen,
        "criteria": target.criteria,
        "variants": [_variant(variant) for variant in target.variants],
        "stages": target.stages,
    }


def _variant(variant: VariantResult) -> dict[str, Any]:
    return {
        "name": variant.name,
        "file": variant.file,
        "recipe": variant.recipe,
        "verdict": variant.verdict,
        "metric": variant.metric,
        "agreement": variant.agreement,
        "size_bytes": variant.size_bytes,
    }


def _features(run: RunResult, contents: BundleContents) -> dict[str, Any]:
    """Return what goes in and comes out, and which numbers of it are watched for drift."""
    profile = _profile(contents)
    return {
        "schema": SCHEMA,
        "inputs": [_tensor(spec) for spec in contents.inputs],
        "outputs": [_tensor(spec) for spec in contents.outputs],
        "labels": contents.labels,
        "preprocessing": run.lineage.get("settings", {}).get("preprocess", []),
        "profile_rows": profile.rows,
        "watched": [_watched(feature) for feature in profile.features],
    }


def _profile(contents: BundleContents) -> ReferenceProfile:
    (data,) = [data for role, data in contents.files.values() if role is Role.PROFILE]
    return decode(ReferenceProfile, data)


def _tensor(spec: TensorSpec) -> dict[str, Any]:
    return {"name": spec.name, "dtype": spec.dtype, "shape": spec.shape}


def _watched(feature: ReferenceFeature) -> dict[str, Any]:
    spec = feature.spec
    kind: dict[str, Any] = {"categories": spec.categories}
    if spec.edges:
        kind = {"lowest": spec.edges[0], "highest": spec.edges[-1], "mean": feature.mean, "std": feature.std}
    column = {} if spec.column is None else {"column": spec.column}
    return {"name": spec.name, "of": spec.source, "tensor": spec.tensor, "summary": spec.summary, **column, **kind}


def _json(value: Any) -> bytes:
    return msgspec.json.format(canonical_json(value), indent=2) + b"\n"
