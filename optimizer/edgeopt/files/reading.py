"""How files are to be read, and how the names of classes become labels.

Pure: it opens nothing. Example::

    Reading(shape=(3, 224, 224), labels=("cat", "dog", "owl")).indices(("cat", "owl"), "pets")   # {"cat": 0, "owl": 2}
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from edgeopt_contract.errors import DataError

__all__ = ["Labelled", "Reading", "Shape", "TokenIds", "in_words"]

Shape = tuple[int | None, ...]  # of one sample, without batch dimension; None is any length


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenIds:
    """Which column holds token ids; see :mod:`edgeopt.files.tokens`.

    ``pad`` is the id that fills short rows, ``length`` how many ids the model takes, ``mask`` the name of the input
    that gets 1 for a token and 0 for padding; then ``column`` is the name of the ids' input as well.
    """

    column: str
    pad: int | None = None
    length: int | None = None
    mask: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """What the files do not say themselves: the model's input, a table's label column, the order of the classes.

    ``shape`` is that of one sample, ``None`` when nobody knows it; ``labels`` are the names of the model's classes in
    the order of its outputs, empty when they were not given. ``tokens`` are declared when a table holds token ids.
    """

    shape: Shape | None = None
    label_column: str = "label"
    labels: tuple[str, ...] = ()
    tokens: TokenIds | None = None

    def indices(self, classes: Sequence[str], source: str) -> Mapping[str, int]:
        """Return the label of each of the ``classes`` (sorted names) that ``source`` has.

        Names that all stand in ``labels`` have their place there; otherwise a class is its place among the sorted
        names, as in torchvision's ``ImageFolder``. Raises :class:`DataError` when ``labels`` fit only in part.
        """
        if len(classes) < 2:
            raise DataError(f"{source} has one class only, {classes[0]!r}: expected at least two")
        foreign = [name for name in classes if name not in self.labels]
        if not foreign:
            return {name: self.labels.index(name) for name in classes}
        if self.labels and len(foreign) < len(classes):
            raise DataError(f"{source} has the class {foreign[0]!r}, which is not among --labels: name all or none")
        if self.labels and len(self.labels) != len(classes):
            raise DataError(
                f"{source} has {len(classes)} classes, --labels names {len(self.labels)} others: give one for each "
                "class, or the very names of the classes in the order of the model's outputs"
            )
        return {name: index for index, name in enumerate(classes)}


@dataclass(frozen=True, slots=True)
class Labelled:
    """Pairs of (input, label), read as they are asked for, and the names of the classes; empty: there are none."""

    pairs: Iterator[tuple[Any, Any]]
    classes: tuple[str, ...] = ()


def in_words(shape: Shape) -> str:
    """Return ``3 x any x 224`` for ``(3, None, 224)``."""
    return " x ".join("any" if size is None else str(size) for size in shape) or "a single number"
