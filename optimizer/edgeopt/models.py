"""Loading the user's model and exporting it to ONNX.

MODEL is ``package.module:factory`` (called without arguments, gives a ``torch.nn.Module``), an ``.onnx`` file, a
``.pt2`` file (:mod:`edgeopt.exported`), or ``models:/name/version`` of MLflow (:mod:`edgeopt.tracking.registry`).
Pickled modules are never unpickled (that would run code from the file), and TorchScript cannot go through the exporter;
these and other formats are refused with the way out. It changes nothing in the graph: that is :mod:`edgeopt.graph`.
Example::

    model = load_model("examples.digits:model")
    exported = model.to_onnx(sample)                 # bytes
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from edgeopt.data import DEFAULT_INPUT
from edgeopt.evaluation_mode import evaluating
from edgeopt.exported import OPSET, first_cause, load_exported
from edgeopt.files.reading import Shape
from edgeopt.graph import input_shapes, op_types, with_external_weights
from edgeopt.loading import call_user_code, is_reference, load_attribute
from edgeopt.samples import Array, Sample, stack
from edgeopt.silence import silenced
from edgeopt_contract.errors import MissingExtraError, ModelError

__all__ = ["Model", "OnnxModel", "TorchModel", "load_model"]

_INTEGER_OPERATORS = frozenset(
    (
        "QuantizeLinear",
        "DequantizeLinear",
        "DynamicQuantizeLinear",
        "QLinearConv",
        "QLinearMatMul",
        "ConvInteger",
        "MatMulInteger",
    )
)
_FACTORY = "write a function that builds the module and loads its weights, and give it as 'package.module:function'"
_PICKLED = "a pickled file would run code when loaded, and is never opened"
_WAY_OUT_OF: dict[str, tuple[str, str]] = {
    ".ts": ("TorchScript cannot go through torch's exporter", _FACTORY),
    **dict.fromkeys(
        (".pt", ".pth", ".ckpt", ".bin"), (_PICKLED, f"{_FACTORY}; torch.load(path, weights_only=True) reads weights")
    ),
    **dict.fromkeys(
        (".pkl", ".pickle", ".joblib"),
        (_PICKLED, f"for a torch module, {_FACTORY}; for scikit-learn, convert the model with skl2onnx"),
    ),
    ".safetensors": ("it holds weights without the network", f"{_FACTORY}; safetensors.torch.load_file reads weights"),
    **dict.fromkeys(
        (".h5", ".keras", ".pb"),
        ("it is a TensorFlow or Keras model", "convert it with tf2onnx (opset 17), and give the .onnx"),
    ),
    ".tflite": (
        "a LiteRT file is what edgeopt makes, not what it starts from",
        "give the float model it was made from, as a torch factory or as .onnx",
    ),
    **dict.fromkeys(
        (".ort", ".xml", ".engine", ".plan", ".mlmodel", ".mlpackage", ".gguf", ".nb", ".param"),
        ("it is compiled for one runtime", "give the float model it was made from, as a torch factory or as .onnx"),
    ),
}


class Model(Protocol):
    """A float model that can be turned into ONNX."""

    @property
    def module(self) -> Any:
        """The ``torch.nn.Module``, for converters that start from it; ``None`` when there is none."""

    def input_shape(self) -> Shape | None:
        """Return the shape of the only input without batch dimension; ``None`` when that is not known."""

    def to_onnx(self, sample: Sample) -> bytes:
        """Return the model as ONNX; ``sample`` gives names, shapes and dtypes of the inputs."""

    def predict(self, samples: Sequence[Sample]) -> list[Array] | None:
        """Return the original's outputs in order for ``samples``, or ``None`` when ONNX is the original."""


def load_model(reference: str) -> Model:
    """Load what the user names. Raises :class:`ModelError`, saying what was expected and what to do."""
    for is_meant, load in _LOADERS:
        if is_meant(reference):
            return load(reference)
    raise ModelError(f"cannot load {reference!r}: expected 'package.module:factory', an .onnx or a .pt2 file")


