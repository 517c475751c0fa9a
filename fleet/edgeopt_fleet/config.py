"""The settings of one fleet and where its files lie.

Example::

    home = Home(Path("fleet"))
    config = read_config(home.config)        # FleetConfig(host='127.0.0.1', http_port=8080, mqtt_port=1883, …)
"""

from __future__ import annotations

import dataclasses
import json
import tomllib
from dataclasses import dataclass
from pathlib import Path

from edgeopt_contract.errors import UsageError

__all__ = ["FleetConfig", "Home", "read_config", "write_config"]

_BROKERS = ("embedded", "mosquitto")
_KINDS: dict[str, tuple[type, ...]] = {"str": (str,), "int": (int,), "float": (int, float), "bool": (bool,)}


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetConfig:
    """What ``fleet.toml`` holds."""

    http_port: int
    mqtt_port: int
    host: str = "127.0.0.1"  # the address that API and broker listen on
    tick_seconds: float = 0.5  # how often rollouts are looked at
    drift_look_seconds: float = 30.0  # how often cohorts are compared with their reference, given enough rows
    broker: str = "embedded"  # or mosquitto, which somebody else runs
    mqtt_host: str = ""  # where devices reach the broker; empty: where they reach the API
    broker_reload: str = ""  # a command that makes mosquitto read its files again
    plain: bool = False  # passwords instead of certificates at the broker, nothing encrypted
    tls: bool = False  # the API speaks HTTPS with a certificate of the fleet's own CA
    names: tuple[str, ...] = ()  # host names and addresses under which devices reach this machine
    certificate_days: float = 90.0  # how long a device's certificate lasts

    def __post_init__(self) -> None:
        for name in ("http_port", "mqtt_port"):
            if not 1 <= getattr(self, name) <= 65535:
                raise ValueError(f"expected {name} from 1 to 65535, got {getattr(self, name)}")
        if not self.host:
            raise ValueError("expected a host to listen on, such as 127.0.0.1")
        if self.broker not in _BROKERS:
            raise ValueError(f"expected broker to be one of {', '.join(_BROKERS)}, got {self.broker!r}")
        if self.plain and self.broker != "embedded":
            raise ValueError("expected plain with the embedded broker only")
        if not 0.0001 <= self.certificate_days <= 3650:
            raise ValueError(f"expected certificate_days from 0.0001 to 3650, got {self.certificate_days}")
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
    def keys(self) -> Path:
        """The private keys of TUF roles that are on this server, each file named after its key; mode 0600."""
        return self.directory / "keys"

    @property
    def ca(self) -> Path:
        """Key and certificate of the authority that signs devices; the key has mode 0600."""
        return self.directory / "ca"

    @property
    def server_pem(self) -> Path:
        """Certificate of API and broker with its key; mode 0600."""
        return self.directory / "ca" / "server.pem"

    @property
    def client_pem(self) -> Path:
        """Certificate of the fleet's own connection to the broker with its key; mode 0600."""
        return self.directory / "ca" / "client.pem"

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
        _check_kind(path, name, str(fields[name].type), value)
    names = tuple(raw.pop("names", ()))
    try:
        return FleetConfig(**raw, names=names)
    except (TypeError, ValueError) as error:
        raise UsageError(f"{path}: {error}") from error


def _check_kind(path: Path, name: str, kind: str, value: object) -> None:
    """Raise :class:`UsageError` unless ``value`` is of the ``kind`` that stands beside the setting's name above."""
    if kind.startswith("tuple"):
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            raise UsageError(f"{path}: {name} = {value!r}: expected a list of str")
        return
    kinds = _KINDS[kind]
    if not isinstance(value, kinds) or (isinstance(value, bool) and kinds != (bool,)):
        raise UsageError(f"{path}: {name} = {value!r}: expected {' or '.join(kind.__name__ for kind in kinds)}")


def write_config(config: FleetConfig) -> str:
    """Return ``config`` as the text of ``fleet.toml``."""
    lines = ["# Settings of this edgeopt fleet; restart 'edgeopt-fleet serve' after a change."]
    for name, value in dataclasses.asdict(config).items():
        lines.append(f"{name} = {json.dumps(value)}")  # of these kinds, JSON is TOML
    return "\n".join(lines) + "\n"
