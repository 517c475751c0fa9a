"""What every runtime must do alike, each held against torch: names, dtypes, shapes, batches, refusals."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import nn

from edgeopt.graph import prepare
from edgeopt.models import TorchModel
from edgeopt.recipe import RuntimeName
from edgeopt.runtimes.litert_convert import convert
from edgeopt.runtimes.port import Session, available, open_session
from edgeopt.samples import Sample, stack
from edgeopt_contract.errors import ModelError
from tests.optimizer.edgeopt_zoo import two_inputs
from tests.optimizer.plain_int8 import plain_int8

RUNTIMES = [
    pytest.param(runtime, marks=pytest.mark.runtimes if runtime is RuntimeName.LITERT else ())
    for runtime in RuntimeName
]


@dataclass(frozen=True)
class Case:
    """A module, samples for it, and the names of its outputs."""

    module: nn.Module
    samples: tuple[Sample, ...]
    outputs: tuple[str, ...]

    def expected(self) -> list[np.ndarray]:
        """What torch gives."""
        outputs = TorchModel(self.module).predict(self.samples)
        assert outputs is not None
        return outputs


@functools.cache
def _two_inputs() -> Case:
    random = np.random.default_rng(0)
    samples = tuple(
        Sample({"x": random.standard_normal(16).astype(np.float32), "ids": random.integers(0, 10, 3)}, None)
        for _ in range(40)
    )
    return Case(two_inputs(), samples, ("scores", "total"))


@functools.cache
def _pictures() -> Case:
    torch.manual_seed(0)
    random = np.random.default_rng(0)
    module = nn.Sequential(nn.Conv2d(3, 8, 3), nn.PReLU(8), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5))
    samples = tuple(Sample({"input": random.standard_normal((3, 9, 9)).astype(np.float32)}, None) for _ in range(40))
    return Case(module.eval(), samples, ("logits",))


CASES: dict[str, Callable[[], Case]] = {"two inputs": _two_inputs, "pictures": _pictures}


@functools.cache
def _onnx(name: str) -> bytes:
    case = CASES[name]()
    return TorchModel(case.module).to_onnx(case.samples[0])


@functools.cache
def _tflite(name: str) -> bytes:
    """Convert once: it takes about 20 seconds."""
    case = CASES[name]()
    return convert(case.module, case.samples[0], case.outputs)


def _open(runtime: RuntimeName, name: str, threads: int = 1) -> Session:
    model = _tflite(name) if runtime is RuntimeName.LITERT else _onnx(name)
    return open_session(model, runtime, threads=threads)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("runtime", RUNTIMES)
def test_outputs_are_those_of_torch_in_its_order(runtime: RuntimeName, name: str) -> None:
    """Float models agree to rounding, for all samples at once, with integer inputs and several outputs."""
    case = CASES[name]()
    outputs = list(_open(runtime, name).predict(case.samples).values())
    assert len(case.expected()) == len(outputs)
    for expected, actual in zip(case.expected(), outputs, strict=True):
        assert (expected.shape, expected.dtype) == (actual.shape, actual.dtype)
        assert np.allclose(expected, actual, atol=1e-5)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("runtime", RUNTIMES)
def test_one_sample_at_a_time_is_the_same(runtime: RuntimeName, name: str) -> None:
    """What a device computes is what was judged in batches."""
    case, session = CASES[name](), _open(runtime, name)
    together, singly = session.predict(case.samples), session.predict_singly(case.samples)
    assert list(together) == list(singly)
    for output, expected in together.items():
        assert np.allclose(expected, singly[output], atol=1e-6)


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_inputs_and_specs_say_names_dtypes_and_shapes(runtime: RuntimeName) -> None:
    """The names are those of the data and of the ONNX model, whatever the runtime calls them."""
    case, session = _two_inputs(), _open(runtime, "two inputs")
    whole = "int32" if runtime is RuntimeName.LITERT else "int64"  # its converter has no 64-bit inputs
    assert {"x": ("float32", (16,)), "ids": (whole, (3,))} == dict(session.inputs)
    inputs, outputs = session.specs(case.samples[0])
    assert [("x", "float32", (16,)), ("ids", "int64", (3,))] == [(one.name, one.dtype, one.shape) for one in inputs]
    assert [(4,), (1,)] == [one.shape for one in outputs]
    names = case.outputs if runtime is RuntimeName.LITERT else tuple(_open_names())
    assert names == tuple(one.name for one in outputs)


def _open_names() -> list[str]:
    import onnx

    return [output.name for output in onnx.load_model_from_string(_onnx("two inputs")).graph.output]


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_outputs_are_kept_when_the_model_runs_again(runtime: RuntimeName) -> None:
    """A runtime may reuse its memory; what was returned must not change."""
    case, session = _pictures(), _open(runtime, "pictures")
    first = session.predict(case.samples[:1])
    kept = {name: array.copy() for name, array in first.items()}
    session.predict(case.samples[1:2])
    assert all(np.array_equal(kept[name], first[name]) for name in kept)


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_a_timed_call_runs_the_sample_it_was_given(runtime: RuntimeName) -> None:
    """Two calls on one session take turns without changing each other's feeds."""
    case, session = _pictures(), _open(runtime, "pictures")
    calls = [session.call_on(stack([sample])) for sample in case.samples[:2]]
    expected = case.expected()[0]
    for _ in range(2):
        for number, call in enumerate(calls):
            (output,) = _arrays(call())
            assert np.allclose(expected[number], output, atol=1e-5)


