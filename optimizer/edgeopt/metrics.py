"""Scores of single samples: accuracy, agreement with the baseline, or the user's own; and how far outputs are off.

Accuracy and agreement look at the first output. Its last axis holds one score for each class; a single score is read
as a yes/no answer (above one half for probabilities, above zero otherwise). Integers are no scores but the answers
themselves, as an argmax in the model gives them. Pure. Example::

    accuracy({"logits": scores}, [3, 1, 4])         # array([1., 0., 1.])
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeopt.samples import Array
from edgeopt_contract.errors import DataError

__all__ = ["SampleMetric", "accuracy", "agreement", "class_labels", "output_error", "user_scores"]

Scores = npt.NDArray[np.float64]
Outputs = Mapping[str, Array]
SampleMetric = Callable[[Any, Any], float]  # (outputs of one sample, label) -> score, higher is better


def accuracy(outputs: Outputs, labels: Sequence[Any]) -> Scores:
    """Return 1 where the answer is the label, else 0; shape (n,). Raises :class:`DataError` for unusable labels."""
    first = next(iter(outputs.values()))
    answers = _answers(first, first)
    if answers.shape[1] != 1:
        raise DataError(
            f"accuracy needs one answer for each sample; the model gives {answers.shape[1]}: write a metric, "
            "--metric package.module:function"
        )
    classes = np.iinfo(np.int64).max if first.dtype.kind in "iu" else max(2, first[0].size)
    return np.asarray(answers[:, 0] == [_class_index(label, classes) for label in labels], dtype=np.float64)


def agreement(baseline: Outputs, variant: Outputs) -> Scores:
    """Return, for each sample, the share of answers on which both models agree; shape (n,)."""
    first = next(iter(baseline))
    reference = baseline[first]
    return np.asarray((_answers(reference, reference) == _answers(variant[first], reference)).mean(axis=1))


def output_error(expected: Outputs, actual: Outputs) -> float:
    """Return the mean absolute difference of the outputs, each in standard deviations of the expected one.

    Beside scores, answers in whole numbers (an argmax in the model) do not count: their distances mean nothing.
    """
    scores = {name: array for name, array in expected.items() if array.dtype.kind == "f"} or expected
    errors = [
        np.abs(actual[name].astype(np.float64) - array.astype(np.float64)).mean()
        / (float(array.std(dtype=np.float64)) or 1.0)
        for name, array in scores.items()
    ]
    return float(np.mean(errors))


def class_labels(labels: Sequence[Any]) -> npt.NDArray[np.int64]:
    """Return the class of each sample, shape (n,). Raises :class:`DataError` for labels that are not whole numbers."""
    classes = []
    for label in labels:
        try:
            index = int(label)
            whole = bool(index == label)
        except (TypeError, ValueError, OverflowError) as error:
            raise DataError(_no_class(label)) from error
        if not whole:
            raise DataError(_no_class(label))
        classes.append(index)
    return np.asarray(classes, dtype=np.int64)


def user_scores(metric: SampleMetric, outputs: Outputs, labels: Sequence[Any], name: str) -> Scores:
    """Return the user's score of each sample. ``metric`` gets an array, or a dict of them for several outputs.

    Raises :class:`DataError` when it fails or does not return a finite number.
    """
    scores = []
    for index, label in enumerate(labels):
        one = {key: array[index].copy() for key, array in outputs.items()}  # it may sort them where they are
        try:
            score = float(metric(next(iter(one.values())) if len(one) == 1 else one, label))
        except Exception as error:
            raise DataError(f"the metric {name} failed on a sample: {type(error).__name__}: {error}") from error
        if not np.isfinite(score):
            raise DataError(f"the metric {name} returned {score} for a sample: expected a finite number")
        scores.append(score)
    return np.asarray(scores, dtype=np.float64)


def _answers(scores: Array, reference: Array) -> npt.NDArray[np.int64]:
    """Return the answers, shape (n, positions); whether a single score is a probability, ``reference`` tells."""
    if scores.dtype.kind in "iu":
        return np.asarray(scores.reshape(len(scores), -1), dtype=np.int64)
    axes = [size for size in scores.shape[1:] if size > 1]  # N x C x 1 x 1 is C scores, not C answers
    rows = scores.reshape(len(scores), -1, axes[-1] if axes else 1)
    if rows.shape[2] > 1:
        return np.asarray(rows.argmax(axis=2), dtype=np.int64)
    threshold = 0.5 if reference.min() >= 0 and reference.max() <= 1 else 0.0
    return np.asarray(rows[:, :, 0] > threshold, dtype=np.int64)


def _no_class(label: Any) -> str:
    return f"the worst class is judged by integer labels, got {label!r}: label the data, or leave --max-class-drop out"


def _class_index(label: Any, classes: int) -> int:
    try:
        index = int(label)
    except (TypeError, ValueError, OverflowError) as error:
        raise DataError(f"expected a class index as label, got {label!r}: write a metric for other labels") from error
    if index != label or not 0 <= index < classes:
        raise DataError(
            f"expected a class index from 0 to {classes - 1} as label, got {label!r}: label the data as the model "
            "counts its classes, or write a metric for other labels"
        )
    return index
