from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chi2_contingency

from edgeopt_contract.profile import (
    FeatureSpec,
    ReferenceFeature,
    ReferenceProfile,
    Source,
    Summary,
    count_values,
)
from edgeopt_fleet.drift import DriftRules, FeatureWatch, compare, look, watch

RULES = DriftRules()
EDGES = tuple(float(edge) for edge in np.quantile(np.random.default_rng(0).normal(size=100_000), np.linspace(0, 1, 17)))
SPEC = FeatureSpec(name="brightness", source=Source.INPUT, tensor="x", summary=Summary.MEAN, edges=EDGES)


def profile_of(values: npt.NDArray[np.float64], *names: str) -> ReferenceProfile:
    """Return a reference profile of these calibration values under each name."""
    counts = tuple(int(n) for n in count_values(SPEC, values))
    features = tuple(
        ReferenceFeature(
            spec=FeatureSpec(name=name, source=Source.INPUT, tensor="x", summary=Summary.MEAN, edges=EDGES),
            counts=counts,
            mean=float(np.nanmean(values)),
            std=float(np.nanstd(values)),
        )
        for name in names or ("brightness",)
    )
    return ReferenceProfile(rows=len(values), features=features)


def cells_of(values: npt.NDArray[np.float64]) -> dict[str, tuple[int, ...]]:
    """Return the cells that a device would send for these values."""
    return {"brightness": tuple(int(n) for n in count_values(SPEC, values))}


def test_the_statistic_agrees_with_scipy() -> None:
    """Without Williams' correction, and with no cell to merge, it is scipy's G test."""
    reference, observed = [5000, 3000, 2000], [2600, 1400, 1000]
    expected = chi2_contingency([reference, observed], lambda_="log-likelihood", correction=False)
    assert compare(reference, observed).p_value == pytest.approx(expected.pvalue, rel=1e-2)


@pytest.mark.parametrize(("n", "m"), [(300, 200), (1000, 200), (200, 5000), (20_000, 300)])
def test_false_alarms_are_as_rare_as_promised(n: int, m: int) -> None:
    """Without drift p < 5 % happens in about 5 % of looks, whatever the sample sizes, and PSI is about zero."""
    generator = np.random.default_rng(n + m)
    shares = np.full(16, 1 / 16)
    findings = [compare(generator.multinomial(n, shares), generator.multinomial(m, shares)) for _ in range(1500)]
    rate = np.mean([finding.p_value < 0.05 for finding in findings])
    assert 0.03 < rate < 0.07
    assert abs(np.mean([finding.psi for finding in findings])) < 0.015


def test_quiet_cohorts_stay_quiet() -> None:
    """Ten features of four cohorts, fifty looks each, no drift: no alert."""
    generator = np.random.default_rng(3)
    profile = profile_of(generator.normal(size=400))
    opened = 0
    for _ in range(40):
        state = FeatureWatch()
        for _ in range(50):
            (seen,) = look(profile, cells_of(generator.normal(size=220)), 40, RULES)
            state = watch(state, drifted=seen.drifted, rules=RULES)
            opened += state.open
    assert 0 == opened


@pytest.mark.parametrize("shift", [1.0, -1.0, 2.0])
def test_a_shift_is_found_in_two_looks(shift: float) -> None:
    """Power: a shift of one standard deviation opens an alert at the second look of 200 rows."""
    generator = np.random.default_rng(5)
    found = 0
    for _ in range(50):
        profile = profile_of(generator.normal(size=400))
        state = FeatureWatch()
        for _ in range(2):
            (seen,) = look(profile, cells_of(generator.normal(shift, size=200)), 40, RULES)
            state = watch(state, drifted=seen.drifted, rules=RULES)
        found += state.open
    assert found >= 48


def test_missing_values_are_drift() -> None:
    """One value in five missing: found, and the message says so (evidently#187)."""
    generator = np.random.default_rng(6)
    values = generator.normal(size=400)
    values[::5] = np.nan
    (seen,) = look(profile_of(generator.normal(size=1000)), cells_of(values), 4, RULES)
    assert seen.drifted
    assert "missing went from 0.0% to 20.0%" in seen.message


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (np.full(300, 99.0), "above"),
        (np.full(300, -99.0), "below"),
        (np.full(300, np.inf), "+infinity"),
        (np.full(300, -np.inf), "-infinity"),
        (np.zeros(300), "between"),
    ],
)
def test_every_cell_has_a_name(values: npt.NDArray[np.float64], words: str) -> None:
    """The message names the cell whose share changed most."""
    (seen,) = look(profile_of(np.random.default_rng(1).normal(size=500)), cells_of(values), 1, RULES)
    assert seen.drifted
    assert words in seen.message


@pytest.mark.parametrize(
    "cells",
    [{}, {"brightness": ()}, {"brightness": (1, 2)}, {"other": (500,)}, {"brightness": (0,) * SPEC.cells}],
)
def test_cells_that_do_not_fit_are_not_looked_at(cells: dict[str, tuple[int, ...]]) -> None:
    """No rows, too few rows, other cells, an empty feature: no finding and no crash (evidently#1480)."""
    assert () == look(profile_of(np.random.default_rng(1).normal(size=500)), cells, 1, RULES)


def test_small_samples_are_not_looked_at() -> None:
    """Eight rows say nothing (evidently#509)."""
    generator = np.random.default_rng(1)
    profile = profile_of(generator.normal(size=500))
    assert () == look(profile, cells_of(generator.normal(size=199)), 1, RULES)
    assert 1 == len(look(profile, cells_of(generator.normal(size=200)), 1, RULES))


def test_an_unseen_class_is_drift() -> None:
    """Categorical features: a class that the calibration never gave is mass like any other."""
    spec = FeatureSpec(name="top1", source=Source.OUTPUT, tensor="y", summary=Summary.TOP1, categories=3)
    feature = ReferenceFeature(spec=spec, counts=(100, 100, 100, 0), mean=1.0, std=0.8)
    profile = ReferenceProfile(rows=300, features=(feature,))
    (unseen,) = look(profile, {"top1": (70, 70, 60, 100)}, 1, RULES)
    (mix,) = look(profile, {"top1": (280, 10, 10, 0)}, 1, RULES)
    assert unseen.drifted
    assert "an unseen class" in unseen.message
    assert mix.drifted
    assert "class 0" in mix.message


@given(
    st.lists(st.tuples(st.integers(0, 3000), st.integers(0, 3000)), min_size=1, max_size=25),
)
def test_any_counts_give_a_finding(pairs: list[tuple[int, int]]) -> None:
    """Whatever was counted: a probability, a finite PSI, and the same p whichever sample comes first."""
    reference, observed = [a for a, _ in pairs], [b for _, b in pairs]
    finding = compare(reference, observed)
    assert 0 <= finding.p_value <= 1
    assert np.isfinite(finding.psi)
    assert finding.p_value == pytest.approx(compare(observed, reference).p_value, abs=1e-5)
    assert finding.rows == sum(observed)


def test_an_alert_needs_two_looks_in_a_row_and_three_quiet_ones_to_end() -> None:
    """One look alone never alerts, one quiet look never ends an alert."""
    state, opened = FeatureWatch(), []
    for drifted in (True, False, True, True, False, False, True, False, False, False):
        state = watch(state, drifted=drifted, rules=RULES)
        opened.append(state.open)
    assert [False, False, False, True, True, True, True, True, True, False] == opened
