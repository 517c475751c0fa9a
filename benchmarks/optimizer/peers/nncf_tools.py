"""NNCF: its defaults on the ONNX model and on OpenVINO's, and its quantization with accuracy control.

Accuracy control gets what edgeopt gets: the selection samples, the metric, and the greatest drop of it. Example::

    Nncf("nncf on OpenVINO IR", ir=True).quantize(work)
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx

from benchmarks.optimizer.peers.openvino_tools import read_onnx, saved
from benchmarks.optimizer.peers.port import Form, Made, Work
from edgeopt.metrics import accuracy
from edgeopt.recipe import RuntimeName
from edgeopt.samples import Array, Sample, stack

__all__ = ["Nncf", "NncfControlled"]

_VALIDATED = 1000  # selection samples that accuracy control judges by: it ranks layers with them, again and again


@dataclass(frozen=True, slots=True)
class Nncf:
    """``nncf.quantize`` with its defaults; ``ir``: on OpenVINO's form of the model, which OpenVINO then runs."""

    name: str
    ir: bool
    needs: tuple[str, ...] = ("nncf", "openvino")

    def quantize(self, work: Work) -> Made:
        """Return static int8."""
        import nncf

        data = nncf.Dataset([stack([sample]) for sample in work.calibration])
        return _made(nncf.quantize(_read(work, ir=self.ir), data), ir=self.ir)


@dataclass(frozen=True, slots=True)
class NncfControlled:
    """``nncf.quantize_with_accuracy_control``: it takes layers back to float until the drop is within the limit."""

    name: str
    ir: bool
    needs: tuple[str, ...] = ("nncf", "openvino")

    def quantize(self, work: Work) -> Made:
        """Return int8 with some layers in float."""
        import nncf

        samples = work.selection[:: max(len(work.selection) // _VALIDATED, 1)][:_VALIDATED]
        answers = _Answers(work, samples)
        made = nncf.quantize_with_accuracy_control(
            _read(work, ir=self.ir),
            nncf.Dataset([stack([sample]) for sample in work.calibration]),
            nncf.Dataset(list(range(len(samples))), lambda index: stack([samples[index]])),
            answers.validate,
            max_drop=work.max_drop,
        )
        return _made(made, ir=self.ir)


class _Answers:
    """Judges a model for NNCF by the metric: right answers, or those equal to the float model's."""

    def __init__(self, work: Work, samples: Sequence[Sample]) -> None:
        self._feeds = [stack([sample]) for sample in samples]
        if work.metric == "accuracy":
            self._labels = [sample.label for sample in samples]
        else:
            first = _first_of_onnx(work.float_model)
            self._labels = [int(first(feeds).argmax()) for feeds in self._feeds]

    def validate(self, model: Any, _data: Iterable[Any]) -> tuple[float, list[float]]:
        """Return the mean score and that of each sample; ``model`` is compiled by OpenVINO, or an ONNX model."""
        first = _first_of_onnx(model.SerializeToString()) if isinstance(model, onnx.ModelProto) else _first_of_ir(model)
        rows = np.concatenate([first(feeds) for feeds in self._feeds])
        scores = accuracy({"answers": rows}, self._labels)
        return float(scores.mean()), [float(score) for score in scores]


def _first_of_ir(model: Any) -> Callable[[dict[str, Array]], Array]:
    """Return what computes the first output of a compiled OpenVINO model."""
    return lambda feeds: np.array(model(feeds)[0])


def _first_of_onnx(model: bytes) -> Callable[[dict[str, Array]], Array]:
    """Return what computes the first output of an ONNX model."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    return lambda feeds: np.asarray(session.run(None, feeds)[0])


def _read(work: Work, *, ir: bool) -> Any:
    return read_onnx(work.float_model) if ir else onnx.load_model_from_string(work.float_model)


def _made(model: Any, *, ir: bool) -> Made:
    if ir:
        return Made(model=saved(model), runtime=RuntimeName.OPENVINO, form=Form.IR)
    return Made(model=model.SerializeToString())
