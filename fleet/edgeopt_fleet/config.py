"""The settings of one fleet and where its files lie.

Each setting stands in ``fleet.toml``, and a variable ``EDGEOPT_FLEET_<NAME>`` takes its place, so that several
processes can share one file. Example::

    home = Home(Path("fleet"))
    config = read_config(home.config)        # FleetConfig(host='127.0.0.1', http_port=8080, mqtt_port=1883, …)
"""

from __future__ import annotations

import dataclasses
import json
import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgeopt_contract.errors import UsageError
from edgeopt_fleet.leases import Role
from edgeopt_fleet.retention import Keep

__all__ = [
    "ENVIRONMENT",
    "BrokerNode",
    "FleetConfig",
    "Home",
    "SettingError",
    "host_and_port",
    "read_config",
    "read_settings",
    "write_config",
]

ENVIRONMENT = "EDGEOPT_FLEET_"  # a variable is this and the setting's name in capitals; lists are separated by commas

_CHOICES = {
    "approval": ("none", "four-eyes"),
    "broker": ("embedded", "mosquitto", "nats-cluster"),
    "log_format": ("text", "json"),
}
_RANGES = {
    "http_port": (1, 65535),
    "mqtt_port": (1, 65535),
    "worker_port": (0, 65535),
    "tick_seconds": (0.01, 86400),
    "drift_look_seconds": (0.01, 86400),
    "lease_seconds": (0.5, 300),
    "certificate_days": (0.0001, 3650),
    "window_days": (0.01, 36500),
    "hour_days": (0.01, 36500),
    "day_days": (0.01, 36500),
    "report_days": (0.01, 36500),
    "verdict_days": (0.01, 36500),
    "bundle_days": (0.01, 36500),
    "requests_per_second_per_user": (0, 1_000_000),
    "requests_per_second_per_address": (0, 1_000_000),
    "enrolments_per_minute_per_address": (0, 1_000_000),
}
_TRUTHS = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
_WORDS = {
    "str": "a text in quotation marks",
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "tuple": "a list of texts",
}
_KINDS: dict[str, tuple[type, ...]] = {"str": (str,), "int": (int,), "float": (int, float), "bool": (bool,)}


