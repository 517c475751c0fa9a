"""Reading the user's data and checking it, before any work is done with it.

DATA is ``package.module:factory`` (called without arguments, gives an iterable of ``(inputs, label)``; inputs are an
array, or a dict of arrays, without batch dimension), or an ``.npz`` file with the array ``x``, or one for each input by
its name, and, if there are labels, ``y``; or a folder or table, which :mod:`edgeopt.files` reads. All samples are kept
in memory. It splits nothing: that is :mod:`edgeopt.splits`.
Example::

    samples = load_samples("examples.digits:data")
    load_dataset("pictures", Reading(shape=(3, 224, 224))).classes        # ("cat", "dog")
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from edgeopt.files.folders import read_folder
from edgeopt.files.reading import Labelled, Reading
from edgeopt.files.tables import TABLES, read_table
from edgeopt.files.tokens import TOKEN_FILES, read_tokens
from edgeopt.loading import call_user_code, is_reference, load_attribute
from edgeopt.samples import Array, Sample
from edgeopt_contract.array_files import load_arrays
from edgeopt_contract.errors import DataError

__all__ = ["DEFAULT_INPUT", "Dataset", "fit_to", "load_dataset", "load_samples", "need_labels"]

_FIRST = 16  # more buffers in turn than readers of cameras and files have
DEFAULT_INPUT = "input"  # the name of an input that the data gives without one


@dataclass(frozen=True, slots=True)
class Dataset:
    """All samples of a source, and the names of the classes that its labels count; empty when it has no names."""

    samples: list[Sample]
    classes: tuple[str, ...]


def load_samples(source: str) -> list[Sample]:
    """Return the samples of ``source`` alone, read without knowing the model; see :func:`load_dataset`."""
    return load_dataset(source, Reading()).samples


def load_dataset(source: str, reading: Reading) -> Dataset:
    """Return what ``source`` holds. Raises :class:`DataError`, naming sample or file and what was expected of it."""
    labelled = _open(source, reading)
    samples: list[Sample] = []
    buffers: set[int] = set()
    for index, pair in enumerate(labelled.pairs):
        sample = _kept(_to_sample(pair, f"sample {index} of {source}"), buffers, first=index < _FIRST)
        if samples:
            _check_like_first(sample, samples[0], f"sample {index} of {source}")
        samples.append(sample)
    if not samples:
        raise DataError(f"{source} is empty: expected samples, got none")
    return Dataset(samples, labelled.classes)


def need_labels(samples: Sequence[Sample], metric: str) -> None:
    """Raise :class:`DataError` when a sample has no label."""
    missing = sum(sample.label is None for sample in samples)
    if missing:
        raise DataError(
            f"the metric '{metric}' needs labels, and {missing} of {len(samples)} samples have none (label None, or "
            "no 'y' in the .npz); add them, or judge the agreement with the float model: --metric agreement"
        )


def fit_to(samples: Sequence[Sample], inputs: Mapping[str, tuple[str, tuple[int | None, ...]]]) -> list[Sample]:
    """Return ``samples`` with the names and dtypes the model wants.

    ``inputs`` maps each of the model's inputs to its dtype and shape without batch dimension; ``None`` is any
    length. A dtype is changed only when the values keep their meaning (never float to integer). Raises
    :class:`DataError` when names, shapes or dtypes do not fit.
    """
    first = samples[0].inputs
    renamed = len(first) == 1 and len(inputs) == 1 and set(first) == {DEFAULT_INPUT}
    names = {next(iter(inputs)): DEFAULT_INPUT} if renamed else {name: name for name in inputs}
    if set(names.values()) != set(first):
        raise DataError(
            f"the model's inputs are {', '.join(inputs)}; the data gives {', '.join(first)}: yield a dict of arrays "
            "with the model's names"
        )
    for name, (dtype, shape) in inputs.items():
        _check_tensor(first[names[name]], name, dtype, shape)
    return [
        Sample(
            {name: sample.inputs[names[name]].astype(dtype, copy=False) for name, (dtype, _) in inputs.items()},
            sample.label,
        )
        for sample in samples
    ]


def _check_tensor(array: Array, name: str, dtype: str, shape: tuple[int | None, ...]) -> None:
    fits = len(shape) == array.ndim and all(want in (None, got) for want, got in zip(shape, array.shape, strict=False))
    if not fits:
        wanted = " x ".join("any" if size is None else str(size) for size in shape) or "a single number"
        given = " x ".join(map(str, array.shape)) or "a single number"
        extra = "; leave the batch dimension out" if array.shape[1:] and array.shape[1:] == shape else ""
        raise DataError(f"the model's input '{name}' wants {wanted} for one sample, the data gives {given}{extra}")
    if not np.can_cast(array.dtype, dtype, "same_kind"):
        raise DataError(f"the model's input '{name}' wants {dtype}, the data gives {array.dtype}: convert it")


def _open(source: str, reading: Reading) -> Labelled:
    path = Path(source)
    if path.suffix.lower() == ".npz":
        return Labelled(_read_npz(path))
    if reading.tokens is not None and path.suffix.lower() in TOKEN_FILES:
        return read_tokens(path, reading.tokens, reading)
    if path.suffix.lower() == ".jsonl":
        raise DataError(
            f"{source}: a .jsonl file holds token ids; say in which column, such as --tokens input_ids,pad=0"
        )
    if path.suffix.lower() in TABLES:
        return read_table(path, reading)
    if is_reference(source):
        return Labelled(_call_factory(source))
    if path.is_dir():
        return read_folder(path, reading)
    raise DataError(
        f"cannot read data from {source!r}: expected 'package.module:factory', an .npz, .csv or .parquet file, or a "
        "folder that exists and has a folder for each class"
    )


def _call_factory(source: str) -> Iterator[Any]:
    factory = load_attribute(source, DataError)
    iterable = call_user_code(factory, f"calling {source}()", DataError)
    if not isinstance(iterable, Iterable) or isinstance(iterable, str | bytes | Mapping):
        raise DataError(f"{source}() gave {type(iterable).__name__}: expected an iterable of (inputs, label)")
    iterator = iter(iterable)
    end = object()
    while (pair := call_user_code(lambda: next(iterator, end), f"reading from {source}()", DataError)) is not end:
        yield pair


def _read_npz(path: Path) -> Iterator[tuple[Any, Any]]:
    try:
        arrays = load_arrays(path)
    except FileNotFoundError as error:
        raise DataError(f"there is no file {path}: check the path") from error
    except (OSError, ValueError) as error:
        raise DataError(f"cannot read {path} as .npz: {error}; numpy.savez writes one") from error
    if not isinstance(arrays, dict):
        raise DataError(f"{path} holds one array without a name: write it with numpy.savez(path, x=…, y=…)")
    labels = arrays.pop("y", None)
    if not arrays:
        raise DataError(f"{path} has no array of inputs: expected 'x', or one by the name of each input, and 'y'")
    lengths = {name: len(array) if array.ndim else None for name, array in arrays.items()}
    lengths.update({} if labels is None else {"y": len(labels) if labels.ndim else None})
    if None in lengths.values() or len(set(lengths.values())) != 1:
        said = " and ".join(
            f"a single number in '{name}'" if length is None else f"{length} samples in '{name}'"
            for name, length in lengths.items()
        )
        raise DataError(f"{path} has {said}: expected one entry of each for every sample")
    count = next(iter(lengths.values())) or 0
    for index in range(count):
        inputs = {name: array[index] for name, array in arrays.items()}
        yield inputs["x"] if list(inputs) == ["x"] else inputs, None if labels is None else _label(labels[index])


def _label(entry: Any) -> Any:
    return entry.item() if entry.ndim == 0 else entry


def _to_sample(pair: Any, where: str) -> Sample:
    if not isinstance(pair, tuple | list) or len(pair) != 2:
        raise DataError(f"{where}: expected a pair (inputs, label), got {type(pair).__name__}; label may be None")
    raw, label = pair
    named = raw if isinstance(raw, Mapping) else {DEFAULT_INPUT: raw}
    if not named:
        raise DataError(f"{where}: expected at least one input array, got an empty dict")
    return Sample({str(name): _to_array(value, f"{where}, input '{name}'") for name, value in named.items()}, label)


def _kept(sample: Sample, buffers: set[int], *, first: bool) -> Sample:
    """Return ``sample``, or a copy of it where it lies in memory that the factory may fill again for the next one.

    The ``first`` samples are copied, and their addresses noted in ``buffers``: one that comes again is such a buffer.
    Copies of all would double the memory that data take whose samples are parts of one array.
    """
    addresses = {array.__array_interface__["data"][0] for array in sample.inputs.values()}
    if first:
        buffers |= addresses
    elif not addresses & buffers:
        return sample
    return replace(sample, inputs={name: array.copy() for name, array in sample.inputs.items()})


def _to_array(value: Any, where: str) -> Array:
    try:
        array = np.asarray(value)
    except (TypeError, ValueError, RuntimeError) as error:
        raise DataError(f"{where}: expected an array of numbers, got {type(value).__name__} ({error})") from error
    if array.dtype.kind not in "biuf":
        raise DataError(f"{where}: expected an array of numbers, got {type(value).__name__} of {array.dtype}")
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise DataError(f"{where}: it holds NaN or infinity; clean the data first")
    return array.astype(np.float32) if array.dtype == np.float64 else array


def _check_like_first(sample: Sample, first: Sample, where: str) -> None:
    if set(sample.inputs) != set(first.inputs):
        raise DataError(
            f"{where}: expected the inputs {sorted(first.inputs)} as in sample 0, got {sorted(sample.inputs)}"
        )
    for name, array in sample.inputs.items():
        if array.shape != first.inputs[name].shape:
            raise DataError(
                f"{where}: input '{name}' has shape {array.shape}, in sample 0 it is {first.inputs[name].shape}"
            )