class OnnxModel:
    """A model that came as ONNX."""

    def __init__(self, model: bytes) -> None:
        self._model = model

    @property
    def module(self) -> None:
        """``None``: the file is no module."""
        return

    def input_shape(self) -> Shape | None:
        """Return the shape of the only input; ``None`` when there are several. Raises :class:`ModelError`."""
        shapes = list(input_shapes(self._model).values())
        return shapes[0] if len(shapes) == 1 else None

    def to_onnx(self, sample: Sample) -> bytes:  # noqa: ARG002  (the port gives it; a file needs no example)
        """Return the file's bytes."""
        return self._model

    def predict(self, samples: Sequence[Sample]) -> None:  # noqa: ARG002  (there is nothing to compare with)
        """Return ``None``: the file itself is the original."""
        return


class TorchModel:
    """A ``torch.nn.Module``, run and exported in evaluation mode and left in the mode in which it came."""

    def __init__(self, module: Any) -> None:
        self._module = module

    @property
    def module(self) -> Any:
        """The module itself."""
        return self._module

    def input_shape(self) -> None:
        """Return ``None``: a module does not say what it wants."""
        return

    def to_onnx(self, sample: Sample) -> bytes:
        """Export with the dynamo exporter, with a free batch dimension where the module allows one.

        Raises :class:`ModelError` with the exporter's reason.
        """
        import torch

        feeds = _tensors(stack([sample, sample]))  # two: the exporter treats a batch of one as a constant
        shapes = ", ".join(f"{name} {' x '.join(map(str, array.shape))}" for name, array in sample.inputs.items())
        try:
            with evaluating(self._module), torch.no_grad():
                outputs = call_user_code(
                    lambda: self._call(feeds), f"running the model on a sample of the data ({shapes})", ModelError
                )
        except ModelError as error:
            raise ModelError(f"{error}; {_advice(self._module)}") from error
        _check_outputs(outputs)
        try:
            return self._export(feeds, free_batch=True)
        except Exception:
            first = _tensors(stack([sample]))
            try:
                return self._export(first, free_batch=False)
            except Exception as error:
                raise ModelError(
                    f"torch.onnx.export(dynamo=True) cannot export the model: {first_cause(error)}; rewrite it, or "
                    "export it yourself and give the .onnx file"
                ) from error

    def predict(self, samples: Sequence[Sample]) -> list[Array]:
        """Return the module's outputs in order."""
        import torch

        with evaluating(self._module), torch.no_grad():  # what a module keeps of inference mode cannot be trained
            outputs = self._call(_tensors(stack(samples)))
        return [np.asarray(output) for output in _flat(outputs)]

    def _call(self, feeds: dict[str, Any]) -> Any:
        """Call the module: a single unnamed input by position, named ones by keyword."""
        return self._module(feeds[DEFAULT_INPUT]) if set(feeds) == {DEFAULT_INPUT} else self._module(**feeds)

    def _export(self, feeds: dict[str, Any], *, free_batch: bool) -> bytes:
        import torch

        unnamed = set(feeds) == {DEFAULT_INPUT}
        axes = {0: torch.export.Dim.DYNAMIC} if free_batch else {}
        with silenced(), evaluating(self._module), torch.no_grad():  # inference mode: see predict
            program = torch.onnx.export(
                self._module,
                args=tuple(feeds.values()) if unnamed else (),
                kwargs=None if unnamed else feeds,
                dynamo=True,
                opset_version=OPSET,
                input_names=list(feeds),
                dynamic_shapes=(axes,) if unnamed else dict.fromkeys(feeds, axes),
                verbose=False,
            )
            assert program is not None  # dynamo=True always gives a program
            data: bytes = program.model_proto.SerializeToString()
        return data


def _tensors(batch: dict[str, Array]) -> dict[str, Any]:
    import torch

    return {name: torch.from_numpy(np.ascontiguousarray(array)) for name, array in batch.items()}


def _flat(outputs: Any) -> list[Any]:
    """Return what a module gives as a list, in the order of the exporter, which leaves out ``None``."""
    from torch.utils import _pytree

    return [leaf for leaf in _pytree.tree_leaves(outputs) if leaf is not None]


