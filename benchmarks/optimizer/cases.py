"""The models that the benchmarks measure: public ones, and small ones trained under examples/.

It measures nothing. Example::

    case = CASES["digits"]
    case.arguments(Path("build/digits"))          # what stands behind 'edgeopt optimize'
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from pathlib import Path

from edgeopt.sources import DataSources
from edgeopt_contract.errors import UsageError
from examples.missing_data import MissingDataError

__all__ = ["CASES", "Case"]

_SPLITS = ("calibration", "selection", "certification")


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A model with its data: ``three`` when the example gives a factory for each split, else one ``data``.

    ``max_drop`` is what ``--max-drop`` gets. ``sequence``: a transformer or a recurrent network, held to a size.
    """

    name: str
    max_drop: str = "1%"
    metric: str = "accuracy"
    three: bool = False
    sequence: bool = False

    @property
    def model(self) -> str:
        """The factory of the model, as the command names it."""
        return f"examples.{self.name}:model"

    @property
    def margin(self) -> float:
        """The greatest drop allowed, as a share."""
        return float(self.max_drop.rstrip("%")) / 100

    @property
    def sources(self) -> DataSources:
        """The factories of the data."""
        if self.three:
            calibration, selection, certification = (f"examples.{self.name}:{split}" for split in _SPLITS)
            return DataSources(calibration=calibration, selection=selection, certification=certification)
        return DataSources(single=f"examples.{self.name}:data")

    def arguments(self, output: Path) -> list[str]:
        """Return what stands behind ``edgeopt quantize`` or ``edgeopt optimize``."""
        data = (
            [f"--{split}-data=examples.{self.name}:{split}" for split in _SPLITS]
            if self.three
            else [f"--data=examples.{self.name}:data"]
        )
        return [self.model, *data, f"--max-drop={self.max_drop}", f"--metric={self.metric}", "-o", str(output)]

    def missing(self) -> str | None:
        """Return why this model cannot be measured here, ``None`` when model and data are there."""
        try:
            example = importlib.import_module(f"examples.{self.name}")
            example.model()
            next(iter(example.certification() if self.three else example.data()))
        except (MissingDataError, UsageError, ImportError) as error:
            return str(error)
        return None


_ALL = (  # the smallest first
    Case(name="digits", max_drop="2%"),
    Case(name="letter"),
    Case(name="fashion_mnist"),
    Case(name="mobilenet_v3_like"),
    Case(name="digit_recognizer"),
    Case(name="pulse_vad"),
    Case(name="transformer", sequence=True),
    Case(name="lstm", sequence=True),
    Case(name="gru", sequence=True),
    Case(name="resnet"),
    Case(name="efficientnet_lite0", max_drop="10%", metric="agreement", three=True),
)
CASES = {case.name: case for case in _ALL}
