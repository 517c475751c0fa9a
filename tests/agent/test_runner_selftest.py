"""The self-test's judgement and its reading of golden inputs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeopt_agent.runner.selftest import compare, divergence, read_golden
from edgeopt_contract.errors import BundleError

SCORES = np.random.default_rng(5).normal(size=(32, 10))


def test_equal_outputs_pass() -> None:
    """What the host computed passes with a tolerance of zero."""
    assert [] == compare({"y": SCORES}, {"y": SCORES}, tolerance=0)


@given(st.floats(0.02, 1), st.booleans())
def test_tolerance_counts_in_standard_deviations(tolerance: float, over: bool) -> None:  # noqa: FBT001  # drawn
    """A mean difference just below the tolerance passes, just above it fails."""
    shift = tolerance * SCORES.std() * (1.01 if over else 0.99)
    assert over == bool(compare({"y": SCORES}, {"y": SCORES + shift}, tolerance))


@pytest.mark.parametrize(
    ("got", "reason"),
    [
        ({}, "no such output"),
        ({"y": SCORES[:, :9]}, "expected shape"),
        ({"y": np.where(SCORES > 2, np.nan, SCORES)}, "NaN"),
        ({"y": SCORES * np.inf}, "NaN or infinity"),
        ({"y": -SCORES}, "mean difference"),
        ({"y": np.zeros_like(SCORES)}, "mean difference"),
    ],
)
def test_wrong_outputs_fail(got: dict[str, np.ndarray], reason: str) -> None:
    """A missing output, a wrong shape, NaN and other numbers are each named."""
    (problem,) = compare({"y": SCORES}, got, tolerance=0.1)
    assert reason in problem


def test_outputs_that_give_other_answers_fail() -> None:
    """Small differences on average do not excuse other answers where the host was sure."""
    expected = np.zeros((10, 100))
    expected[:, 0] = 10.0
    got = expected.copy()
    got[:3, 0], got[:3, 1] = 0.0, 10.0  # three of ten answers, a mean difference of 0.06
    (problem,) = compare({"y": expected}, {"y": got}, tolerance=0.1)
    assert "the same answer" in problem


@given(st.floats(0.02, 1), st.floats(0, 3))
def test_divergence_counts_in_tolerances(tolerance: float, share: float) -> None:
    """One is what is just allowed; the output that is worst counts."""
    got = {"y": SCORES, "z": SCORES + share * tolerance * SCORES.std()}
    assert np.isclose(share, divergence({"y": SCORES, "z": SCORES}, got, tolerance))


@pytest.mark.parametrize("got", [{}, {"y": SCORES[:5]}, {"y": SCORES * np.inf}, {"y": SCORES * np.nan}])
def test_what_cannot_be_compared_has_no_divergence(got: dict[str, np.ndarray]) -> None:
    """A number would say that it is some way off; it is no way at all."""
    assert divergence({"y": SCORES}, got, tolerance=0.1) is None
    assert divergence({"y": SCORES}, {"y": SCORES}, tolerance=0) is None


def test_constant_outputs_allow_rounding_only() -> None:
    """Expected outputs that never vary have no spread; they still must be met."""
    ones = np.ones((4, 3), dtype=np.float32)
    assert [] == compare({"y": ones}, {"y": ones + 1e-8}, tolerance=0.1)
    assert compare({"y": ones}, {"y": ones + 1e-3}, tolerance=0.1)


def test_integer_outputs_are_compared() -> None:
    """Class indices work as well as scores."""
    labels = np.arange(10, dtype=np.int64)
    assert [] == compare({"y": labels}, {"y": labels}, tolerance=0.01)
    assert compare({"y": labels}, {"y": labels + 5}, tolerance=0.01)


def test_golden_file_is_read_by_variant(tmp_path: Path) -> None:
    """Only the inputs and this variant's outputs are taken."""
    path = tmp_path / "golden.npz"
    np.savez(path, **{"inputs/x": SCORES, "outputs/int8/y": SCORES + 1, "outputs/fp32/y": SCORES})
    golden = read_golden(path, "int8")
    assert (["x"], ["y"], 32) == (list(golden.inputs), list(golden.outputs), golden.samples)
    assert np.array_equal(SCORES + 1, golden.outputs["y"])


@pytest.mark.parametrize(
    "arrays",
    [
        {"outputs/int8/y": SCORES},
        {"inputs/x": SCORES, "outputs/fp32/y": SCORES},
        {"inputs/x": SCORES, "outputs/int8/y": SCORES[:5]},
        {"inputs/x": SCORES[:0], "outputs/int8/y": SCORES[:0]},
        {"inputs/x": np.float32(1), "outputs/int8/y": np.float32(1)},
    ],
)
def test_golden_file_that_proves_nothing_is_refused(tmp_path: Path, arrays: dict[str, np.ndarray]) -> None:
    """No inputs, no outputs of this variant, or not as many: a self-test must not pass by having nothing to do."""
    np.savez(tmp_path / "golden.npz", **arrays)
    with pytest.raises(BundleError, match="expected"):
        read_golden(tmp_path / "golden.npz", "int8")


def test_golden_file_that_is_none_or_holds_objects_is_refused(tmp_path: Path) -> None:
    """Bytes that are no archive, and arrays that would have to be unpickled."""
    path = tmp_path / "golden.npz"
    path.write_bytes(b"no archive")
    with pytest.raises(BundleError, match="cannot be read"):
        read_golden(path, "int8")
    np.savez(path, **{"inputs/x": np.array([{}], dtype=object)})
    with pytest.raises(BundleError, match="cannot be read"):
        read_golden(path, "int8")