def _check_outputs(outputs: Any) -> None:
    import torch

    flat = _flat(outputs)
    odd = next((type(output).__name__ for output in flat if not isinstance(output, torch.Tensor)), None)
    if odd is not None or not flat:
        raise ModelError(
            f"the model gives {odd or 'nothing'}: expected one tensor, or several in a tuple, list or dict; let its "
            "forward return those that a device needs"
        )


def _advice(module: Any) -> str:
    """Return what to do about a module that does not take the data; its weights may be of another kind."""
    import torch

    for name, tensor in module.state_dict().items():
        if tensor.device.type != "cpu":
            return f"its weight {name} is on the device '{tensor.device}': let the factory return it with .cpu()"
        if tensor.is_floating_point() and tensor.dtype != torch.float32:
            return f"its weight {name} is {tensor.dtype}: let the factory return it with .float()"
    return "give data of the shape that the model takes, without batch dimension"


def _suffixed(suffix: str) -> Callable[[str], bool]:
    return lambda reference: Path(reference).suffix.lower() == suffix


def _refuse(reference: str) -> Model:
    reason, way_out = _WAY_OUT_OF[Path(reference).suffix.lower()]
    raise ModelError(f"{reference}: {reason}; {way_out}")


def _refuse_folder(reference: str) -> Model:
    kind = "a TensorFlow SavedModel" if (Path(reference) / "saved_model.pb").exists() else "a folder"
    raise ModelError(
        f"{reference} is {kind}: expected 'package.module:factory', an .onnx or a .pt2 file; tf2onnx converts "
        "TensorFlow's models, optimum those of Hugging Face, to ONNX"
    )


def _load_factory(reference: str) -> Model:
    factory = load_attribute(reference, ModelError)
    return TorchModel(_check_module(call_user_code(factory, f"calling {reference}()", ModelError), reference))


def _check_module(value: Any, reference: str) -> Any:
    try:
        import torch
    except ModuleNotFoundError as error:
        raise MissingExtraError("torch", "optimizer") from error
    if isinstance(value, torch.jit.ScriptModule):
        raise ModelError(
            f"{reference}() gave a TorchScript module, which cannot go through torch's exporter; {_FACTORY}"
        )
    if not isinstance(value, torch.nn.Module):
        raise ModelError(f"{reference}() gave {type(value).__name__}: expected a torch.nn.Module")
    return value


def _load_onnx(reference: str) -> Model:
    path = Path(reference)
    try:
        data = path.read_bytes()
    except FileNotFoundError as error:
        raise ModelError(f"there is no file {path}: check the path") from error
    except OSError as error:
        raise ModelError(f"cannot read {path}: {error.strerror}") from error
    if not data:
        raise ModelError(f"{path} is empty: export the model again, or copy it again")
    data = with_external_weights(data, path)
    integers = sorted(op_types(data) & _INTEGER_OPERATORS)
    if integers:
        raise ModelError(
            f"{path} is quantized already (it uses {integers[0]}): give the float model, from which edgeopt starts"
        )
    return OnnxModel(data)


def _load_registered(reference: str) -> Model:
    from edgeopt.tracking.registry import load_registered

    return load_registered(reference, load_model)


def _is_pruned(reference: str) -> bool:
    return (Path(reference) / "pruning.json").is_file()


def _load_pruned(reference: str) -> TorchModel:
    from edgeopt.pruning.saved import load_pruned

    return TorchModel(load_pruned(Path(reference)))


_LOADERS: tuple[tuple[Callable[[str], bool], Callable[[str], Model]], ...] = (
    (lambda reference: reference.startswith("models:/"), _load_registered),
    (lambda reference: Path(reference).suffix.lower() in _WAY_OUT_OF, _refuse),
    (_suffixed(".onnx"), _load_onnx),
    (_suffixed(".pt2"), lambda reference: load_exported(Path(reference))),
    (is_reference, _load_factory),
    (_is_pruned, _load_pruned),
    (lambda reference: Path(reference).is_dir(), _refuse_folder),
)
