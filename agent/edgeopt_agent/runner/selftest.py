"""The self-test: the bundle's golden inputs must give the host's outputs on this device, within the tolerance.

:func:`read_golden` reads, :func:`compare` judges; running the model is the caller's part. The tolerance is the
manifest's: mean absolute difference in units of the standard deviation of the expected outputs. Example::

    golden = read_golden(path, variant="int8")
    problems = compare(golden.outputs, got, tolerance=0.1)        # [] when it passed
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeopt_contract.array_files import load_arrays
from edgeopt_contract.errors import BundleError

__all__ = ["LEAST_SPREAD", "Golden", "compare", "divergence", "read_golden"]

Array = npt.NDArray[Any]
_INPUTS = "inputs/"
LEAST_SPREAD = 1e-6  # expected outputs that never vary still allow rounding
_LEAST_TOP1_AGREEMENT = 0.9


@dataclass(frozen=True, slots=True)
class Golden:
    """Inputs and expected outputs by tensor name; the first axis counts the samples."""

    inputs: dict[str, Array]
    outputs: dict[str, Array]

    @property
    def samples(self) -> int:
        """How many samples there are."""
        return len(next(iter(self.inputs.values())))


def read_golden(path: Path, variant: str) -> Golden:
    """Read the arrays ``inputs/<name>`` and ``outputs/<variant>/<name>``. Raises :class:`BundleError`."""
    prefix = f"outputs/{variant}/"
    try:
        stored = load_arrays(path, wanted=lambda name: name.startswith((_INPUTS, prefix)))
    except (OSError, ValueError, MemoryError) as error:
        raise BundleError(f"{path.name}: the golden inputs cannot be read: {error}") from error
    arrays = stored if isinstance(stored, dict) else {}
    inputs = {name.removeprefix(_INPUTS): array for name, array in arrays.items() if name.startswith(_INPUTS)}
    outputs = {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}
    if not inputs or not outputs:
        raise BundleError(f"{path.name}: expected arrays named {_INPUTS}… and {prefix}…; build the bundle again")
    lengths = {array.shape[0] if array.ndim else 0 for array in (*inputs.values(), *outputs.values())}
    if len(lengths) != 1 or lengths == {0}:
        raise BundleError(f"{path.name}: expected as many inputs as outputs and at least one, got {sorted(lengths)}")
    return Golden(inputs, outputs)


def compare(expected: Mapping[str, Array], got: Mapping[str, Array], tolerance: float) -> list[str]:
    """Return what is wrong with the outputs ``got``, in words; nothing when the self-test passed."""
    problems: list[str] = []
    for name, wanted in expected.items():
        actual = got.get(name)
        if actual is None:
            problems.append(f"{name}: the model has no such output")
        elif actual.shape != wanted.shape:
            problems.append(f"{name}: expected shape {wanted.shape}, got {actual.shape}")
        elif not np.isfinite(actual).all() and np.isfinite(wanted).all():
            problems.append(f"{name}: expected finite numbers, got NaN or infinity")
        else:
            problems.extend(_compare_values(name, wanted.astype(np.float64), actual.astype(np.float64), tolerance))
    return problems


def divergence(expected: Mapping[str, Array], got: Mapping[str, Array], tolerance: float) -> float | None:
    """Return the greatest mean difference of an output in units of what is allowed; ``None`` where it has none."""
    greatest = 0.0
    for name, wanted in expected.items():
        actual = got.get(name)
        if actual is None or actual.shape != wanted.shape:
            return None
        difference, allowed = _difference(wanted.astype(np.float64), actual.astype(np.float64), tolerance)
        if not np.isfinite(difference) or allowed <= 0:
            return None
        greatest = max(greatest, difference / allowed)
    return greatest


def _difference(wanted: Array, actual: Array, tolerance: float) -> tuple[float, float]:
    """Return the mean difference, and what is allowed."""
    with np.errstate(invalid="ignore"):  # infinity less infinity is NaN, and said to be none
        difference = float(np.abs(wanted - actual).mean())
        return difference, tolerance * max(float(wanted.std()), LEAST_SPREAD)


def _compare_values(name: str, wanted: Array, actual: Array, tolerance: float) -> list[str]:
    difference, allowed = _difference(wanted, actual, tolerance)
    if not difference <= allowed:
        return [f"{name}: expected a mean difference of at most {allowed:.3g}, got {difference:.3g}"]
    agreement = _top1_agreement(wanted, actual, margin=2 * allowed)
    if agreement < _LEAST_TOP1_AGREEMENT:
        return [f"{name}: expected the same answer on {_LEAST_TOP1_AGREEMENT:.0%} of the samples, got {agreement:.0%}"]
    return []


def _top1_agreement(wanted: Array, actual: Array, margin: float) -> float:
    """Return the share of equal answers among the samples whose best score leads by more than ``margin``."""
    if wanted.ndim != 2 or wanted.shape[1] < 2:
        return 1.0  # not class scores
    best = np.sort(wanted, axis=1)
    clear = best[:, -1] - best[:, -2] > margin
    return float((wanted.argmax(axis=1) == actual.argmax(axis=1))[clear].mean()) if clear.any() else 1.0
