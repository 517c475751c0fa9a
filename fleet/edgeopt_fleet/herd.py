"""How long a whole fleet takes to come back, so that it does not come all at once. Pure.

A broker that was killed loses every device in the same moment. Each draws its first reconnect from a window that grows
with the fleet; it is told at its enrolment, and with every acknowledgement. Example::

    >>> reconnect_window_seconds(10), reconnect_window_seconds(5000)
    (1.0, 77.0)
"""

from __future__ import annotations

__all__ = ["reconnect_window_seconds"]

_RECONNECTS_A_SECOND = 65.0  # a broker on two cores takes this many, and as many that try again, without strain
_LONGEST_SECONDS = 90.0


def reconnect_window_seconds(devices: int) -> float:
    """Return from how many seconds a device of a fleet of so many draws its first reconnect; whole seconds."""
    return float(round(min(max(1.0, devices / _RECONNECTS_A_SECOND), _LONGEST_SECONDS)))
