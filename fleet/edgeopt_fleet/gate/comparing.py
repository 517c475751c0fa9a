"""Has a group of devices become worse than another? A robust difference in differences, for many groups at once.

Pure numpy; leading axes are groups, the last one devices; NaN is a device without that metric. One value a device (its
change against its own baseline), so that rows of one device, which resemble each other, never count as independent
(Bertrand et al. 2004, doi 10.1162/003355304772839588). In three steps:

1. Devices that lie or are broken: further than :data:`FAR` robust deviations (median absolute deviation) from their
   group's median. They are set aside when they are at most :data:`ASIDE` of ten or more; a greater share is evidence.
2. Trimmed means and winsorized variances (Yuen 1974, doi 10.1093/biomet/61.1.165), variances pooled over both groups,
   but never less for the wave than its own.
3. A group of fewer than :data:`FEW` devices shows little of its own spread. There a device's variance is at least
   ``prior`` squared (what such devices are known to differ by) plus the noise of its rows, with
   :data:`PRIOR_FREEDOM` degrees of freedom. Example::

    found = compare(wave_changes, control_changes, Noise(wave_noise, control_noise), prior)
    lower = found.estimate - critical * found.error
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["ASIDE", "FAR", "FEW", "PRIOR_FREEDOM", "TRIM", "Comparison", "Noise", "compare", "without"]

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

FAR = 6.0  # robust standard deviations; of honest, normal devices two in a billion are further away
ASIDE = 0.1  # the greatest share of devices that is set aside
TRIM = 0.2  # share trimmed at each end (Wilcox, Introduction to Robust Estimation, ch. 5)
FEW = 6  # fewer devices than that show little
PRIOR_FREEDOM = 20.0  # degrees of freedom that the prior is worth
_ENOUGH_TO_SET_ASIDE = 10
_LEAST_SCALE = 0.1  # of the prior deviation: devices that all say the same make no liar of one that is near
_TO_SIGMA = 1.4826  # from the median absolute deviation of normal values to their standard deviation


@dataclass(frozen=True, slots=True, eq=False)
class Noise:
    """The variance of each device's change that comes from its few rows; shapes as the changes."""

    treated: Floats
    controls: Floats


@dataclass(frozen=True, slots=True, eq=False)
class Comparison:
    """How much worse the treated became than the controls: a t statistic's parts, each of the groups' shape (…).

    ``estimate`` is NaN without treated devices. ``treated`` and ``controls`` count devices that were compared;
    ``treated_aside`` and ``controls_aside`` (…, n) mark those that were set aside.
    """

    estimate: Floats
    error: Floats
    freedom: Floats
    treated: Ints
    controls: Ints
    treated_aside: npt.NDArray[np.bool_]
    controls_aside: npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True, eq=False)
class _Group:
    mean: Floats  # trimmed
    spread: Floats  # variance of one device's value, so that spread / kept is the variance of the mean
    kept: Floats  # devices that are left after trimming
    known: Ints
    aside: npt.NDArray[np.bool_]
    noise: Floats


def compare(treated: Floats, controls: Floats, noise: Noise, prior: Any) -> Comparison:
    """Compare changes ``treated`` (…, n) with ``controls`` (…, m); ``prior`` (…) is a standard deviation of devices.

    Without controls a group is compared with its own baseline only, that is with zero.
    """
    known = np.asarray(prior, dtype=np.float64) ** 2
    ours, theirs = _summarize(treated, noise.treated, known), _summarize(controls, noise.controls, known)
    free = np.maximum(ours.kept - 1, 0), np.maximum(theirs.kept - 1, 0)
    freedom = free[0] + free[1]
    pooled = (free[0] * ours.spread + free[1] * theirs.spread) / np.maximum(freedom, 1)
    few = ours.known < FEW, theirs.known < FEW
    variance = np.maximum(pooled, np.where(few[0], known + ours.noise, ours.spread)) / np.maximum(ours.kept, 1)
    against = np.maximum(pooled, np.where(few[1], known + theirs.noise, 0.0)) / np.maximum(theirs.kept, 1)
    has_controls = theirs.known > 0
    estimate = ours.mean - np.where(has_controls, theirs.mean, 0.0)
    return Comparison(
        estimate=np.where(ours.known > 0, estimate, np.nan),
        error=np.sqrt(variance + np.where(has_controls, against, 0.0)),
        freedom=np.where(few[0] | few[1], np.maximum(freedom, PRIOR_FREEDOM), freedom),
        treated=ours.known,
        controls=theirs.known,
        treated_aside=ours.aside,
        controls_aside=theirs.aside,
    )


