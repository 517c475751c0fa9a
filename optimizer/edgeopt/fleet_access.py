"""Where a fleet is and the key that opens its API: the ``operator.json`` of an operator.

It asks the fleet nothing; that is ``fleet_http``'s part. Example::

    access = load_access(Path("fleet/operator.json"))
"""

from __future__ import annotations

import ssl
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import msgspec

from edgeopt_contract.errors import UsageError

__all__ = ["FleetAccess", "load_access"]


@dataclass(frozen=True, slots=True)
class FleetAccess:
    """Where the fleet is, and the key that opens its API; the key is never shown.

    ``ca`` (PEM) is the only authority that the fleet's certificate may be of; empty: those of the system.
    """

    url: str
    key: str = field(repr=False)
    ca: str = field(default="", repr=False)

    def __post_init__(self) -> None:
        try:
            host = httpx.URL(self.url).host
        except httpx.InvalidURL as error:
            raise ValueError(f"expected an address like http://127.0.0.1:8080, got {self.url!r}") from error
        if not self.url.startswith(("http://", "https://")) or not host:
            raise ValueError(f"expected an address like http://127.0.0.1:8080, got {self.url!r}")
        if not self.key.isascii() or not self.key.isprintable():
            raise ValueError("expected a key of printable ASCII characters")
        try:
            self.trusted()
        except (ssl.SSLError, ValueError) as error:
            raise ValueError(f"expected ca to be a certificate in PEM: {error}") from error

    def trusted(self) -> ssl.SSLContext | bool:
        """Return whom to believe over HTTPS, as httpx takes it; true: the system's authorities."""
        return ssl.create_default_context(cadata=self.ca) if self.ca else True


def load_access(path: Path) -> FleetAccess:
    """Read the ``operator.json`` that ``edgeopt-fleet init`` wrote. Raises :class:`UsageError`."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=FleetAccess)
    except OSError as error:
        raise UsageError(
            f"cannot read {path} ({error.strerror}); give the operator.json that 'edgeopt-fleet init' wrote"
        ) from error
    except (msgspec.MsgspecError, ValueError) as error:
        raise UsageError(
            f"{path} does not hold the access to a fleet ({error}); give the operator.json that "
            "'edgeopt-fleet init' wrote"
        ) from error
