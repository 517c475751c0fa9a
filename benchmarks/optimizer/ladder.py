"""What each rung of the recovery ladder gives, beside ONNX Runtime's and NNCF's own quantizers on the same splits.

For every model it quantizes with the calibration split, climbs rung by rung, and compares with the float model on the
certification split: agreement, error (mean absolute difference in standard deviations of the outputs), and the seconds
that the rung took. Integers are computed as what they stand for, so the figures hold for every CPU. It times no model
and asserts nothing. Example::

    python -m benchmarks.optimizer.ladder --only digits --only fashion_mnist
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
import onnx
from onnxruntime.quantization import CalibrationDataReader, QuantType
from onnxruntime.quantization import quantize_static as peer_quantize_static

from benchmarks.optimizer.cases import CASES
from edgeopt.calibration.collection import collect
from edgeopt.graph import prepare
from edgeopt.models import load_model
from edgeopt.quantization.bias_correction import correct_bias
from edgeopt.quantization.equalization import equalize
from edgeopt.quantization.rounding import learn_rounding
from edgeopt.quantization.static import quantize_static, reducible_weights
from edgeopt.recipe import Calibrator, Precision, Recipe
from edgeopt.runtimes.onnx_runtime import OnnxRuntimeSession
from edgeopt.samples import Sample, stack
from edgeopt.scoring import load_metric
from edgeopt.silence import silenced
from edgeopt.sources import SplitData, read_splits
from edgeopt.targets import host_target

__all__ = ["Row", "main", "rows"]

_MODELS = ("digits", "fashion_mnist", "mobilenet_v3_like", "efficientnet_lite0")
_RUNG_SAMPLES = 64
_CALIBRATION_SAMPLES = 128


@dataclass(frozen=True, slots=True)
class Row:
    """One rung or peer on one model; ``seconds`` are those of this step alone."""

    model: str
    step: str
    agreement: float
    error: float
    seconds: float


class _Reader(CalibrationDataReader):  # type: ignore[misc]  # onnxruntime publishes no types
    """Hands the samples to ONNX Runtime one at a time."""

    def __init__(self, samples: Sequence[Sample]) -> None:
        self._samples = iter(samples)

    def get_next(self) -> dict[str, Any] | None:
        """Return the next sample as a batch of one; ``None`` at the end."""
        sample = next(self._samples, None)
        return None if sample is None else stack([sample])


def rows(name: str, certified: int) -> Iterator[Row]:
    """Yield a row for each peer and each rung on at most ``certified`` certification samples."""
    case = CASES[name]
    splits = read_splits(case.sources, 0, load_metric(case.metric))
    model = prepare(load_model(case.model).to_onnx(splits.calibration[0])).model
    splits = splits.fitted(OnnxRuntimeSession(model, threads=1).inputs)
    judged = splits.certification[:: max(len(splits.certification) // certified, 1)]
    expected = _first(model, judged)
    for step, make in _steps(model, splits):
        begin = time.perf_counter()
        made = make()
        seconds = time.perf_counter() - begin
        actual = _first(made, judged)
        agreement = float((expected.argmax(axis=-1) == actual.argmax(axis=-1)).mean())
        yield Row(name, step, agreement, float(np.abs(expected - actual).mean() / expected.std()), seconds)


def _steps(model: bytes, splits: SplitData) -> Iterator[tuple[str, Callable[[], bytes]]]:
    """Yield each step's name and what makes its model."""
    every = max(len(splits.calibration) // _CALIBRATION_SAMPLES, 1)
    samples = splits.calibration[::every][:_CALIBRATION_SAMPLES]
    few = samples[:: max(len(samples) // _RUNG_SAMPLES, 1)][:_RUNG_SAMPLES]
    u8s8 = {"per_channel": True, "activation_type": QuantType.QUInt8, "weight_type": QuantType.QInt8}
    yield "onnxruntime, defaults", lambda: _by_onnxruntime(model, samples)
    yield "onnxruntime, u8s8 per channel", lambda: _by_onnxruntime(model, samples, **u8s8)
    yield "nncf, defaults", lambda: _by_nncf(model, samples)
    plain = _quantized(model, samples)
    yield "edgeopt, min-max", lambda: _quantized(model, samples)
    yield "+ bias correction", lambda: correct_bias(model, plain, few)
    yield "+ learned rounding", lambda: learn_rounding(model, plain, few).model
    equalized = equalize(model).model
    level = _quantized(equalized, samples)
    yield "equalized", lambda: _quantized(equalize(model).model, samples)
    yield "equalized + bias correction", lambda: correct_bias(equalized, level, few)
    yield "equalized + learned rounding", lambda: learn_rounding(equalized, level, few).model


def _quantized(model: bytes, samples: Sequence[Sample]) -> bytes:
    """Return ``model`` in int8 as this CPU wants it."""
    reduced = () if host_target().has_vnni else reducible_weights(model)
    recipe = Recipe(precision=Precision.INT8, calibrator=Calibrator.MINMAX, reduced_weights=reduced)
    return quantize_static(model, recipe, collect(model, samples).ranges(recipe.calibrator))


def _by_onnxruntime(model: bytes, samples: Sequence[Sample], **options: Any) -> bytes:
    with tempfile.TemporaryDirectory(prefix="edgeopt-") as folder, silenced():
        result = Path(folder) / "int8.onnx"
        peer_quantize_static(onnx.load_model_from_string(model), str(result), _Reader(samples), **options)
        return result.read_bytes()


def _by_nncf(model: bytes, samples: Sequence[Sample]) -> bytes:
    with silenced():
        import nncf

        data = nncf.Dataset([stack([sample]) for sample in samples])
        made = nncf.quantize(onnx.load_model_from_string(model), data, subset_size=len(samples))
    serialized: bytes = made.SerializeToString()
    return serialized


def _first(model: bytes, samples: Sequence[Sample]) -> Any:
    """Return the first output for all samples."""
    return next(iter(OnnxRuntimeSession(model, threads=1, simulated=True).predict(samples).values()))


@click.command()
@click.option("--only", multiple=True, type=click.Choice(_MODELS), help="These models only.")
@click.option("--certified", default=1000, help="Certification samples at most.")
def main(only: tuple[str, ...], certified: int) -> None:
    """Print the table."""
    print(f"{'model':20} {'step':32} {'agreement':>9} {'error':>7} {'seconds':>8}")
    for name in only or _MODELS:
        for row in rows(name, certified):
            print(f"{row.model:20} {row.step:32} {row.agreement:9.2%} {row.error:7.4f} {row.seconds:8.1f}", flush=True)


if __name__ == "__main__":
    main()
