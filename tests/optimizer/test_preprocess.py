"""The folded graph on raw data answers as numpy's steps and the original do; the folded nodes stay in float."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeopt.graph import prepare
from edgeopt.preprocess import bind, fold, folded_nodes
from edgeopt.preprocess_config import read_preprocessing
from edgeopt.preprocess_steps import (
    INPUT_STEPS,
    OUTPUT_STEPS,
    Argmax,
    ChannelsFirst,
    Crop,
    Grayscale,
    InputStep,
    Normalize,
    OutputStep,
    Preprocessing,
    Resize,
    ReverseChannels,
    Scale,
    Sigmoid,
    Softmax,
    ToFloat,
)
from edgeopt.runtimes.onnx_runtime import OnnxRuntimeSession
from edgeopt.samples import Sample
from edgeopt_contract.errors import DataError, ModelError, UsageError
from tests.optimizer import wild_graphs as wild
from tests.optimizer.minmax_int8 import minmax_int8

CAMERA = (ChannelsFirst(), ToFloat(dtype="uint8"))
IMAGENET = Normalize(mean=(123.7, 116.3, 103.5), std=(58.4, 57.1, 57.4))


def _identity(*sizes: int | str, outputs: int = 1) -> bytes:
    """Return a model that gives back what it gets."""
    names = [f"y{index}" for index in range(outputs)]
    nodes = [onnx.helper.make_node("Identity", ["x"], [name]) for name in names]
    shape = ["n", *sizes]
    return wild.model(nodes, [("x", wild.FLOAT, shape)], [(name, wild.FLOAT, shape) for name in names])


def _photos(height: int, width: int, channels: int = 3, dtype: str = "uint8", count: int = 3) -> list[Sample]:
    random = np.random.default_rng(height * width)
    shape = (count, height, width, channels)
    return [Sample({"input": picture.astype(dtype)}, 0) for picture in random.integers(0, 256, shape)]


def _agree(model: bytes, steps: Preprocessing, raw: Sequence[Sample], tolerance: float = 1e-5) -> dict[str, np.ndarray]:
    """Hold the folded graph against numpy's steps around the original; return the answers."""
    folded = OnnxRuntimeSession(fold(model, steps), threads=1)
    original = OnnxRuntimeSession(model, threads=1)
    (wanted,) = original.inputs
    expected = steps.answered(
        original.predict([Sample({wanted: steps.applied(one).inputs["input"]}, None) for one in raw])
    )
    actual = folded.predict([Sample({wanted: one.inputs["input"]}, None) for one in raw])
    assert list(expected) == list(actual)
    for name, want in expected.items():
        assert want.dtype == actual[name].dtype
        np.testing.assert_allclose(actual[name], want, rtol=tolerance, atol=tolerance)
    singly = folded.predict_singly([Sample({wanted: one.inputs["input"]}, None) for one in raw])
    assert all(np.allclose(singly[name], actual[name], atol=1e-5) for name in actual)
    return actual


@pytest.mark.parametrize(
    ("steps", "shape", "raw"),
    [
        ((ToFloat(dtype="uint8"),), (9, 7, 3), _photos(9, 7)),
        ((ToFloat(dtype="int16"),), (9, 7, 3), _photos(9, 7, dtype="int16")),
        (CAMERA, (3, 9, 7), _photos(9, 7)),
        ((*CAMERA, ReverseChannels()), (3, 9, 7), _photos(9, 7)),
        ((*CAMERA, Grayscale()), (1, 9, 7), _photos(9, 7)),
        ((*CAMERA, Scale(factor=1 / 255)), (3, 9, 7), _photos(9, 7)),
        ((*CAMERA, IMAGENET), (3, 9, 7), _photos(9, 7)),
        ((*CAMERA, Normalize(mean=(127.0,), std=(128.0,))), (3, 9, 7), _photos(9, 7)),
        ((*CAMERA, Resize(height=13, width=5)), (3, 13, 5), _photos(9, 7)),
        ((*CAMERA, Resize(height=4, width=20)), (3, 4, 20), _photos(9, 7)),
        ((ChannelsFirst(), Crop(height=4, width=5), ToFloat(dtype="uint8")), (3, 4, 5), _photos(9, 7)),
        ((*CAMERA, Resize(height=20, width=24), Crop(height=16, width=16), IMAGENET), (3, 16, 16), _photos(31, 17)),
        (
            (*CAMERA, ReverseChannels(), Scale(factor=1 / 255), Grayscale(), Normalize(mean=(0.5,), std=(0.2,))),
            (1, 9, 7),
            _photos(9, 7),
        ),
    ],
    ids=lambda value: "-".join(type(step).__name__ for step in value) if isinstance(value, tuple) else "",
)  # fmt: skip  (a table)
def test_steps_before_the_model(steps: tuple[InputStep, ...], shape: tuple[int, ...], raw: list[Sample]) -> None:
    """Each step alone, and chains of them."""
    _agree(_identity(*shape), Preprocessing(inputs=steps), raw, 1e-4)


