"""Reading data: what is good comes through unchanged, what is not is refused in one sentence."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import edgeopt_zoo
import numpy as np
import pytest

from edgeopt.data import fit_to, load_samples, need_labels
from edgeopt.samples import Sample, chunks, stack
from edgeopt_contract.errors import DataError


def test_a_factory_yields_samples_in_order() -> None:
    """A plain array gets the default name; the label stays what it is."""
    samples = load_samples("edgeopt_zoo:table")
    assert len(edgeopt_zoo.TABLE) == len(samples)
    assert np.array_equal(edgeopt_zoo.TABLE[5], samples[5].inputs["input"])
    assert int(edgeopt_zoo.TABLE_LABELS[5]) == samples[5].label


@pytest.mark.parametrize("source", ["edgeopt_zoo:one_buffer", "edgeopt_zoo:three_buffers"])
def test_a_factory_may_fill_the_same_arrays_again(source: str) -> None:
    """Readers of cameras and files do: each sample keeps what it held when it came."""
    samples = load_samples(source)
    assert edgeopt_zoo.TABLE[:60].tolist() == [sample.inputs["input"].tolist() for sample in samples]


def test_parts_of_one_array_are_not_copied() -> None:
    """Only the first ones are; of more, data that fill the memory by half would fill it wholly."""
    samples = load_samples("edgeopt_zoo:table")
    assert [False] * 880 == [sample.inputs["input"].flags.owndata for sample in samples[20:]]


def test_inputs_by_name_keep_their_dtypes() -> None:
    """A dict of arrays comes through as it is."""
    sample = load_samples("edgeopt_zoo:two_inputs_data")[0]
    assert {"x": np.float32, "ids": np.int64} == {name: array.dtype for name, array in sample.inputs.items()}


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("edgeopt_zoo:empty", "edgeopt_zoo:empty is empty: expected samples"),
        ("edgeopt_zoo:words", "sample 0 .* expected an array of numbers, got str"),
        ("edgeopt_zoo:ragged", r"sample 1 .* has shape \(5,\), in sample 0 it is \(16,\)"),
        ("edgeopt_zoo:with_nan", "sample 0 .* NaN or infinity"),
        ("edgeopt_zoo:unplugged", r"OSError: camera unplugged \(edgeopt_zoo.py, line \d+\)"),
        ("edgeopt_zoo:not_pairs", r"expected a pair \(inputs, label\), got ndarray"),
        ("edgeopt_zoo:not_iterable", "gave int: expected an iterable"),
        ("edgeopt_zoo:absent", "has no function 'absent'; it has: .*"),
        ("no_such_module:data", "cannot find the module 'no_such_module'"),
        ("pictures/", "expected 'package.module:factory', an .npz, .csv or .parquet file, or a folder"),
        ("missing.npz", "there is no file missing.npz"),
        ("reviews.jsonl", "holds token ids; say in which column, such as --tokens"),
    ],
)
def test_wrong_data_is_refused_with_the_sample_and_the_reason(source: str, message: str) -> None:
    """Each mistake gives one sentence that says what was expected and what came."""
    with pytest.raises(DataError, match=message):
        load_samples(source)


class TestNpz:
    """Arrays in a file."""

    def test_x_and_y(self, tmp_path: Path) -> None:
        """Row i of x with entry i of y; without y, labels are None."""
        path = tmp_path / "d.npz"
        np.savez(path, x=np.arange(6.0).reshape(3, 2), y=np.array([4, 5, 6]))
        samples = load_samples(str(path))
        assert [4, 5, 6] == [sample.label for sample in samples]
        assert ([2.0, 3.0], np.float32) == (samples[1].inputs["input"].tolist(), samples[1].inputs["input"].dtype)
        np.savez(path, x=np.zeros((2, 2)))
        assert [None, None] == [sample.label for sample in load_samples(str(path))]

    def test_inputs_by_name_keep_their_dtypes(self, tmp_path: Path) -> None:
        """Token ids and a mask, as a tokenizer gives them; no number is made a float."""
        path = tmp_path / "d.npz"
        ids, mask = np.arange(12, dtype=np.int32).reshape(3, 4), np.ones((3, 4), bool)
        np.savez(path, input_ids=ids, attention_mask=mask, y=np.array([1, 0, 1]))
        samples = load_samples(str(path))
        assert [1, 0, 1] == [sample.label for sample in samples]
        assert ids[1].tolist() == samples[1].inputs["input_ids"].tolist()
        wanted = {"input_ids": ("int64", (4,)), "attention_mask": ("bool", (None,))}
        fitted = fit_to(samples, wanted)[0].inputs
        assert {"input_ids": np.int64, "attention_mask": np.bool_} == {name: a.dtype for name, a in fitted.items()}
        np.savez(path, x=ids)
        assert np.int32 == load_samples(str(path))[0].inputs["input"].dtype

    @pytest.mark.parametrize(
        ("arrays", "message"),
        [
            ({"y": np.zeros(3)}, "has no array of inputs: expected 'x', or one by the name of each input"),
            ({"x": np.zeros((3, 2)), "y": np.zeros(2)}, "3 samples in 'x' and 2 samples in 'y'"),
            ({"x": np.float32(1)}, "a single number in 'x'"),
            ({"ids": np.zeros((3, 2)), "mask": np.zeros((4, 2))}, "3 samples in 'ids' and 4 samples in 'mask'"),
            ({"x": np.zeros((0, 2))}, "is empty"),
            ({"x": np.array(["a", "b"])}, "expected an array of numbers"),
        ],
    )
    def test_wrong_arrays(self, tmp_path: Path, arrays: dict[str, Any], message: str) -> None:
        """A file that holds something else is refused."""
        np.savez(tmp_path / "d.npz", **arrays)
        with pytest.raises(DataError, match=message):
            load_samples(str(tmp_path / "d.npz"))

    def test_pickles_and_rubbish_are_not_loaded(self, tmp_path: Path) -> None:
        """An object array would run code; a broken file is an error and no traceback."""
        np.savez(tmp_path / "d.npz", x=np.array([{}, {}], dtype=object))
        with pytest.raises(DataError, match="cannot read"):
            load_samples(str(tmp_path / "d.npz"))
        for content in (b"PK\x03\x04 not a zip", b""):
            (tmp_path / "e.npz").write_bytes(content)
            with pytest.raises(DataError, match=r"cannot read .* numpy.savez writes one"):
                load_samples(str(tmp_path / "e.npz"))
        with (tmp_path / "f.npz").open("wb") as file:
            np.save(file, np.zeros((3, 2)))
        with pytest.raises(DataError, match="holds one array without a name"):
            load_samples(str(tmp_path / "f.npz"))


class TestFitTo:
    """Data against what the model wants."""

    def test_an_unnamed_input_takes_the_models_name(self) -> None:
        """With one input on both sides there is nothing to confuse."""
        (fitted,) = fit_to([Sample({"input": np.zeros(3)}, 1)], {"pixels": ("float32", (3,))})
        assert ["pixels"] == list(fitted.inputs)
        assert np.float32 == fitted.inputs["pixels"].dtype

    def test_a_free_axis_fits_any_length(self) -> None:
        """None in the model's shape is any length."""
        assert fit_to([Sample({"x": np.zeros((7, 3), np.float32)}, 1)], {"x": ("float32", (None, 3))})

    @pytest.mark.parametrize(
        ("inputs", "wanted", "message"),
        [
            ({"x": np.zeros(3)}, {"x": ("float32", (4,))}, "wants 4 for one sample, the data gives 3"),
            ({"x": np.zeros((1, 4))}, {"x": ("float32", (4,))}, "leave the batch dimension out"),
            ({"x": np.zeros(4)}, {"x": ("int64", (4,))}, "wants int64, the data gives float64"),
            ({"a": np.zeros(4)}, {"x": ("float32", (4,))}, "the model's inputs are x; the data gives a"),
            ({"x": np.zeros(())}, {"x": ("float32", (4,))}, "the data gives a single number"),
        ],
    )
    def test_what_does_not_fit_is_refused(self, inputs: dict[str, Any], wanted: dict[str, Any], message: str) -> None:
        """The message shows both sides."""
        with pytest.raises(DataError, match=message):
            fit_to([Sample(inputs, 0)], wanted)


def test_missing_labels_name_the_way_out() -> None:
    """Without labels, agreement can still be judged."""
    samples = [Sample({"x": np.zeros(1)}, 1), Sample({"x": np.zeros(1)}, None)]
    with pytest.raises(DataError, match=r"1 of 2 samples have none .* --metric agreement"):
        need_labels(samples, "accuracy")


def test_batches() -> None:
    """Samples stack along a new first axis, and chunks leave none out."""
    samples = [Sample({"x": np.full(2, number)}, None) for number in range(5)]
    assert (5, 2) == stack(samples)["x"].shape
    assert [2, 2, 1] == [len(chunk) for chunk in chunks(samples, 2)]