class SettingError(ValueError):
    """A setting has a value that it cannot have; the text says what was expected and what came."""

    def __init__(self, name: str, text: str) -> None:
        super().__init__(f"{name}: {text}")
        self.name = name


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetConfig:
    """What ``fleet.toml`` holds."""

    http_port: int  # where the API answers; init takes a free one unless told otherwise
    mqtt_port: int  # where the broker listens, and devices connect
    host: str = "127.0.0.1"  # the address that API and broker listen on
    tick_seconds: float = 0.5  # how often rollouts are looked at
    drift_look_seconds: float = 30.0  # how often cohorts are compared with their reference, given enough rows
    broker: str = "embedded"  # or mosquitto, which somebody else runs, or nats-cluster
    mqtt_host: str = ""  # where devices reach the broker; empty: where they reach the API
    broker_reload: str = ""  # a command that makes mosquitto read its files again
    plain: bool = False  # passwords instead of certificates at the broker, nothing encrypted
    tls: bool = False  # the API speaks HTTPS with a certificate of the fleet's own CA
    names: tuple[str, ...] = ()  # host names and addresses under which devices reach this machine
    certificate_days: float = 90.0  # how long a device's certificate lasts
    approval: str = "none"  # or four-eyes: a rollout waits until somebody else than its creator approves it
    requests_per_second_per_user: float = 500.0  # with all keys of one user, in each API process; 0: no limit
    requests_per_second_per_address: float = 1000.0  # of devices and of whoever has no key; 0: no limit
    enrolments_per_minute_per_address: float = 300.0  # enrolments and renewals; 0: no limit
    window_days: float = 14.0  # how long windows are kept as they came; then hours
    hour_days: float = 90.0  # how long hours are kept; then days
    day_days: float = 1100.0  # how long days are kept
    report_days: float = 90.0  # how long reports are kept
    verdict_days: float = 400.0  # how long verdicts of rollouts that have ended are kept, and what they were made from
    bundle_days: float = 90.0  # how long bundles are kept that no device and no rollout needs
    database: str = field(default="", repr=False)  # postgresql://user:password@host/name; empty: SQLite in fleet.db
    brokers: tuple[str, ...] = ()  # host:port of each broker that the fleet itself tries; empty: host and mqtt_port
    broker_nodes: tuple[str, ...] = ()  # name=host:mqtt-port:route-port of each node of a NATS cluster
    roles: tuple[str, ...] = ()  # what a worker may do: ingest, rollouts, drift, tuf, retention; empty: everything
    lease_seconds: float = 5.0  # after how long a standby takes over from a worker that is gone
    worker_host: str = "127.0.0.1"  # where a worker answers /metrics and /readyz
    worker_port: int = 0  # 0: nowhere
    log_format: str = "text"  # or json: one object a line

    @property
    def reachable(self) -> str:
        """An address at which what listens on ``host`` is reached from this machine."""
        return "127.0.0.1" if self.host == "0.0.0.0" else self.host  # noqa: S104 - compared, not bound

    @property
    def url(self) -> str:
        """The API's address."""
        return f"{'https' if self.tls else 'http'}://{self.reachable}:{self.http_port}"

    @property
    def keep(self) -> Keep:
        """What is kept for how long."""
        return Keep(**{setting.name: getattr(self, setting.name) for setting in dataclasses.fields(Keep)})

    def __post_init__(self) -> None:
        for name, (low, high) in _RANGES.items():
            if not low <= getattr(self, name) <= high:
                raise SettingError(name, f"expected a number from {low} to {high}, got {getattr(self, name)}")
        for name, choices in _CHOICES.items():
            if getattr(self, name) not in choices:
                raise SettingError(name, f"expected one of {', '.join(choices)}, got {getattr(self, name)!r}")
        self._check_brokers()
        if not self.host:
            raise SettingError("host", "expected an address to listen on, such as 127.0.0.1, got nothing")
        unknown = sorted(set(self.roles) - set(Role))
        if unknown:
            raise SettingError("roles", f"expected roles out of {', '.join(Role)}, got {unknown[0]!r}")

    def _check_brokers(self) -> None:
        """Raise :class:`SettingError` unless the settings of the brokers fit each other."""
        if self.plain and self.broker != "embedded":
            raise SettingError("plain", f"expected it with the embedded broker only, got it with {self.broker}")
        if (self.broker == "nats-cluster") != bool(self.broker_nodes):
            got = f"got the broker {self.broker} with {len(self.broker_nodes)} nodes"
            raise SettingError("broker_nodes", f"expected some with the broker nats-cluster, and only with it; {got}")
        for name, read in (("brokers", host_and_port), ("broker_nodes", BrokerNode.parse)):
            for text in getattr(self, name):
                try:
                    read(text)
                except ValueError as error:
                    raise SettingError(name, str(error)) from error


@dataclass(frozen=True, slots=True, kw_only=True)
class BrokerNode:
    """One node of a NATS cluster: its name, and where it listens for devices and for the other nodes."""

    name: str
    host: str
    mqtt_port: int
    route_port: int

    @classmethod
    def parse(cls, text: str) -> BrokerNode:
        """Read ``name=host:mqtt-port:route-port``. Raises :class:`ValueError`."""
        name, _, address = text.partition("=")
        host, *ports = address.rsplit(":", 2)
        if not name.isalnum() or not host or len(ports) != 2 or not all(map(_is_port, ports)):
            raise ValueError(f"expected a broker node such as a=10.0.0.1:8883:6222, got {text!r}")
        return cls(name=name, host=host, mqtt_port=int(ports[0]), route_port=int(ports[1]))


def host_and_port(text: str) -> tuple[str, int]:
    """Read ``host:port``. Raises :class:`ValueError`."""
    host, _, port = text.rpartition(":")
    if not host or not _is_port(port):
        raise ValueError(f"expected a broker's address such as 10.0.0.1:8883, got {text!r}")
    return host, int(port)


def _is_port(text: str) -> bool:
    return text.isascii() and text.isdigit() and 1 <= int(text) <= 65535


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

    def address(self, config: FleetConfig) -> Path | str:
        """Where the database is: SQLite's file, or the address of the PostgreSQL that the settings name."""
        return config.database or self.database

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
        """The blocks of all bundles, each named by its hash; with PostgreSQL they are in the database."""
        return self.directory / "blocks"

    @property
    def broker(self) -> Path:
        """Configuration and store of the embedded broker."""
        return self.directory / "broker"

    @property
    def routes(self) -> Path:
        """The password that the nodes of a NATS cluster show each other; mode 0600, the same on all machines."""
        return self.directory / "broker" / "routes.secret"

    @property
    def run(self) -> Path:
        """Process ids and the lock of the running server."""
        return self.directory / "run"


