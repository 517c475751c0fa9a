from __future__ import annotations

from pathlib import Path

import pytest

from edgeopt_contract.errors import UsageError
from edgeopt_fleet.config import BrokerNode, FleetConfig, read_config, read_settings, write_config

PORTS = "http_port = 1\nmqtt_port = 2\n"


def test_what_is_written_is_read(tmp_path: Path) -> None:
    """Writing and reading settings gives the same settings."""
    config = FleetConfig(http_port=8080, mqtt_port=1883, host="0.0.0.0", tick_seconds=0.25)
    (tmp_path / "fleet.toml").write_text(write_config(config))
    assert config == read_config(tmp_path / "fleet.toml")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("http_port = 1\nmqtt_port = 2\ntick = 1", "unknown setting 'tick'"),
        ("http_port = 1", "mqtt_port"),
        ("http_port = '1'\nmqtt_port = 2", "expected int"),
        ("http_port = true\nmqtt_port = 2", "expected int"),
        ("http_port = 0\nmqtt_port = 2", "from 1 to 65535"),
        ("http_port = 1\nmqtt_port = 2\ntick_seconds = 0", "from 0.01"),
        ("http_port = 1\nmqtt_port = 2\ntick_seconds = nan", "from 0.01"),
        ("http_port = 1\nmqtt_port = 2\nhost = ''", "expected a host"),
        ("http_port = ", "cannot be read"),
        (PORTS + "lease_seconds = 0.1", "from 0.5"),
        (PORTS + "log_format = 'xml'", "text, json"),
        (PORTS + "roles = ['cook']", "'cook'"),
        (PORTS + "brokers = ['10.0.0.1']", r"10\.0\.0\.1:8883, got '10\.0\.0\.1'"),
        (PORTS + "broker = 'nats-cluster'", "broker_nodes"),
        (PORTS + "broker_nodes = ['a=h:1:2']", "broker_nodes"),
        (PORTS + "broker = 'nats-cluster'\nbroker_nodes = ['a=h:1']", "a=10"),
    ],
)
def test_wrong_settings_are_named(tmp_path: Path, text: str, words: str) -> None:
    """Unknown, missing, ill-typed and impossible settings each give one clear message."""
    (tmp_path / "fleet.toml").write_text(text)
    with pytest.raises(UsageError, match=words):
        read_config(tmp_path / "fleet.toml")


def test_no_fleet_says_how_to_make_one(tmp_path: Path) -> None:
    """A directory without a fleet: the message names the command."""
    with pytest.raises(UsageError, match="edgeopt-fleet init"):
        read_config(tmp_path / "fleet.toml")


def test_a_variable_takes_the_place_of_a_setting(tmp_path: Path) -> None:
    """Every kind of setting; and where each comes from is told."""
    path = tmp_path / "fleet.toml"
    path.write_text(PORTS + "host = '10.0.0.1'\ntick_seconds = 3.0\n")
    variables = {
        "EDGEOPT_FLEET_HTTP_PORT": "9000",
        "EDGEOPT_FLEET_TICK_SECONDS": "0.25",
        "EDGEOPT_FLEET_TLS": "true",
        "EDGEOPT_FLEET_ROLES": "ingest, drift",
        "EDGEOPT_FLEET_DATABASE": "postgresql://fleet:secret@db/fleet",
        "EDGEOPT_FLEET": "/somewhere/operator.json",  # of the operator's commands
    }
    config, sources = read_settings(path, variables)
    assert (9000, 2, "10.0.0.1", 0.25) == (config.http_port, config.mqtt_port, config.host, config.tick_seconds)
    assert (True, ("ingest", "drift")) == (config.tls, config.roles)
    assert "EDGEOPT_FLEET_HTTP_PORT" == sources["http_port"]
    assert str(path) == sources["host"]
    assert "plain" not in sources
    assert "secret" not in repr(config)


@pytest.mark.parametrize(
    ("variable", "text", "words"),
    [
        ("EDGEOPT_FLEET_HTTP_PRT", "1", "EDGEOPT_FLEET_HTTP_PRT"),
        ("EDGEOPT_FLEET_http_port", "1", "unknown variable"),
        ("EDGEOPT_FLEET_HTTP_PORT", "eighty", "kind int"),
        ("EDGEOPT_FLEET_TLS", "perhaps", "true or false"),
        ("EDGEOPT_FLEET_TICK_SECONDS", "0", "from 0.01"),
    ],
)
def test_wrong_variables_are_named_without_their_value(tmp_path: Path, variable: str, text: str, words: str) -> None:
    """A mistyped variable would otherwise be a setting that silently does not hold."""
    path = tmp_path / "fleet.toml"
    path.write_text(PORTS)
    with pytest.raises(UsageError, match=words):
        read_settings(path, {variable: text})


def test_broker_nodes_are_read() -> None:
    """Also with an IPv6 address."""
    assert BrokerNode(name="a", host="::1", mqtt_port=8883, route_port=6222) == BrokerNode.parse("a=::1:8883:6222")
