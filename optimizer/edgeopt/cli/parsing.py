"""What people type for drops, shares, shapes and times, as numbers. Pure.

Example::

    parse_drop("1%"), parse_seconds("10m")        # (0.01, 600.0)
"""

from __future__ import annotations

import re

from edgeopt_contract.errors import UsageError

__all__ = ["parse_agreement", "parse_drop", "parse_seconds", "parse_shape"]

_SECONDS = {"s": 1.0, "m": 60.0, "h": 3600.0, "": 1.0}


def parse_drop(text: str, option: str = "--max-drop") -> float:
    """Return ``1%``, ``1pp`` or ``0.01`` as a share: always points of the metric. Raises :class:`UsageError`."""
    match = re.fullmatch(r"\s*(\d+\.?\d*|\.\d+)\s*(%|pp)?\s*", text)
    if match is None:
        raise UsageError(f"{option} {text!r}: expected points of the metric, such as 1%, 1pp or 0.01")
    value = float(match[1]) / (100 if match[2] else 1)
    if value >= 1:
        raise UsageError(f"{option} {text!r}: expected less than 100 points, got {value * 100:g}; 1% allows one point")
    return value


def parse_agreement(text: str) -> float:
    """Return ``95%`` or ``0.95`` as a share between 0 and 1. Raises :class:`UsageError`."""
    match = re.fullmatch(r"\s*(\d+\.?\d*|\.\d+)\s*(%?)\s*", text)
    share = float(match[1]) / (100 if match[2] else 1) if match else 0.0
    if not 0 < share < 1:
        raise UsageError(
            f"--min-agreement {text!r}: expected a share above 0 % and below 100 %, such as 95% or 0.95 (no number of "
            "samples could prove 100 %)"
        )
    return share


def parse_shape(text: str | None) -> tuple[int, ...] | None:
    """Return (3, 224, 224) for '3x224x224'. Raises :class:`UsageError`."""
    if text is None:
        return None
    if not re.fullmatch(r"[1-9]\d{0,8}(x[1-9]\d{0,8})*", text):
        raise UsageError(f"--input-shape {text!r}: expected the sizes of one sample with x between, such as 3x224x224")
    return tuple(map(int, text.split("x")))


def parse_seconds(text: str) -> float:
    """Return ``90``, ``90s``, ``10m`` or ``1.5h`` in seconds. Raises :class:`UsageError`."""
    match = re.fullmatch(r"\s*(\d+\.?\d*|\.\d+)\s*([smh]?)\s*", text)
    seconds = float(match[1]) * _SECONDS[match[2]] if match else 0.0
    if seconds <= 0:
        raise UsageError(f"--budget {text!r}: expected a time such as 90s, 10m or 1.5h")
    return seconds
