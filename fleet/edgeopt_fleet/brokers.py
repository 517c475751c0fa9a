"""Which broker the settings ask for: how it is run, how the fleet connects to it, and how it hears of devices.

Example::

    broker = broker_of(site, authority)                  # an EmbeddedBroker, or somebody else's
    addresses_of(home, config, broker)                   # [BrokerAddress(host='127.0.0.1', port=1883, …)]
"""

from __future__ import annotations

import time
from dataclasses import dataclass

from edgeopt_contract.errors import UsageError
from edgeopt_contract.storage import storage_errors
from edgeopt_fleet.broker import FLEET_USER, BrokerSettings, BrokerTls, ClusterNode, EmbeddedBroker
from edgeopt_fleet.ca import DeviceAuthority
from edgeopt_fleet.config import BrokerNode, FleetConfig, Home, host_and_port
from edgeopt_fleet.credentials import client_context, write_pair
from edgeopt_fleet.link import BrokerAddress
from edgeopt_fleet.mosquitto import ExternalBroker, MosquittoFiles
from edgeopt_fleet.serial import Serial
from edgeopt_fleet.signals import News, Signals
from edgeopt_fleet.store.census import certificates
from edgeopt_fleet.store.database import Database
from edgeopt_fleet.store.identities import Identities

__all__ = [
    "AnyBroker",
    "DistantBroker",
    "addresses_of",
    "embedded_broker",
    "external_broker",
    "follow_users",
    "mosquitto_files",
    "node_broker",
]

_LOOK_SECONDS = 2.0  # how late a broker hears of a revoked device when the signal is lost


@dataclass(frozen=True, slots=True)
class DistantBroker:
    """A broker that another process runs, which reads from the database whom it lets in."""

    signals: Signals

    async def run(self) -> None:
        """Nothing: others run it."""

    async def reload(self) -> None:
        """Tell the nodes that somebody is new; a device that connects sooner is refused once and tries again."""
        await self.signals.send(News.USERS)

    async def cut_off(self, device: str) -> None:
        """Tell the nodes that somebody is gone."""
        del device  # they read who is left
        await self.signals.send(News.USERS)


AnyBroker = EmbeddedBroker | ExternalBroker | DistantBroker


def mosquitto_files(home: Home, config: FleetConfig) -> MosquittoFiles:
    """Return where Mosquitto's files lie."""
    return MosquittoFiles(
        directory=home.broker, host=config.host, port=config.mqtt_port, server=home.server_pem, ca=home.ca / "ca.pem"
    )


def embedded_broker(home: Home, config: FleetConfig, identities: Identities, serial: Serial) -> EmbeddedBroker:
    """Return the broker that lives and dies with this process."""
    settings = BrokerSettings(
        directory=home.broker,
        pid_file=home.run / "broker.pid",
        host=config.host,
        port=config.mqtt_port,
        tls=None if config.plain else BrokerTls(server=home.server_pem, ca=home.ca / "ca.pem"),
    )
    return EmbeddedBroker(settings, lambda: serial(identities.users))


def external_broker(
    home: Home, config: FleetConfig, authority: DeviceAuthority, identities: Identities, serial: Serial
) -> ExternalBroker:
    """Return a Mosquitto that somebody else runs."""
    return ExternalBroker(
        mosquitto_files(home, config),
        authority,
        lambda: serial(identities.revoked),
        address=_addresses(config)[0],
        command=config.broker_reload,
    )


def node_broker(
    home: Home, config: FleetConfig, name: str, authority: DeviceAuthority, users: Identities, serial: Serial
) -> EmbeddedBroker:
    """Return the node ``name`` of the NATS cluster in the settings; its files lie in a directory of its own.

    Raises :class:`UsageError` when there is no such node.
    """
    nodes = {node.name: node for node in map(BrokerNode.parse, config.broker_nodes)}
    node = nodes.get(name)
    if node is None:
        raise UsageError(f"there is no broker node {name!r}; the setting broker_nodes has {', '.join(nodes) or 'none'}")
    directory = home.broker / name
    for needed in (directory, home.run):  # on a machine that has the fleet's secrets and nothing else
        with storage_errors(needed):
            needed.mkdir(mode=0o700, parents=True, exist_ok=True)
    now, names = time.time(), [node.host, *config.names, "localhost", "127.0.0.1"]
    write_pair(directory / "server.pem", authority.make_server(list(dict.fromkeys(names)), now))
    write_pair(directory / "peer.pem", authority.make_peer([node.host], now))
    settings = BrokerSettings(
        directory=directory,
        pid_file=home.run / f"broker-{name}.pid",
        host=node.host,
        port=node.mqtt_port,
        tls=BrokerTls(server=directory / "server.pem", ca=home.ca / "ca.pem"),
        cluster=ClusterNode(
            name=name,
            listen=(node.host, node.route_port),
            routes=tuple((other.host, other.route_port) for other in nodes.values()),
            peer=directory / "peer.pem",
            password=home.routes.read_text("ascii").strip(),
        ),
    )
    return EmbeddedBroker(settings, lambda: serial(users.users))


async def follow_users(broker: EmbeddedBroker, database: Database, serial: Serial, signals: Signals) -> None:
    """Let ``broker`` know whenever somebody was enrolled or revoked, by whatever process; until cancelled."""
    known: tuple[int, ...] = ()

    async def look() -> None:
        nonlocal known
        now = await serial.read(certificates, database)
        if now != known:
            await broker.reload()
            known = now

    await signals.repeat(look, News.USERS, _LOOK_SECONDS)


def addresses_of(home: Home, config: FleetConfig, broker: AnyBroker) -> list[BrokerAddress]:
    """Return where and how the fleet itself connects. Raises :class:`UsageError` when it cannot know the password."""
    if config.plain:
        if not isinstance(broker, EmbeddedBroker):
            raise UsageError(
                "without TLS only 'edgeopt-fleet serve' can hear the devices; make a fleet without --plain"
            )
        return [
            BrokerAddress(host=host, port=port, username=FLEET_USER, password=broker.fleet_password)
            for host, port in _addresses(config)
        ]
    tls = client_context(home.ca / "ca.pem", home.client_pem)
    return [BrokerAddress(host=host, port=port, tls=tls) for host, port in _addresses(config)]


def _addresses(config: FleetConfig) -> list[tuple[str, int]]:
    if config.brokers:
        return [host_and_port(text) for text in config.brokers]
    if config.broker == "nats-cluster":
        return [(node.host, node.mqtt_port) for node in map(BrokerNode.parse, config.broker_nodes)]
    host = config.mqtt_host if config.mqtt_host and config.broker == "mosquitto" else config.reachable
    return [(host, config.mqtt_port)]