@pytest.mark.parametrize("step", [Softmax(), Sigmoid(), Argmax()], ids=lambda step: type(step).__name__)
def test_steps_behind_the_model(step: OutputStep) -> None:
    """On scores of any rank."""
    scores = [Sample({"input": row}, 0) for row in np.random.default_rng(0).normal(0, 9, (5, 4, 6)).astype(np.float32)]
    (answers,) = _agree(_identity(4, 6), Preprocessing(outputs=(step,)), scores).values()
    assert {True: np.int64, False: np.float32}[isinstance(step, Argmax)] == answers.dtype


@given(height=st.integers(1, 12), width=st.integers(1, 12), to=st.tuples(st.integers(1, 15), st.integers(1, 15)))
@settings(max_examples=40, deadline=None)
def test_resizing_is_what_torch_means_by_it(height: int, width: int, to: tuple[int, int]) -> None:
    """Torch is another implementation of bilinear interpolation between pixel centres."""
    picture = np.random.default_rng(0).random((2, height, width)).astype(np.float32)
    expected = torch.nn.functional.interpolate(torch.from_numpy(picture)[None], to, mode="bilinear")[0].numpy()
    np.testing.assert_allclose(Resize(height=to[0], width=to[1]).apply(picture), expected, atol=1e-5)


class TestWholeModels:
    """Convolutions with steps on both sides."""

    steps = Preprocessing(inputs=(*CAMERA, Resize(height=8, width=8), IMAGENET), outputs=(Softmax(name="scores"),))

    def test_the_folded_nodes_stay_in_float(self) -> None:
        """They have names that begin alike; quantized around them, the model still answers nearly the same."""
        prepared = prepare(wild.several_outputs()).model
        folded = fold(prepared, self.steps)
        names = folded_nodes(folded)
        assert () == folded_nodes(prepared)
        assert {"preprocess", "postprocess"} == {name.split("/")[0] for name in names}
        raw = [Sample({"x": one.inputs["input"]}, 0) for one in _photos(20, 30, count=16)]
        int8 = minmax_int8(folded, raw, operators=("Conv", "Gemm"))
        assert names == folded_nodes(int8)
        graph = onnx.load_model_from_string(int8).graph
        producers = {output: node.op_type for node in graph.node for output in node.output}
        outer = [node for node in graph.node if node.name in names and node.name.startswith("preprocess/")]
        assert "DequantizeLinear" not in {producers.get(name) for node in outer for name in node.input}
        before, after = (OnnxRuntimeSession(one, threads=1, simulated=True).predict(raw) for one in (folded, int8))
        assert np.corrcoef(before["scores"].ravel(), after["scores"].ravel())[0, 1] > 0.98
        assert np.allclose(1, before["scores"].sum(axis=1), atol=1e-5)

    def test_inputs_and_outputs_keep_their_names_and_order(self) -> None:
        """A device that fed floats before now feeds bytes, under the same name; other outputs are untouched."""
        folded = fold(prepare(wild.several_outputs()).model, self.steps)
        assert {"x": ("uint8", (None, None, 3))} == OnnxRuntimeSession(folded, threads=1).inputs
        assert ["scores", "box", "features"] == [one.name for one in onnx.load_model_from_string(folded).graph.output]
        assert folded == fold(prepare(wild.several_outputs()).model, self.steps)
        _agree(prepare(wild.several_outputs()).model, self.steps, _photos(20, 30), 1e-4)

    def test_every_opset_that_models_are_prepared_at(self) -> None:
        """The nodes mean the same from 13 to 21, branches that read the input included."""
        for opset in (13, 17, 18, 21):
            prepared = prepare(wild.prelu(opset)).model
            _agree(prepared, Preprocessing(inputs=self.steps.inputs), _photos(9, 11), 1e-4)
        branching = wild.real_if()
        _agree(branching, Preprocessing(inputs=(*CAMERA, Scale(factor=1 / 255))), _photos(8, 8))

    def test_nothing_to_fold_changes_nothing_and_twice_is_refused(self) -> None:
        """Folding the folded would divide by 255 twice."""
        model = _identity(3, 9, 7)
        assert model == fold(model, Preprocessing())
        assert model == bind(model, Preprocessing())
        steps = Preprocessing(inputs=CAMERA)
        with pytest.raises(ModelError, match="has folded steps already"):
            fold(fold(model, steps), steps)


