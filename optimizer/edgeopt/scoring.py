"""The metric that a run is judged by, by its name: ``accuracy``, ``agreement`` or ``package.module:function``.

The arithmetic is in :mod:`edgeopt.metrics`; this loads the user's function and pairs baseline with variant. Example::

    metric = load_metric("accuracy")
    before, after = metric.scores(baseline_outputs, variant_outputs, labels)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeopt import metrics
from edgeopt.loading import load_attribute
from edgeopt.samples import Array
from edgeopt.wording import Wording
from edgeopt_contract.errors import DataError, UsageError

__all__ = ["Metric", "load_metric"]

Scores = npt.NDArray[np.float64]
Outputs = Mapping[str, Array]


@dataclass(frozen=True, slots=True)
class Metric:
    """How one sample is scored; ``function`` is the user's, ``None`` for the built-in ones."""

    name: str
    function: metrics.SampleMetric | None = None

    @property
    def is_agreement(self) -> bool:
        """Whether the baseline is one by definition."""
        return self.name == "agreement"

    @property
    def wording(self) -> Wording:
        """How its scores are written."""
        return Wording(is_share=self.function is None)

    @property
    def needs_labels(self) -> bool:
        """Whether samples without a label cannot be scored; the user's function may do without."""
        return self.name == "accuracy"

    def scores(self, baseline: Outputs, variant: Outputs, labels: Sequence[Any]) -> tuple[Scores, Scores]:
        """Return the scores of both models, float64 of shape (n,) each. Raises :class:`DataError`."""
        if self.is_agreement:
            return np.ones(len(labels)), self.agreement(baseline, variant)
        if self.function is None:
            return metrics.accuracy(baseline, labels), metrics.accuracy(variant, labels)
        return (
            metrics.user_scores(self.function, baseline, labels, self.name),
            metrics.user_scores(self.function, variant, labels, self.name),
        )

    def agreement(self, baseline: Outputs, variant: Outputs) -> Scores:
        """Return the share of answers on which both models agree, for each sample."""
        return metrics.agreement(baseline, variant)


def load_metric(name: str) -> Metric:
    """Return the metric called ``name``. Raises :class:`UsageError` for one that does not exist."""
    if name in ("accuracy", "agreement"):
        return Metric(name)
    if ":" not in name:
        raise UsageError(f"unknown metric {name!r}: expected accuracy, agreement or package.module:function")
    return Metric(name, load_attribute(name, DataError))
