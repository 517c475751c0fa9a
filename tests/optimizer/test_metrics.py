"""Scores of single samples."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from edgeopt.metrics import accuracy, agreement, class_labels, output_error, user_scores
from edgeopt.scoring import load_metric
from edgeopt_contract.errors import DataError, UsageError

SCORES = np.array([[0.1, 2.0, -1.0], [3.0, 0.0, 0.0], [0.0, 0.0, 1.0]], dtype=np.float32)


def test_accuracy_compares_the_greatest_score_with_the_label() -> None:
    """One for a hit, zero for a miss; the shape of the scores may carry axes of length one."""
    assert [1.0, 1.0, 0.0] == accuracy({"logits": SCORES}, [1, 0, 1]).tolist()
    assert [1.0, 1.0, 0.0] == accuracy({"logits": SCORES[:, :, None, None]}, [1, np.int64(0), 1]).tolist()


def test_whole_numbers_are_classes() -> None:
    """Whatever type carries them."""
    assert [3, 1, 0, -1] == class_labels([3, np.int64(1), 0.0, -1]).tolist()


@pytest.mark.parametrize("label", ["cat", 0.5, None, [1, 2], float("nan"), float("inf")])
def test_other_labels_are_no_classes(label: Any) -> None:
    """The worst class cannot be judged by them, and it is not left out silently."""
    with pytest.raises(DataError, match="the worst class is judged by integer labels, got"):
        class_labels([1, label])


@pytest.mark.parametrize(
    ("outputs", "expected"), [([[-2.0], [0.3]], [0.0, 1.0]), ([[0.2], [0.9]], [0.0, 1.0]), ([[0.2], [1.9]], [1.0, 1.0])]
)
def test_a_single_score_is_a_yes_or_a_no(outputs: list[list[float]], expected: list[float]) -> None:
    """Probabilities are split at one half, anything else at zero."""
    assert expected == accuracy({"score": np.array(outputs)}, [1, 1]).tolist()


@pytest.mark.parametrize("label", [3, -1, "cat", 0.5, None, [1, 2], float("inf")])
def test_a_label_that_is_no_class_is_refused(label: Any) -> None:
    """A wrong label is an error and not a miss."""
    with pytest.raises(DataError, match="expected a class index"):
        accuracy({"logits": SCORES[:1]}, [label])


def test_accuracy_of_many_answers_needs_a_metric() -> None:
    """A segmentation has no single answer: the message names the way out."""
    with pytest.raises(DataError, match=r"--metric package.module:function"):
        accuracy({"mask": np.zeros((1, 5, 3))}, [0])


def test_agreement_counts_equal_answers() -> None:
    """Of a sample with several answers it is the share."""
    other = SCORES.copy()
    other[2] = [9, 0, 0]
    assert [1.0, 1.0, 0.0] == agreement({"logits": SCORES}, {"logits": other}).tolist()
    boxes = np.stack([SCORES, SCORES])
    changed = boxes.copy()
    changed[1, 0] = [9, 0, 0]
    assert [1.0, pytest.approx(2 / 3)] == agreement({"a": boxes}, {"a": changed}).tolist()


def test_the_baseline_says_what_a_single_score_means() -> None:
    """An int8 probability just above one must not turn the threshold to zero."""
    baseline, variant = np.array([[0.2], [0.9]]), np.array([[0.2], [1.01]])
    assert [1.0, 1.0] == agreement({"p": baseline}, {"p": variant}).tolist()


def test_a_users_metric_gets_an_array_or_a_dict() -> None:
    """One output comes as an array, several come by name."""
    single = user_scores(lambda outputs, label: outputs[label], {"a": SCORES}, [0, 1, 2], "m")
    assert [pytest.approx(0.1), 0.0, 1.0] == single.tolist()
    several = user_scores(lambda outputs, label: outputs["b"].sum(), {"a": SCORES, "b": SCORES}, [0, 1, 2], "m")
    assert SCORES.sum(axis=1).tolist() == pytest.approx(several.tolist())


def test_a_users_metric_may_change_what_it_gets() -> None:
    """It gets a copy: the outputs are judged by other criteria, and kept as the golden ones, after it."""
    outputs = {"a": SCORES.copy()}
    user_scores(lambda outputs, _label: outputs.sort() or outputs[0], outputs, [0, 1, 2], "m")
    assert np.array_equal(SCORES, outputs["a"])


@pytest.mark.parametrize("value", [float("nan"), "no number", None])
def test_a_metric_that_returns_no_number_is_refused(value: Any) -> None:
    """NaN would pass any comparison that is written the wrong way round."""
    with pytest.raises(DataError, match="the metric m"):
        user_scores(lambda _outputs, _label: value, {"a": SCORES}, [0, 0, 0], "m")


def test_metrics_by_name() -> None:
    """Agreement is judged against one, accuracy against the labels, the user's against whatever it returns."""
    flipped = {"a": SCORES[::-1]}
    before, _ = load_metric("agreement").scores({"a": SCORES}, flipped, [None] * 3)
    assert [1.0, 1.0, 1.0] == before.tolist()
    before, after = load_metric("accuracy").scores({"a": SCORES}, flipped, [1, 0, 2])
    assert (3.0, 1.0) == (before.sum(), after.sum())
    metric = load_metric("edgeopt_zoo:closeness")
    before, _ = metric.scores({"a": SCORES}, flipped, [0.1, 3.0, 0.0])
    assert [0.0, 0.0, 0.0] == pytest.approx(before.tolist(), abs=1e-6)
    assert not metric.needs_labels
    assert not metric.wording.is_share


def test_unknown_metrics_are_refused() -> None:
    """The message lists what there is."""
    with pytest.raises(UsageError, match=r"accuracy, agreement or package.module:function"):
        load_metric("f1")


def test_integers_are_the_answers_themselves() -> None:
    """A model that ends in an argmax says the class; it is no score of which the sign would count."""
    answers = {"class": np.array([0, 3, 1])}
    assert [1, 1, 0] == accuracy(answers, [0, 3, 2]).tolist()
    assert [1, 0, 1] == agreement(answers, {"class": np.array([0, 2, 1])}).tolist()
    assert [0.5, 1] == agreement({"words": np.array([[1, 2], [3, 4]])}, {"words": np.array([[1, 9], [3, 4]])}).tolist()


def test_the_error_of_outputs_is_in_their_standard_deviations() -> None:
    """So outputs of any size compare, and their mean counts; one that never moves counts as it is."""
    expected = {"a": np.array([[0.0], [200.0]]), "b": np.array([[3.0], [3.0]])}
    assert 0.125 == output_error(expected, {"a": expected["a"] + 25, "b": expected["b"]})
    assert 0.375 == output_error(expected, {"a": expected["a"] + 25, "b": expected["b"] - 0.5})


def test_answers_have_an_error_only_where_there_are_no_scores() -> None:
    """Between class 3 and class 9 there is no distance; but of answers alone something must be said."""
    scores, classes = np.array([[0.0, 2.0]], np.float32), np.array([1, 3])
    assert 0.0 == output_error({"s": scores, "c": classes}, {"s": scores, "c": classes + 6})
    assert 6.0 == output_error({"c": classes}, {"c": classes + 6})
