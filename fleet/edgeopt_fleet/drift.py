"""Drift of a cohort against the reference profile that its bundle carries.

Pure: counts in, findings out. A *look* tests one feature: the cohort's merged cells against the reference's, as two
samples, so that the reference's own sampling error is part of the comparison. Missing values, infinities, values
outside the reference and unseen categories are cells like any other. A feature drifts in a look when

- the G test (Sokal & Rohlf, Biometry, ch. 17; Williams' correction) gives p < alpha / (features x cohorts), and
- the population stability index, less what chance alone adds to it, (B-1)(1/n + 1/m), is at least 0.2.

An alert needs two such looks one after the other, each with enough rows, and ends after three quiet ones. Rows of
one device resemble each other, which the G test does not know: the second condition is what holds then. Example::

    finding = compare(reference.counts, merged_counts)
    finding.psi, finding.p_value
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from scipy.special import chdtrc, xlogy

from edgeopt_contract.profile import ReferenceFeature, ReferenceProfile

__all__ = ["MINIMUM_ROWS", "DriftRules", "FeatureWatch", "Finding", "Look", "compare", "look", "watch"]

MINIMUM_ROWS = 200
_LEAST_EXPECTED = 5.0  # below that the chi-square distribution is a poor approximation (Cochran 1954)

Counts = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class DriftRules:
    """When a look counts, and what opens and closes an alert."""

    alpha: float = 0.01  # for a whole round of looks: all features of all cohorts together
    least_psi: float = 0.2
    minimum_rows: int = MINIMUM_ROWS
    looks_to_open: int = 2
    looks_to_close: int = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """How far two samples of one feature are apart. ``psi`` is debiased and may be slightly negative."""

    psi: float
    p_value: float
    rows: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """One feature of one cohort in one look, and whether it drifted."""

    feature: str
    source: str
    finding: Finding
    drifted: bool
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class FeatureWatch:
    """How many looks in a row drifted or were quiet, and whether an alert is open."""

    drifted: int = 0
    quiet: int = 0
    open: bool = False


def compare(reference: Sequence[int], observed: Sequence[int]) -> Finding:
    """Compare two count vectors of the same cells, each of shape (cells,).

    Cells are merged with their neighbours until each expects at least five in both samples. Samples that are empty
    or leave one cell are equal: p = 1.
    """
    pair = np.asarray([reference, observed], dtype=np.float64)
    n, m = pair.sum(axis=1)
    if n == 0 or m == 0:
        return Finding(psi=0.0, p_value=1.0, rows=int(m))
    merged = _merge_small_cells(pair)
    cells = merged.shape[1]
    if cells < 2:
        return Finding(psi=0.0, p_value=1.0, rows=int(m))
    p_value = float(chdtrc(cells - 1, _g_statistic(merged)))
    return Finding(psi=_debiased_psi(merged), p_value=p_value, rows=int(m))


def _merge_small_cells(pair: Counts) -> Counts:
    """Merge neighbouring columns of ``pair`` (2, cells) until the smaller sample expects enough in each."""
    sizes = pair.sum(axis=1)
    smaller_share = sizes.min() / sizes.sum()
    groups: list[Counts] = []
    current = np.zeros(2)
    for column in pair.T:
        current = current + column
        if current.sum() * smaller_share >= _LEAST_EXPECTED:
            groups.append(current)
            current = np.zeros(2)
    if not groups:
        return current.reshape(2, 1)
    groups[-1] = groups[-1] + current  # what is left over joins the last one
    return np.stack(groups, axis=1)


def _g_statistic(pair: Counts) -> float:
    """Return the likelihood ratio statistic of homogeneity, divided by Williams' correction."""
    rows, columns, total = pair.sum(axis=1), pair.sum(axis=0), pair.sum()
    g = 2 * (xlogy(pair, pair).sum() - xlogy(rows, rows).sum() - xlogy(columns, columns).sum() + xlogy(total, total))
    spread = (total * (1 / rows).sum() - 1) * (total * (1 / columns).sum() - 1)
    return float(max(g, 0.0) / (1 + spread / (6 * total * (len(columns) - 1))))


def _debiased_psi(pair: Counts) -> float:
    """Return the population stability index less its expectation without drift (Yurdakul 2018)."""
    cells = int(pair.shape[1])
    sizes = pair.sum(axis=1, keepdims=True)
    shares = (pair + 0.5) / (sizes + 0.5 * cells)
    psi = float(((shares[1] - shares[0]) * np.log(shares[1] / shares[0])).sum())
    chance = (cells - 1) * float(np.reciprocal(sizes).sum())
    return psi - chance


def look(
    profile: ReferenceProfile, cells: Mapping[str, Sequence[int]], cohorts: int, rules: DriftRules
) -> tuple[Look, ...]:
    """Look at every feature of ``profile`` for which ``cells`` holds enough rows; ``cohorts`` are watched at once."""
    threshold = rules.alpha / max(len(profile.features) * cohorts, 1)
    looks = []
    for feature in profile.features:
        observed = cells.get(feature.spec.name, ())
        if len(observed) == len(feature.counts) and sum(observed) >= rules.minimum_rows:
            finding = compare(feature.counts, observed)
            drifted = finding.p_value < threshold and finding.psi >= rules.least_psi
            looks.append(
                Look(
                    feature=feature.spec.name,
                    source=str(feature.spec.source),
                    finding=finding,
                    drifted=drifted,
                    message=_sentence(feature, observed, finding),
                )
            )
    return tuple(looks)


def watch(state: FeatureWatch, *, drifted: bool, rules: DriftRules) -> FeatureWatch:
    """Return the next state of one feature of one cohort after a look."""
    if drifted:
        count = state.drifted + 1
        return replace(state, drifted=count, quiet=0, open=state.open or count >= rules.looks_to_open)
    quiet = state.quiet + 1
    return replace(state, drifted=0, quiet=quiet, open=state.open and quiet < rules.looks_to_close)


def _sentence(feature: ReferenceFeature, observed: Sequence[int], finding: Finding) -> str:
    """Say in words where the mass went: the cell whose share changed most."""
    reference = np.asarray(feature.counts, dtype=np.float64)
    seen = np.asarray(observed, dtype=np.float64)
    before, now = reference / max(reference.sum(), 1), seen / seen.sum()
    cell = int(np.abs(now - before).argmax())
    return (
        f"{feature.spec.name}: PSI {finding.psi:.2f}, {_p_text(finding.p_value)} on {finding.rows} rows; "
        f"{_cell_name(feature, cell)} went from {before[cell]:.1%} to {now[cell]:.1%}"
    )


def _p_text(p_value: float) -> str:
    """Say how small ``p_value`` is; rows of one device resemble each other, so tiny values mean little."""
    return "p < 1e-9" if p_value < 1e-9 else f"p = {p_value:.1e}"


def _cell_name(feature: ReferenceFeature, cell: int) -> str:
    edges = feature.spec.edges
    if not edges:
        return f"class {cell}" if cell < feature.spec.categories else "an unseen class"
    if cell == 0:
        return f"below {edges[0]:.4g}"
    if cell < len(edges):
        return f"between {edges[cell - 1]:.4g} and {edges[cell]:.4g}"
    return (f"above {edges[-1]:.4g}", "missing", "+infinity", "-infinity")[cell - len(edges)]
