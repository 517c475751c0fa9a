"""When a certificate is renewed, and how patiently it is tried again. Pure arithmetic on seconds since 1970.

At about two thirds of the life, spread so that devices that were enrolled together do not come together; at once when
it has expired already, for a device that was off for months may still renew with its old key. Example::

    >>> Validity(begin=0, end=120).due(share=0.5)
    85.0
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Validity"]

_LONGEST_RETRY_SECONDS = 6 * 3600.0
_LONGEST_PATIENCE_SECONDS = 3600.0


@dataclass(frozen=True, slots=True)
class Validity:
    """From when to when a certificate is valid."""

    begin: int
    end: int

    @property
    def life(self) -> int:
        """How long it is valid."""
        return self.end - self.begin

    def due(self, share: float) -> float:
        """Return when to renew: after two thirds of the life and ``share`` (0 to 1) of another twelfth."""
        return self.begin + self.life * (2 / 3 + share / 12)

    @property
    def retry_base(self) -> float:
        """The first limit of the pause after a failure; a minute, less for a short life."""
        return min(60.0, self.life / 200)

    @property
    def retry_cap(self) -> float:
        """The greatest limit of that pause; six hours, less for a short life."""
        return min(_LONGEST_RETRY_SECONDS, self.life / 24)

    @property
    def patience(self) -> float:
        """How long a renewed certificate waits for the broker before the device connects anew with it."""
        return min(_LONGEST_PATIENCE_SECONDS, self.life / 24)
