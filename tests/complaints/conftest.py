"""The stores of a fleet, for complaints about what it decides."""

from tests.fleet.conftest import kit

__all__ = ["kit"]