def read_config(path: Path) -> FleetConfig:
    """Read ``fleet.toml`` and the environment. Raises :class:`UsageError` naming what is wrong."""
    return read_settings(path, os.environ)[0]


def read_settings(path: Path, environment: Mapping[str, str]) -> tuple[FleetConfig, dict[str, str]]:
    """Read ``fleet.toml`` and ``environment``; also say where each setting that is not the default comes from.

    Raises :class:`UsageError` naming what is wrong; unknown settings are refused.
    """
    try:
        raw = tomllib.loads(path.read_text("utf-8"))
    except FileNotFoundError as error:
        raise UsageError(f"{path} does not exist; make a fleet first: edgeopt-fleet init {path.parent}") from error
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise UsageError(f"{path} cannot be read: {error}") from error
    kinds = {setting.name: str(setting.type) for setting in dataclasses.fields(FleetConfig)}
    unknown = sorted(set(raw) - set(kinds))
    if unknown:
        raise UsageError(f"{path}: unknown setting {unknown[0]!r}; known are {', '.join(kinds)}")
    sources = dict.fromkeys(raw, str(path))
    secret = {setting.name for setting in dataclasses.fields(FleetConfig) if not setting.repr}
    for name, value in raw.items():
        _check_kind(path, name, kinds[name], value, shown=name not in secret)
    for variable, text in sorted(environment.items()):
        if variable.startswith(ENVIRONMENT):
            name = variable.removeprefix(ENVIRONMENT).lower()
            if name not in kinds or variable != variable.upper():
                raise UsageError(f"unknown variable {variable}; known are {ENVIRONMENT}<NAME> of {', '.join(kinds)}")
            raw[name] = _parse(variable, kinds[name], text, shown=name not in secret)
            sources[name] = variable
    settings: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value for name, value in raw.items()}
    required = [setting.name for setting in dataclasses.fields(FleetConfig) if setting.default is dataclasses.MISSING]
    if missing := [name for name in required if name not in settings]:
        raise UsageError(
            f"{path}: expected the settings {' and '.join(required)}, {' and '.join(missing)} did not come"
        )
    try:
        return FleetConfig(**settings), sources
    except SettingError as error:
        raise UsageError(f"{sources.get(error.name, path)}: {error}") from error


def _parse(variable: str, kind: str, text: str, *, shown: bool) -> object:
    """Return the value that a variable's ``text`` means. Raises :class:`UsageError`, without the text of a secret."""
    try:
        if kind.startswith("tuple"):
            return [item.strip() for item in text.split(",") if item.strip()]
        if kind == "bool":
            return _TRUTHS[text.strip().lower()]
        return {"int": int, "float": float, "str": str}[kind](text)
    except (KeyError, ValueError) as error:
        raise UsageError(f"{variable}: expected {_WORDS[kind]}, got {_quoted(text, shown=shown)}") from error


def _check_kind(path: Path, name: str, kind: str, value: object, *, shown: bool) -> None:
    """Raise :class:`UsageError` unless ``value`` is of the ``kind`` that stands beside the setting's name above."""
    if kind.startswith("tuple"):
        fits, expected = isinstance(value, list) and all(isinstance(item, str) for item in value), _WORDS["tuple"]
    else:
        fits, expected = isinstance(value, _KINDS[kind]), _WORDS[kind]
        fits = fits and not (isinstance(value, bool) and kind != "bool")
    if not fits:
        raise UsageError(f"{path}: {name}: expected {expected}, got {_quoted(value, shown=shown)}")


def _quoted(value: object, *, shown: bool) -> str:
    return repr(value)[:80] if shown else "something that is not repeated here: it may hold a password"


def write_config(config: FleetConfig) -> str:
    """Return ``config`` as the text of ``fleet.toml``."""
    lines = [
        "# Settings of this edgeopt fleet; restart its processes after a change.",
        f"# A variable {ENVIRONMENT}<NAME> takes the place of a setting.",
    ]
    for name, value in dataclasses.asdict(config).items():
        lines.append(f"{name} = {json.dumps(value)}")  # of these kinds, JSON is TOML
    return "\n".join(lines) + "\n"
