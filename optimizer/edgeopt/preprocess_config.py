"""Reading which steps go around a model from a TOML file (``--preprocess``).

It checks keys, types and names of steps; whether they fit a model is found out when they are folded in
(:mod:`edgeopt.preprocess`). Example::

    [[input]]                      # in the order in which the data go through them
    step = "channels-first"
    [[input]]
    step = "to-float"
    dtype = "uint8"
    [[input]]
    step = "normalize"
    mean = [123.7, 116.3, 103.5]
    std = [58.4, 57.1, 57.4]
    [[output]]
    step = "softmax"
"""

from __future__ import annotations

import dataclasses
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from edgeopt.preprocess_steps import INPUT_STEPS, OUTPUT_STEPS, Preprocessing
from edgeopt_contract.errors import UsageError

__all__ = ["read_preprocessing"]

_KEYS = ("batch_axes", "constants", "input", "output")
S = TypeVar("S")


def read_preprocessing(path: Path) -> Preprocessing:
    """Return the steps in ``path``. Raises :class:`UsageError`, naming the step and what is known."""
    try:
        raw = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UsageError(f"there is no file {path}: check the path") from error
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise UsageError(f"cannot read the steps in {path}: {error}") from error
    unknown = sorted(set(raw) - set(_KEYS))
    if unknown:
        raise UsageError(f"{path}: unknown keys {', '.join(unknown)}; expected {', '.join(_KEYS)}")
    return Preprocessing(
        inputs=_steps(raw.get("input", []), INPUT_STEPS, f"{path}, input"),
        outputs=_steps(raw.get("output", []), OUTPUT_STEPS, f"{path}, output"),
        constants=_converted(raw.get("constants", {}), dict[str, Any], f"{path}, constants"),
        batch_axes=_converted(raw.get("batch_axes", {}), dict[str, int], f"{path}, batch_axes"),
    )


def _steps(raw: Any, known: Mapping[str, type[S]], where: str) -> tuple[S, ...]:
    if not isinstance(raw, list) or not all(isinstance(entry, dict) for entry in raw):
        raise UsageError(f"{where}: expected tables, each headed by double brackets")
    steps = []
    for number, entry in enumerate(raw, 1):
        kind = entry.get("step")
        if kind not in known:
            raise UsageError(f"{where} {number}: unknown step {kind!r}; expected one of {', '.join(known)}")
        given = {key: value for key, value in entry.items() if key != "step"}
        fields = {one.name for one in dataclasses.fields(known[kind])}  # type: ignore[arg-type]  # all are dataclasses
        unknown = sorted(set(given) - fields)
        if unknown:
            raise UsageError(
                f"{where} {number} ({kind}): unknown keys {', '.join(unknown)}; expected {', '.join(sorted(fields))}"
            )
        steps.append(_converted(given, known[kind], f"{where} {number} ({kind})"))
    return tuple(steps)


def _converted(raw: Any, kind: type[S], where: str) -> S:
    try:
        return msgspec.convert(raw, kind, strict=True)
    except msgspec.ValidationError as error:
        raise UsageError(f"{where}: {error}") from error
