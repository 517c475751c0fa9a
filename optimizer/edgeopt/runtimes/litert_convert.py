"""From a torch module to a ``.tflite`` model, and from there to int8 ones.

litert-torch converts, ai-edge-quantizer quantizes; this names inputs and outputs as the ONNX model does (in the
signature, which every LiteRT client reads), keeps floats at both ends, and quiets both tools. The batch is one. ONNX
files cannot be converted: there is no maintained way from ONNX to LiteRT. The same versions give the same bytes again.
Example::

    model = convert(module, sample, outputs=["logits"])          # about 20 seconds
    int8 = quantize_litert(model, samples)                       # as fast as the samples run
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import Any

from edgeopt.data import DEFAULT_INPUT
from edgeopt.evaluation_mode import evaluating
from edgeopt.samples import Sample, stack
from edgeopt.silence import silenced, silenced_natively
from edgeopt_contract.errors import MissingExtraError, ModelError

__all__ = ["LiteRtInt8", "convert", "quantize_litert"]

_FILE_IDENTIFIER = b"TFL3"  # schema.fbs of TensorFlow Lite


class LiteRtInt8(StrEnum):
    """What becomes int8; the values are the recipes of ai-edge-quantizer."""

    STATIC = "static_wi8_ai8"  # weights and activations, with ranges from calibration
    DYNAMIC = "dynamic_wi8_afp32"  # weights; activations while it runs
    WEIGHTS = "weight_only_wi8_afp32"  # weights, computed in float


def convert(module: Any, sample: Sample, outputs: Sequence[str]) -> bytes:
    """Return ``module`` (``torch.nn.Module``), in evaluation mode, as a float ``.tflite`` model for one sample.

    ``outputs`` are the names in the order in which the module gives them. Raises :class:`ModelError` with the
    converter's reason.
    """
    litert_torch = _litert_torch()
    import torch

    feeds = {name: torch.from_numpy(array) for name, array in stack([sample]).items()}
    unnamed = set(feeds) == {DEFAULT_INPUT}
    try:
        with silenced_natively(), evaluating(module), torch.no_grad():
            model = litert_torch.convert(
                module, tuple(feeds.values()) if unnamed else (), None if unnamed else feeds
            ).model_content()
    except Exception as error:
        raise ModelError(f"LiteRT cannot convert the model: {type(error).__name__}: {error}") from error
    return _renamed(model, list(feeds) if unnamed else None, outputs)


def quantize_litert(model: bytes, samples: Sequence[Sample], kind: LiteRtInt8 = LiteRtInt8.STATIC) -> bytes:
    """Return the float ``.tflite`` ``model`` in int8, with the same inputs and outputs in float.

    ``samples`` are calibration data, needed for :attr:`LiteRtInt8.STATIC` only. Raises :class:`ModelError`.
    """
    quantizer, recipe, skipped = _quantizer()
    rules = getattr(recipe, kind.value)() + (skipped if kind is LiteRtInt8.STATIC else [])
    try:
        with silenced_natively():
            work = quantizer.Quantizer(model)
            work.load_quantization_recipe(rules)
            feeds = {_signature(model): [stack([sample]) for sample in samples]}
            ranges = work.calibrate(feeds, num_threads=1) if kind is LiteRtInt8.STATIC else None
            return bytes(work.quantize(ranges).quantized_model)
    except Exception as error:
        raise ModelError(f"LiteRT cannot quantize the model ({kind}): {type(error).__name__}: {error}") from error


def _renamed(model: bytes, inputs: Sequence[str] | None, outputs: Sequence[str]) -> bytes:
    """Give the signature these names; it has its tensors in the order of the module. ``None`` keeps them."""
    import flatbuffers
    from ai_edge_litert import schema_py_generated as schema

    graph = schema.ModelT.InitFromPackedBuf(model)
    signature = graph.signatureDefs[0]
    for tensors, names in ((signature.inputs, inputs), (sorted(signature.outputs, key=_position), outputs)):
        if names is None:
            continue
        if len(tensors) != len(names):
            raise ModelError(f"the converted model has {len(tensors)} inputs or outputs, expected {', '.join(names)}")
        for tensor, name in zip(tensors, names, strict=True):
            tensor.name = name
    builder = flatbuffers.Builder(len(model))
    builder.Finish(graph.Pack(builder), _FILE_IDENTIFIER)
    return bytes(builder.Output())


def _position(tensor: Any) -> int:
    """Return the number in ``output_3``."""
    return int(tensor.name.decode().rpartition("_")[2])


def _signature(model: bytes) -> str:
    from ai_edge_litert import schema_py_generated as schema

    key: bytes = schema.ModelT.InitFromPackedBuf(model).signatureDefs[0].signatureKey
    return key.decode()


def _litert_torch() -> Any:
    try:
        with silenced():
            import litert_torch
    except ImportError as error:
        raise MissingExtraError("litert_torch", "litert") from error
    return litert_torch


def _quantizer() -> tuple[Any, Any, list[dict[str, Any]]]:
    """Return ai-edge-quantizer's module, its recipes, and the rules that keep a model's ends in float."""
    try:
        with silenced():
            from ai_edge_quantizer import algorithm_manager, qtyping, quantizer, recipe
    except ImportError as error:
        raise MissingExtraError("ai_edge_quantizer", "litert") from error
    keep = algorithm_manager.AlgorithmName.NO_QUANTIZE
    ends = (qtyping.TFLOperationName.INPUT, qtyping.TFLOperationName.OUTPUT)
    return (
        quantizer,
        recipe,
        [{"regex": ".*", "operation": end, "algorithm_key": keep, "op_config": {}} for end in ends],
    )
