"""What a link is like: delay, jitter, loss, rate and whether it is there at all; and some links by name.

Pure. One record describes both directions, each of which has a queue and a transmitter of its own. Example::

    THREE_G = PRESETS["3G"]
    replace(THREE_G, loss=0.3)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

from edgeopt_contract.errors import UsageError

__all__ = ["PRESETS", "Conditions", "changed"]

_LONGEST_MS = 60_000.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Conditions:
    """A link's conditions in each direction. Raises :class:`UsageError` for a value that cannot be.

    ``delay_ms`` is one way, so a round trip takes twice as long; each packet takes up to ``jitter_ms`` more. ``loss``
    is a probability for each packet. ``rate_bits`` are bits a second, 0 for no limit. Packets wait for the transmitter
    in ``queue_bytes``; what does not fit is lost. ``down`` loses everything, also what is under way.
    """

    delay_ms: float = 0.0
    jitter_ms: float = 0.0
    loss: float = 0.0
    rate_bits: float = 0.0
    queue_bytes: int = 128 << 10
    down: bool = False

    def __post_init__(self) -> None:
        for name in ("delay_ms", "jitter_ms"):
            value = getattr(self, name)
            if not 0 <= value <= _LONGEST_MS:
                raise UsageError(f"{name}: expected 0 to {_LONGEST_MS:.0f} milliseconds, got {value}")
        if not 0 <= self.loss <= 1:
            raise UsageError(f"loss: expected a probability between 0 and 1, got {self.loss}")
        if not self.rate_bits >= 0:
            raise UsageError(f"rate_bits: expected bits a second, or 0 for no limit, got {self.rate_bits}")
        if self.queue_bytes < 1500:
            raise UsageError(f"queue_bytes: expected room for a packet, 1500 or more, got {self.queue_bytes}")


# 3G is the issue's bad network: 200 ms, 5 % loss, 384 kbit/s (UMTS without HSPA, 3GPP TS 22.105's rate for wide areas).
PRESETS: Mapping[str, Conditions] = {
    "perfect": Conditions(),
    "LAN": Conditions(delay_ms=0.5, rate_bits=100e6),
    "4G": Conditions(delay_ms=25, jitter_ms=10, loss=0.002, rate_bits=10e6),
    "3G": Conditions(delay_ms=200, jitter_ms=30, loss=0.05, rate_bits=384_000),
    "2G": Conditions(delay_ms=400, jitter_ms=100, loss=0.05, rate_bits=60_000, queue_bytes=32 << 10),
    "satellite": Conditions(delay_ms=300, jitter_ms=10, loss=0.01, rate_bits=2e6),
}


def changed(conditions: Conditions, changes: Mapping[str, object]) -> Conditions:
    """Return ``conditions`` with some values changed. Raises :class:`UsageError` for unknown names and bad values."""
    known = {field.name: type(getattr(conditions, field.name)) for field in fields(conditions)}
    for name, value in changes.items():
        if name not in known:
            raise UsageError(f"expected conditions out of {', '.join(known)}, got {name!r}")
        kinds = (bool,) if known[name] is bool else (int, float)
        if not isinstance(value, kinds) or (isinstance(value, bool) and known[name] is not bool):
            raise UsageError(f"{name}: expected {' or '.join(kind.__name__ for kind in kinds)}, got {value!r}")
    checked: dict[str, Any] = dict(changes)
    return replace(conditions, **checked)