def _arrays(result: object) -> list[np.ndarray]:
    """What a call gives: a list, or OpenVINO's mapping from ports."""
    values = result.values() if hasattr(result, "values") else result
    return [np.asarray(value)[0] for value in values]  # type: ignore[attr-defined]


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_more_threads_change_no_answer(runtime: RuntimeName) -> None:
    """The number of threads is a matter of time only."""
    case = _pictures()
    actual = _open(runtime, "pictures", threads=2).predict(case.samples)
    assert np.allclose(case.expected()[0], next(iter(actual.values())), atol=1e-5)


@pytest.mark.parametrize("runtime", RuntimeName)
def test_rubbish_is_refused_by_name_of_the_runtime(runtime: RuntimeName) -> None:
    """Bytes that are no model: an error of the model, which says who could not read it."""
    with pytest.raises(ModelError, match=r"ONNX Runtime .* cannot load|OpenVINO .* cannot load|LiteRT cannot load"):
        open_session(b"rubbish" * 9, runtime, threads=1)


@pytest.mark.parametrize(
    ("sample", "message"),
    [
        (Sample({"picture": np.zeros((3, 9, 9), np.float32)}, None), "expected the inputs .'input'., got .'picture'."),
        (Sample({"input": np.zeros((3, 9, 9), np.float64)}, None), "expected float32 .* got float64"),
        (Sample({"input": np.zeros((1, 9, 9), np.float32)}, None), "3 x 9 x 9.* got float32 of shape .1 x 9 x 9"),
        (Sample({"input": np.zeros((3, 9), np.float32)}, None), "3 x 9 x 9.* got float32 of shape .3 x 9."),
    ],
)
@pytest.mark.parametrize("runtime", RUNTIMES)
def test_data_that_does_not_fit_is_refused(runtime: RuntimeName, sample: Sample, message: str) -> None:
    """Some runtimes would cast or reshape it in silence."""
    with pytest.raises(ModelError, match=f"failed on the data: .*{message}"):
        _open(runtime, "pictures").predict([sample])


@pytest.mark.runtimes
def test_whole_numbers_that_litert_would_cut_off_are_refused() -> None:
    """They may come in 64 bits, as for the other runtimes, as long as 32 can hold them."""
    sample = Sample({"x": np.zeros(16, np.float32), "ids": np.array([0, 1, 2**40])}, None)
    with pytest.raises(ModelError, match=f"numbers from 0 to {2**40}: the .tflite model takes int32 only"):
        _open(RuntimeName.LITERT, "two inputs").predict([sample])


def test_the_installed_runtimes_are_named_with_their_versions() -> None:
    """The report says by which version a variant was judged."""
    import onnxruntime
    import openvino

    found = available()
    assert set(RuntimeName) == set(found)
    assert onnxruntime.__version__ == found[RuntimeName.ONNXRUNTIME]
    assert openvino.get_version().startswith(found[RuntimeName.OPENVINO])


@pytest.mark.parametrize("runtime", [RuntimeName.OPENVINO, RuntimeName.LITERT])
def test_only_onnxruntime_simulates(runtime: RuntimeName) -> None:
    """Asking another one for it must not be answered with its own kernels."""
    with pytest.raises(ModelError, match="only onnxruntime can"):
        open_session(_onnx("pictures"), runtime, threads=1, simulated=True)


@pytest.mark.parametrize("runtime", [RuntimeName.ONNXRUNTIME, RuntimeName.OPENVINO])
def test_int8_in_qdq_form_is_run(runtime: RuntimeName) -> None:
    """Seven-bit weights do not saturate: whoever runs it, it stays close to the float model."""
    case = _pictures()
    model = plain_int8(prepare(_onnx("pictures")).model, case.samples)
    (actual,) = open_session(model, runtime, threads=1).predict(case.samples).values()
    expected = case.expected()[0]
    assert 0.05 > np.abs(expected - actual).mean() / expected.std()
