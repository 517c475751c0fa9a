"""Olive (olive-ai): its static and dynamic quantization passes for ONNX models.

Example::

    OliveStatic("olive, static").quantize(work)             # in the environment of benchmarks.optimizer.peers.apart
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.optimizer.peers.port import Made, Work
from edgeopt.samples import Sample

__all__ = ["Olive"]

_DATA = "edgeopt_benchmark_samples"


@dataclass(frozen=True, slots=True)
class Olive:
    """One pass with ``options``; calibration data are given to passes that take them."""

    name: str
    kind: str = "OnnxStaticQuantization"
    options: Mapping[str, Any] = field(default_factory=dict)
    needs: tuple[str, ...] = ("olive-ai",)

    def quantize(self, work: Work) -> Made:
        """Return what the pass makes."""
        from olive.hardware import DEFAULT_CPU_ACCELERATOR
        from olive.model import ONNXModelHandler
        from olive.passes.olive_pass import create_pass_from_dict
        from olive.passes.onnx import quantization

        options = dict(self.options)
        if self.kind == "OnnxStaticQuantization":
            options["data_config"] = _data_config(work.calibration)
        with tempfile.TemporaryDirectory() as folder:
            source = Path(folder) / "float.onnx"
            source.write_bytes(work.float_model)
            work_pass = create_pass_from_dict(
                getattr(quantization, self.kind), options, disable_search=True, accelerator_spec=DEFAULT_CPU_ACCELERATOR
            )
            made = work_pass.run(ONNXModelHandler(str(source)), str(Path(folder) / "made"))
            return Made(model=Path(made.model_path).read_bytes())


def _data_config(samples: Sequence[Sample]) -> Any:
    """Return Olive's description of the calibration data: a data set of pairs (inputs, label)."""
    from olive.data.config import DataComponentConfig, DataConfig
    from olive.data.registry import Registry

    @Registry.register_dataset(_DATA)  # type: ignore[untyped-decorator]  # olive publishes no types
    def load(**_options: Any) -> Any:
        return [(dict(sample.inputs), 0) for sample in samples]

    return DataConfig(
        name="calibration",
        load_dataset_config=DataComponentConfig(type=_DATA),
        pre_process_data_config=DataComponentConfig(type="skip_pre_process"),
        post_process_data_config=DataComponentConfig(type="skip_post_process"),
        dataloader_config=DataComponentConfig(type="default_dataloader", params={"batch_size": 1}),
    )
