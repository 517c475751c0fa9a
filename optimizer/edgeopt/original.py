"""The float model made ready: exported, prepared, held against itself at each step.

It quantizes and judges nothing. Example::

    original = make_ready(model, splits, setting)
    original.stages              # what exporting and preparing did to the outputs, on certification samples
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgeopt.data import fit_to
from edgeopt.graph import prepare
from edgeopt.metrics import output_error
from edgeopt.models import Model
from edgeopt.preprocess import bind, fold
from edgeopt.preprocess_steps import Preprocessing
from edgeopt.recipe import RuntimeName
from edgeopt.results import StageResult
from edgeopt.runtimes.port import Session, open_session
from edgeopt.samples import Array, Sample
from edgeopt.scoring import Metric
from edgeopt.search.workshop import Float
from edgeopt.sources import SplitData
from edgeopt.stages import Original, Setting
from edgeopt_contract.errors import ModelError

__all__ = ["STAGE_SAMPLES", "make_ready", "prepared_float", "stage_of"]

STAGE_SAMPLES = 200  # certification samples on which a stage is looked at: torch is slow, and the drop is a hint only
_PARITY_SAMPLES = 16
_PARITY = 0.01  # greatest mean difference between the original and its ONNX form, in standard deviations


def make_ready(model: Model, splits: SplitData, setting: Setting) -> Original:
    """Return ``model`` as it will run. Raises :class:`ModelError` when exporting changed what it computes."""
    threads, steps = setting.request.threads, setting.steps
    sample = steps.applied(splits.calibration[0])
    exported = bind(model.to_onnx(sample), steps)
    prepared = prepare(exported, _shapes(sample))
    ready = fold(prepared.model, steps)
    session = open_session(ready, RuntimeName.ONNXRUNTIME, threads=threads)
    fitted = splits.fitted(session.inputs)
    raw = open_session(exported, RuntimeName.ONNXRUNTIME, threads=threads)
    way = _Way(model, raw, session, steps)
    _check_parity(*way.ends(splits.calibration[:_PARITY_SAMPLES], fitted.calibration[:_PARITY_SAMPLES]))
    baseline = session.predict(fitted.certification)
    few = splits.certification[:STAGE_SAMPLES], fitted.certification[:STAGE_SAMPLES]
    labels = [sample.label for sample in few[0]]
    outputs = way.outputs(*few)
    first = next(iter(outputs.values()))
    near = f"{splits.near_duplicates} samples are nearly the same as others, and share their split"
    return Original(
        float=Float(ready, model.module),
        session=session,
        splits=fitted,
        baseline=baseline,
        stages=tuple(stage_of(stage, first, found, labels, setting.metric) for stage, found in outputs.items()),
        notes=(*prepared.notes, *([near] if splits.near_duplicates else [])),
    )


@dataclass(frozen=True, slots=True)
class _Way:
    """The model at each stage up to what will run: the original, as exported, and prepared with the steps folded in."""

    model: Model
    exported: Session
    ready: Session
    steps: Preprocessing

    def outputs(self, raw: Sequence[Sample], fitted: Sequence[Sample]) -> dict[str, Mapping[str, Array]]:
        """Return the outputs of each stage; ``raw`` are the samples as read, ``fitted`` those of the ready model."""
        applied = [self.steps.applied(sample) for sample in raw]
        exported = self.exported.predict(fit_to(applied, self.exported.inputs))
        stages: dict[str, Mapping[str, Array]] = {
            "onnx": self.steps.answered(exported),
            "prepared": self.ready.predict(fitted),
        }
        original = self.model.predict(applied)
        if original is None:
            return stages
        named = dict(zip(exported, original, strict=False))
        return {"torch": self.steps.answered(named), **stages}

    def ends(self, raw: Sequence[Sample], fitted: Sequence[Sample]) -> tuple[list[Array], list[Array]]:
        """Return the outputs of the first and of the last stage."""
        stages = list(self.outputs(raw, fitted).values())
        return list(stages[0].values()), list(stages[-1].values())


def prepared_float(model: Model, sample: Sample, steps: Preprocessing) -> Float:
    """Return another network, such as a pruned one, as it will run; ``sample`` is one of the data as they were read."""
    applied = steps.applied(sample)
    exported = bind(model.to_onnx(applied), steps)
    return Float(fold(prepare(exported, _shapes(applied)).model, steps), model.module)


def _shapes(sample: Sample) -> dict[str, tuple[int, ...]]:
    return {name: array.shape for name, array in sample.inputs.items()}


def stage_of(
    stage: str, reference: Mapping[str, Array], outputs: Mapping[str, Array], labels: Sequence[Any], metric: Metric
) -> StageResult:
    """Return how near ``outputs`` are to those of the first stage, ``reference``."""
    _, scores = metric.scores(reference, outputs, labels)
    return StageResult(
        stage=stage,
        score=float(scores.mean()),
        agreement=float(metric.agreement(reference, outputs).mean()),
        error=output_error(reference, outputs),
        n=len(labels),
    )


def _check_parity(expected: Sequence[Array], actual: Sequence[Array]) -> None:
    """Raise :class:`ModelError` when the exported model computes something else than the original."""
    for index, (want, have) in enumerate(zip(expected, actual, strict=False)):
        if want.shape != have.shape:
            raise ModelError(f"export changed output {index}: expected shape {want.shape}, got {have.shape}")
        difference = float(np.abs(want.astype(np.float64) - have.astype(np.float64)).mean())
        scale = float(want.std()) or 1.0
        if not difference <= _PARITY * scale:
            raise ModelError(
                f"export changed the model: output {index} differs by {difference:.3g} on average, its standard "
                f"deviation is {scale:.3g}; look for code that depends on data, or on training mode"
            )