class TestBinding:
    """Inputs that never change, and batches that are not the first axis."""

    def _stateful(self) -> bytes:
        """Return input + state of layers x batch x 4 times a rate; both outputs."""
        nodes = [
            onnx.helper.make_node("Cast", ["rate"], ["factor"], to=wild.FLOAT),
            onnx.helper.make_node("Mul", ["state", "factor"], ["next"]),
            onnx.helper.make_node("ReduceSum", ["next", "first"], ["summed"], keepdims=0),
            onnx.helper.make_node("Add", ["x", "summed"], ["y"]),
        ]
        first = onnx.numpy_helper.from_array(np.array([0]), "first")
        inputs = [("x", wild.FLOAT, ["n", 4]), ("state", wild.FLOAT, [2, "n", 4]), ("rate", wild.INT64, [])]
        return wild.model(nodes, inputs, [("y", wild.FLOAT, ["n", 4]), ("next", wild.FLOAT, [2, "n", 4])], [first])

    def test_a_constant_input_and_a_moved_batch(self) -> None:
        """Then samples can be stacked along the first axis of every input and output."""
        steps = Preprocessing(constants={"rate": 3}, batch_axes={"state": 1, "next": 1})
        session = OnnxRuntimeSession(prepare(bind(self._stateful(), steps)).model, threads=1)
        assert {"x": ("float32", (4,)), "state": ("float32", (2, 4))} == session.inputs
        random = np.random.default_rng(0)
        samples = [
            Sample({"x": random.random(4, np.float32), "state": random.random((2, 4), np.float32)}, 0) for _ in range(5)
        ]
        outputs = session.predict(samples)
        for index, sample in enumerate(samples):
            np.testing.assert_allclose(outputs["next"][index], 3 * sample.inputs["state"], rtol=1e-6)
            expected = sample.inputs["x"] + 3 * sample.inputs["state"].sum(0)
            np.testing.assert_allclose(outputs["y"][index], expected, rtol=1e-5)

    @pytest.mark.parametrize(
        ("steps", "message"),
        [
            (Preprocessing(constants={"speed": 3}), "names 'speed': the inputs are x, state, rate"),
            (Preprocessing(constants={"rate": 0.5}), r"for the input 'rate' \(int64 \[\]\) does not fit: int64 cannot"),
            (Preprocessing(constants={"rate": [1, 2]}), "does not fit"),
            (Preprocessing(constants={"rate": "fast"}), "does not fit"),
            (Preprocessing(batch_axes={"state": 3}), "'state' has 3 axes: expected one from 1 to 2"),
            (Preprocessing(batch_axes={"elsewhere": 1}), "names 'elsewhere'"),
        ],
    )
    def test_what_does_not_fit(self, steps: Preprocessing, message: str) -> None:
        """The name, and what there is."""
        with pytest.raises(UsageError, match=message):
            bind(self._stateful(), steps)


