"""What a convolution multiplies: the pixels under its window, channels last, one row for each position.

It computes no convolution. Batch and channels come first in what goes in (ONNX's layout). Pure. Example::

    window = Window.of({"pads": [1, 1, 1, 1]}, (3, 3), fill=128)
    window_rows(activations, window, groups=1, most=256).shape        # (1, rows, 9 * channels)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgeopt.samples import Array

__all__ = ["Window", "window_rows"]


@dataclass(frozen=True, slots=True)
class Window:
    """Size and steps of a kernel over its spatial axes, and what it sees beyond the edge (the zero point).

    ``pads`` are those of ONNX: all beginnings, then all ends; ``same`` is ``SAME_UPPER`` or ``SAME_LOWER`` where the
    graph leaves them to the runtime.
    """

    size: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    pads: tuple[int, ...]
    same: str
    fill: int

    @classmethod
    def of(cls, attributes: Mapping[str, Any], size: Sequence[int], fill: int) -> Window:
        """Read the attributes of an ONNX ``Conv`` node (ONNX operator specification, Conv)."""
        axes = len(size)
        automatic = attributes.get("auto_pad", b"NOTSET").decode()
        return cls(
            size=tuple(size),
            strides=tuple(attributes.get("strides", [1] * axes)),
            dilations=tuple(attributes.get("dilations", [1] * axes)),
            pads=tuple(attributes.get("pads", [0] * 2 * axes)),
            same=automatic if automatic.startswith("SAME") else "",
            fill=fill,
        )

    @property
    def reach(self) -> tuple[int, ...]:
        """How many pixels it spans along each axis."""
        return tuple((size - 1) * step + 1 for size, step in zip(self.size, self.dilations, strict=True))

    def margins(self, shape: Sequence[int]) -> list[tuple[int, int]]:
        """Return how far a map of ``shape`` is padded before and after each axis."""
        axes = len(self.size)
        if not self.same:
            return [(self.pads[axis], self.pads[axis + axes]) for axis in range(axes)]
        spans = zip(shape, self.strides, self.reach, strict=True)
        whole = [max(0, (-(-length // stride) - 1) * stride + reach - length) for length, stride, reach in spans]
        halves = [((all_ + 1) // 2, all_ // 2) for all_ in whole]
        return halves if self.same == "SAME_LOWER" else [(after, before) for before, after in halves]


def window_rows(values: Array, window: Window, groups: int, most: int) -> Array:
    """Return rows (groups, positions, window x channels of a group) of ``values`` (n, channels, ...).

    Of more than ``most`` positions about so many are taken, evenly.
    """
    spatial = tuple(range(2, values.ndim))
    margins = [(0, 0), (0, 0), *window.margins(values.shape[2:])]
    padded = np.pad(values, margins, constant_values=window.fill)
    views = np.lib.stride_tricks.sliding_window_view(padded, window.reach, axis=spatial)
    steps = (slice(None), slice(None), *(slice(None, None, stride) for stride in window.strides))
    inside = tuple(slice(None, None, step) for step in window.dilations)
    views = np.moveaxis(views[(*steps, *inside)], 1, -1)  # n, positions, window, channels
    positions = views.shape[: 1 + len(spatial)]
    count = int(np.prod(positions))
    chosen = np.unravel_index(np.arange(0, count, max(1, count // most)), positions)
    rows = views[chosen]
    split = rows.reshape(*rows.shape[:-1], groups, -1)
    return np.moveaxis(split, -2, 0).reshape(groups, len(rows), -1)
