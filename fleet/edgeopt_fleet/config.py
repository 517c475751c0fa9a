"""The settings of one fleet and where its files lie.

Example::

    home = Home(Path("fleet"))
    config = read_config(home.config)        # FleetConfig(host='127.0.0.1', http_port=8080, mqtt_port=1883, …)
"""

from __future__ import annotations

import dataclasses
import tomllib
from dataclasses import dataclass
from pathlib import Path

from edgeopt_contract.errors import UsageError

__all__ = ["FleetConfig", "Home", "read_config", "write_config"]


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetConfig:
    """What ``fleet.toml`` holds."""

    http_port: int
    mqtt_port: int
    host: str = "127.0.0.1"  # the address that API and broker listen on
    tick_seconds: float = 0.5  # how often rollouts are looked at
    drift_look_seconds: float = 30.0  # how often cohorts are compared with their reference, given enough rows

    def __post_init__(self) -> None:
        for name in ("http_port", "mqtt_port"):
            if not 1 <= getattr(self, name) <= 65535:
                raise ValueError(f"expected {name} from 1 to 65535, got {getattr(self, name)}")
        if not self.host:
            raise ValueError("expected a host to listen on, such as 127.0.0.1")
        for name in ("tick_seconds", "drift_look_seconds"):
            if not 0.01 <= getattr(self, name) <= 86400:
                raise ValueError(f"expected {name} from 0.01 to 86400, got {getattr(self, name)}")


@dataclass(frozen=True, slots=True)
class Home:
    """The directory of one fleet: ``fleet.toml``, the database, keys, blocks, and what only lives while it runs."""

    directory: Path

    @property
    def config(self) -> Path:
        """The settings."""
        return self.directory / "fleet.toml"

    @property
    def database(self) -> Path:
        """The SQLite file."""
        return self.directory / "fleet.db"

    @property
    def signing_key(self) -> Path:
        """The private key that signs bundles; mode 0600."""
        return self.directory / "signing.key"

    @property
    def operator(self) -> Path:
        """Address and key for the operator's commands; mode 0600."""
        return self.directory / "operator.json"

    @property
    def blocks(self) -> Path:
        """The blocks of all bundles, each named by its hash."""
        return self.directory / "blocks"

    @property
    def broker(self) -> Path:
        """Configuration and store of the embedded broker."""
        return self.directory / "broker"

    @property
    def run(self) -> Path:
        """Process ids and the lock of the running server."""
        return self.directory / "run"


def read_config(path: Path) -> FleetConfig:
    """Read ``fleet.toml``. Raises :class:`UsageError` naming what is wrong; unknown settings are refused."""
    try:
        raw = tomllib.loads(path.read_text("utf-8"))
    except FileNotFoundError as error:
        raise UsageError(f"{path} does not exist; make a fleet first: edgeopt-fleet init {path.parent}") from error
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise UsageError(f"{path} cannot be read: {error}") from error
    fields = {field.name: field for field in dataclasses.fields(FleetConfig)}
    unknown = sorted(set(raw) - set(fields))
    if unknown:
        raise UsageError(f"{path}: unknown setting {unknown[0]!r}; known are {', '.join(fields)}")
    for name, value in raw.items():
        kinds = (str,) if name == "host" else (int,) if name.endswith("_port") else (int, float)
        if not isinstance(value, kinds) or isinstance(value, bool):
            raise UsageError(f"{path}: {name} = {value!r}: expected {' or '.join(kind.__name__ for kind in kinds)}")
    try:
        return FleetConfig(**raw)
    except (TypeError, ValueError) as error:
        raise UsageError(f"{path}: {error}") from error


def write_config(config: FleetConfig) -> str:
    """Return ``config`` as the text of ``fleet.toml``."""
    lines = ["# Settings of this edgeopt fleet; restart 'edgeopt-fleet serve' after a change."]
    for name, value in dataclasses.asdict(config).items():
        lines.append(f'{name} = "{value}"' if isinstance(value, str) else f"{name} = {value}")
    return "\n".join(lines) + "\n"