def without(changes: Floats, aside: npt.NDArray[np.bool_]) -> Floats:
    """Return the changes (…, n) of a part of a group without the devices that were set ``aside`` in the whole.

    Unless they are half of the part or more: then it is the part that is different, and not a device.
    """
    few = 2 * (aside & np.isfinite(changes)).sum(axis=-1) < np.isfinite(changes).sum(axis=-1)
    return np.where(aside & few[..., None], np.nan, changes)


def _summarize(values: Floats, noise: Floats, prior: Floats) -> _Group:
    if values.shape[-1] == 0:
        zero = np.zeros(values.shape[:-1])
        return _Group(zero, zero, zero, zero.astype(np.int64), np.zeros(values.shape, dtype=bool), zero)
    aside = _far_away(values, noise, prior)
    clean = np.where(aside, np.nan, values)
    known = np.isfinite(clean).sum(axis=-1)
    mean, spread, kept = _trimmed(clean, known)
    quiet = np.where(np.isfinite(clean), noise, 0.0).sum(axis=-1) / np.maximum(known, 1)
    return _Group(mean, spread, kept, known, aside, quiet)


def _far_away(values: Floats, noise: Floats, prior: Floats) -> npt.NDArray[np.bool_]:
    """Mark the devices to set aside: far from their group's median, and few."""
    known = np.isfinite(values).sum(axis=-1)
    middle = _median(values, known)[..., None]
    distance = np.abs(values - middle)
    scale = (_TO_SIGMA * _median(distance, known)) ** 2
    least = np.maximum(scale, _LEAST_SCALE**2 * prior)[..., None] + noise
    with np.errstate(invalid="ignore"):
        far = distance > FAR * np.sqrt(least)
    few = (known >= _ENOUGH_TO_SET_ASIDE) & (far.sum(axis=-1) <= np.ceil(ASIDE * known))
    return np.asarray(far & few[..., None])


def _median(values: Floats, known: Ints) -> Floats:
    """Return the median (…) of the ``known`` finite values; zero without any."""
    ordered = np.sort(values, axis=-1)  # NaN last
    low, high = np.maximum(known - 1, 0) // 2, np.minimum(known // 2, np.maximum(known - 1, 0))
    middle = (np.take_along_axis(ordered, low[..., None], -1) + np.take_along_axis(ordered, high[..., None], -1)) / 2
    return np.where(known > 0, middle[..., 0], 0.0)


def _trimmed(values: Floats, known: Ints) -> tuple[Floats, Floats, Floats]:
    """Return the trimmed mean, the spread and the number of devices left, of the ``known`` finite values (…, n)."""
    ordered = np.nan_to_num(np.sort(values, axis=-1), nan=0.0)
    cut = np.floor(TRIM * known + 1e-9).astype(np.int64)[..., None]
    last = np.maximum(known[..., None] - cut - 1, 0)
    kept = np.maximum(known - 2 * cut[..., 0], 0)
    place = np.arange(values.shape[-1])
    inside = (place >= cut) & (place <= last) & (place < known[..., None])
    mean = np.where(inside, ordered, 0.0).sum(axis=-1) / np.maximum(kept, 1)
    low, high = np.take_along_axis(ordered, np.minimum(cut, last), -1), np.take_along_axis(ordered, last, -1)
    winsorized = np.where(place < known[..., None], np.clip(ordered, low, high), 0.0)
    total = np.maximum(known, 1)
    centre = winsorized.sum(axis=-1) / total
    squares = np.where(place < known[..., None], (winsorized - centre[..., None]) ** 2, 0.0).sum(axis=-1)
    spread = np.where(kept > 1, squares / np.maximum(kept - 1, 1), 0.0)  # Yuen: squares / (h (h - 1)) is of the mean
    return mean, spread, kept.astype(np.float64)
