"""Results of a run that never ran, and the contents of the tiny bundle: what lineage and hand-over tests start from."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from edgeopt.criteria import ClassDrop, Criterion, Name
from edgeopt.gate import Verdict
from edgeopt.recipe import Calibrator, Precision, Recipe
from edgeopt.results import (
    Baseline,
    LayerSensitivity,
    MetricResult,
    RunResult,
    SpeedResult,
    SplitResult,
    StageResult,
    TargetResult,
    TrialResult,
    VariantResult,
)
from edgeopt_contract.bundle import BundleContents
from edgeopt_contract.manifest import Role
from tests.tiny import tiny_bundle

FP32 = Recipe(precision=Precision.FP32)
INT8 = Recipe(precision=Precision.INT8, calibrator=Calibrator.MSE, float_nodes=("Conv_3",))


def speed(ratio: float) -> SpeedResult:
    """Return a ratio with an interval around it."""
    ratios = (ratio - 0.125, ratio, ratio + 0.125)
    return SpeedResult(
        baseline_ms=4.0, variant_ms=4.0 / ratio, ratio=ratio, ratio_low=ratios[0], ratio_high=ratios[2],
        ratios=ratios, rounds=60,
    )  # fmt: skip


def metric(drop: float) -> MetricResult:
    """Return an accuracy of 90 % less ``drop``."""
    return MetricResult(
        name="accuracy", value=0.9 - drop, drop=drop, drop_lower=drop - 0.002, drop_upper=drop + 0.004,
        confidence=0.95, n=1079, samples_needed=None,
    )  # fmt: skip


def variant(recipe: Recipe, ratio: float | None, drop: float = 0.0) -> VariantResult:
    """Return a variant that passed."""
    return VariantResult(
        name=recipe.variant, file=f"{recipe.variant}.onnx", recipe=recipe, verdict=Verdict.PASS, metric=metric(drop),
        agreement=0.985, size_bytes=1000, speed=None if ratio is None else speed(ratio),
    )  # fmt: skip


def criterion(name: Name, value: float, limit: float, **more: Any) -> Criterion:
    """Return a criterion that holds."""
    return Criterion(
        name=name, verdict=Verdict.PASS, value=value, lower=value - 0.002, upper=value + 0.004, bound=value + 0.003,
        limit=limit, confidence=0.95, n=1079, samples_needed=None, **more,
    )  # fmt: skip


def target(name: str = "raspberry-pi-4", ratio: float | None = 1.5) -> TargetResult:
    """Return a target that gets int8."""
    trials = (
        TrialResult(rung="start", title="fp32", recipe=FP32, agreement=1.0, score=0.9, error=0.0, size_bytes=4000,
                    on_front=True),
        TrialResult(rung="ranges", title=INT8.title, recipe=INT8, agreement=0.985, score=0.896, error=0.02,
                    size_bytes=1000, speed=speed(1.5), seconds=3.25, chosen=True, on_front=True),
        TrialResult(rung="ranges", title="int8, entropy", recipe=replace(INT8, calibrator=Calibrator.ENTROPY),
                    agreement=0.9, score=0.85, error=0.2, size_bytes=1000, speed=speed(1.25), seconds=2.5),
        TrialResult(rung="rounding", title="int8, rounding learned", recipe=replace(INT8, rounding_learned=True),
                    problem="it took too long"),
    )  # fmt: skip
    return TargetResult(
        target=name, arch="aarch64", features=("neon",), execution="emulated (qemu-aarch64 -cpu cortex-a72)",
        verdict=Verdict.PASS,
        chosen="int8", reasons=("1.50 times as fast, at least 1.38",),
        criteria=(
            criterion(Name.DROP, 0.004, 0.01),
            criterion(Name.CLASS_DROP, 0.01, 0.05, label=7, classes=(
                ClassDrop(label=7, verdict=Verdict.PASS, n=90, value=0.01, lower=0.0, upper=0.02, bound=0.02,
                          samples_needed=None),)),
            criterion(Name.AGREEMENT, 0.985, 0.95),
        ),
        variants=(variant(INT8, ratio, 0.004), variant(FP32, None if ratio is None else 1.0)),
        trials=trials,
        sensitivity=(
            LayerSensitivity(node="Conv_3", operator="Conv", error=0.3, saved_ms=0.25),
            LayerSensitivity(node="Gemm_9", operator="Gemm", error=0.01, saved_ms=-0.125),
        ),
        stages=(
            StageResult(stage="torch", score=0.9, agreement=1.0, error=0.0, n=1079),
            StageResult(stage="int8 by onnxruntime", score=0.896, agreement=0.985, error=0.02, n=1079),
        ),
    )  # fmt: skip


def a_run(**changes: Any) -> RunResult:
    """Return a run that passed for one target, with ``changes``."""
    run = RunResult(
        name="tiny", version="1", verdict=Verdict.PASS, metric="accuracy", is_share=True, margin=0.01, confidence=0.95,
        baseline=Baseline(metric=0.9, size_bytes=4000, latency_ms=4.0), targets=(target(),),
        splits={name: SplitResult(size=359, hash=digit * 64)
                for name, digit in (("calibration", "a"), ("selection", "b"), ("certification", "c"))},
        notes=("not simplified: it was odd",),
        lineage={
            "git": {"commit": "0123456789" * 4, "dirty": False},
            "data": {"calibration": "a" * 64},
            "settings": {"model": "net:model", "data": {"data": "net:data"}, "seed": 0, "preprocess": ["scale"]},
            "versions": {"python": "3.11.7", "edgeopt": "0.1.0"},
        },
        machine="x86_64 with avx2, 2 cores", created="2026-01-02T03:04:05+00:00", seconds=12.5,
    )  # fmt: skip
    return replace(run, **changes)


def tiny_contents(directory: Path) -> BundleContents:
    """Return the contents of the tiny bundle, which has fp32 only, with int8 (the same bytes) before it."""
    bundle = tiny_bundle(directory)
    manifest = bundle.manifest
    (fp32,) = manifest.variants
    files = {
        entry.path: (entry.role, bundle.path_of(entry).read_bytes())
        for entry in manifest.files
        if entry.role is not Role.EVIDENCE
    }
    int8 = replace(fp32, name="int8", file="int8.onnx", arch=("aarch64",), certified_for=("raspberry-pi-4",))
    return BundleContents(
        name=manifest.name, version=manifest.version, inputs=manifest.inputs, outputs=manifest.outputs,
        labels=manifest.labels, variants=(int8, replace(fp32, certified_for=("raspberry-pi-4",))),
        lineage=a_run().lineage, files={**files, "int8.onnx": files["fp32.onnx"]},
    )  # fmt: skip