@pytest.mark.parametrize(
    ("steps", "message"),
    [
        ((Scale(factor=2), ToFloat(dtype="uint8")), "scale gives floats, .* takes uint8: put it behind to-float"),
        ((ChannelsFirst(name="image"),), "names 'image': the inputs are x; give one as name"),
        ((Normalize(mean=(1.0, 2.0), std=(1.0, 1.0)),), "has 2 means, and the tensor is 3 x 9 x 7"),
        ((Grayscale(),), "grayscale gives one channel, what follows wants 3 x 9 x 7"),
        ((Resize(height=9, width=8),), "resize gives 9 x 8, and what follows it wants 3 x 9 x 7"),
        ((Crop(height=4, width=4), ChannelsFirst(), Crop(height=9, width=7)), "crop gives 4 x 4, .* wants"),
    ],
)
def test_steps_that_do_not_fit(steps: tuple[InputStep, ...], message: str) -> None:
    """What is in the way, before anything runs."""
    with pytest.raises(UsageError, match=message):
        fold(_identity(3, 9, 7), Preprocessing(inputs=steps))


def test_of_several_tensors_one_is_named() -> None:
    """Otherwise nobody knows which is meant; a crop larger than the picture is refused."""
    with pytest.raises(UsageError, match="does not say which: the outputs are y0, y1"):
        fold(_identity(3, 4, outputs=2), Preprocessing(outputs=(Softmax(),)))
    with pytest.raises(DataError, match="crop 9 x 3: the picture has 8 x 8"):
        Crop(height=9, width=3).apply(np.zeros((3, 8, 8), np.uint8))


class TestFile:
    """The TOML that names the steps."""

    def _write(self, folder: Path, text: str) -> Path:
        path = folder / "steps.toml"
        path.write_text(text)
        return path

    def test_all_of_it(self, tmp_path: Path) -> None:
        """Steps keep their order."""
        text = """
            constants = { sr = 16000 }
            batch_axes = { state = 1 }
            [[input]]
            step = "channels-first"
            [[input]]
            step = "to-float"
            dtype = "uint8"
            name = "image"
            [[input]]
            step = "normalize"
            mean = [0.5]
            std = [2]
            [[output]]
            step = "argmax"
        """
        expected = Preprocessing(
            inputs=(ChannelsFirst(), ToFloat(dtype="uint8", name="image"), Normalize(mean=(0.5,), std=(2.0,))),
            outputs=(Argmax(),),
            constants={"sr": 16000},
            batch_axes={"state": 1},
        )
        assert expected == read_preprocessing(self._write(tmp_path, text))
        assert Preprocessing() == read_preprocessing(self._write(tmp_path, ""))

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("[[input]]\nstep = 'blur'", "input 1: unknown step 'blur'; expected one of " + ", ".join(INPUT_STEPS)),
            ("[[output]]\nstep = 'crop'", "unknown step 'crop'; expected one of " + ", ".join(OUTPUT_STEPS)),
            ("[[input]]\nstep = 'scale'", r"input 1 \(scale\): Object missing required field `factor`"),
            ("[[input]]\nstep = 'scale'\nfactor = 'x'", r"\(scale\): Expected `float`, got `str`"),
            ("[[input]]\nstep = 'scale'\nby = 2", r"\(scale\): unknown keys by; expected factor, name"),
            ("[[input]]\nstep = 'to-float'\ndtype = 'text'", "expected uint8, int8, .* got 'text'"),
            ("[[input]]\nstep = 'normalize'\nmean = [1]\nstd = [0]", "none of these zero"),
            ("[input]\nstep = 'scale'", "expected tables, each headed by double brackets"),
            ("inputs = 1", "unknown keys inputs; expected batch_axes, constants, input, output"),
            ("batch_axes = { x = 'one' }", "batch_axes: Expected `int`, got `str`"),
            ("[[", "cannot read the steps in .*steps.toml"),
        ],
    )
    def test_what_is_wrong(self, tmp_path: Path, text: str, message: str) -> None:
        """The step by its number, and what is known."""
        with pytest.raises(UsageError, match=message):
            read_preprocessing(self._write(tmp_path, text))

    def test_a_missing_file(self, tmp_path: Path) -> None:
        """One sentence."""
        with pytest.raises(UsageError, match="there is no file"):
            read_preprocessing(tmp_path / "none.toml")
