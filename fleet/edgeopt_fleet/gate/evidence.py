"""What the gate is told at one look: one frozen array a column, one place a device.

Pure. It does not collect (:mod:`edgeopt_fleet.store.evidence` does) and does not judge. :func:`encode` gives canonical
bytes, from which :func:`decode` makes evidence that judges to the same verdict, byte for byte: changes are kept as
float32, which is what is judged the first time as well. Example::

    stored = encode(evidence)
    judge(decode(stored), policy) == judge(evidence, policy)
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeopt_contract.errors import MessageError
from edgeopt_fleet.gate.policy import COMPARED, METRICS
from edgeopt_fleet.gate.stored import columns, freeze, pack, unpack

__all__ = ["Devices", "Evidence", "Look", "Outcome", "Tally", "Wave", "decode", "devices_of", "encode", "no_devices"]

_FORMAT = 1


class Outcome(StrEnum):
    """How a member's update ended. ``None`` stands for: not yet."""

    CONFIRMED = "confirmed"
    FAILED = "failed"


class Look(StrEnum):
    """What came of one look that had something to compare."""

    SUCCESSFUL = "successful"  # all is there, and surely no worse than allowed
    FAILED = "failed"  # surely worse than allowed
    INCONCLUSIVE = "inconclusive"  # all is there, and one cannot tell yet
    EARLY = "early"  # not surely worse, and devices or rows are still missing


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Devices:
    """Devices with what became worse on each: ``changes`` and ``noise`` have a row a metric, in the order of METRICS.

    Where two arms are compared it is that of COMPARED. ``changes`` is NaN where a metric was not measured on both
    sides. ``noise`` is the variance that a change has because it comes from so many rows and no more. ``before`` and
    ``after`` count attempted inferences: of a wave's device on its previous and on the new bundle, of a control before
    and after the wave began.
    """

    names: tuple[str, ...]
    hardware: npt.NDArray[np.int32]  # where the device's class stands in Evidence.hardware
    before: npt.NDArray[np.int64]
    after: npt.NDArray[np.int64]
    changes: npt.NDArray[np.float32]
    noise: npt.NDArray[np.float32]

    def __post_init__(self) -> None:
        n = len(self.names)
        freeze(self, {"hardware": (np.int32, (n,)), "before": (np.int64, (n,)), "after": (np.int64, (n,))})
        rows = len(COMPARED) if len(self.changes) == len(COMPARED) else len(METRICS)
        freeze(self, dict.fromkeys(("changes", "noise"), (np.float32, (rows, n))))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Wave:
    """The exposed devices of the current wave, and how far each has come. ``rows`` it answered on the new bundle."""

    devices: Devices
    online: npt.NDArray[np.bool_]
    confirmed: npt.NDArray[np.bool_]
    failed: npt.NDArray[np.bool_]
    waiting: npt.NDArray[np.bool_]  # has everything, and waits for its maintenance window
    rows: npt.NDArray[np.int64]

    def __post_init__(self) -> None:
        n = len(self.devices.names)
        freeze(self, dict.fromkeys(("online", "confirmed", "failed", "waiting"), (np.bool_, (n,))))
        freeze(self, {"rows": (np.int64, (n,))})


@dataclass(frozen=True, slots=True)
class Tally:
    """How many devices executed the update, how many of them failed."""

    executed: int = 0
    failed: int = 0

    @property
    def share(self) -> float:
        """The share that failed; none of none is none."""
        return self.failed / self.executed if self.executed else 0.0


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Evidence:
    """All that the gate knows at one look.

    ``history`` are the earlier looks of this wave that compared something, oldest first; ``silent_seconds`` have passed
    since the last of them (or since the wave began). ``failures`` are the commonest words of failed devices.
    """

    wave: int
    waves: int
    members: int
    age_seconds: float
    silent_seconds: float
    history: tuple[Look, ...]
    hardware: tuple[str, ...]
    exposed: Wave
    controls: Devices
    tally: Tally
    overall: Tally
    failures: tuple[tuple[str, int], ...] = ()


def no_devices() -> Devices:
    """Return a group without devices."""
    none, table = np.zeros(0, dtype=np.int64), np.zeros((len(METRICS), 0), dtype=np.float32)
    return Devices(names=(), hardware=none.astype(np.int32), before=none, after=none, changes=table, noise=table)


def encode(evidence: Evidence) -> bytes:
    """Return ``evidence`` as canonical bytes: equal evidence gives equal bytes before they are compressed."""
    return pack(_FORMAT, evidence)


def decode(stored: bytes) -> Evidence:
    """Return what :func:`encode` was given. Raises :class:`MessageError` when ``stored`` is not that."""
    try:
        wave, waves, members, age, silent, history, hardware, exposed, controls, tally, overall, failures = unpack(
            _FORMAT, stored
        )
        return Evidence(
            wave=wave,
            waves=waves,
            members=members,
            age_seconds=age,
            silent_seconds=silent,
            history=tuple(Look(word) for word in history),
            hardware=tuple(hardware),
            exposed=Wave(devices=devices_of(exposed[0]), **columns(Wave, exposed)),
            controls=devices_of(controls),
            tally=Tally(*tally),
            overall=Tally(*overall),
            failures=tuple((words, times) for words, times in failures),
        )
    except (ValueError, TypeError) as error:
        raise MessageError(f"stored evidence cannot be read: {error}") from error


def devices_of(values: list[Any]) -> Devices:
    """Return the devices that were stored as ``values``."""
    return Devices(names=tuple(values[0]), **columns(Devices, values))
