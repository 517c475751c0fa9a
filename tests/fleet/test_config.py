from __future__ import annotations

import re
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
        ("http_port = 1", "expected the settings http_port and mqtt_port, mqtt_port did not come"),
        ("http_port = '1'\nmqtt_port = 2", "http_port: expected a whole number, got '1'"),
        ("http_port = true\nmqtt_port = 2", "http_port: expected a whole number, got True"),
        ("http_port = 0\nmqtt_port = 2", "http_port: expected a number from 1 to 65535, got 0"),
        (PORTS + "tick_seconds = 0", "tick_seconds: expected a number from 0.01 to 86400, got 0"),
        (PORTS + "tick_seconds = nan", "tick_seconds: expected a number from 0.01 to 86400, got nan"),
        (PORTS + "tick_seconds = 'fast'", "tick_seconds: expected a number, got 'fast'"),
        (PORTS + "tls = 1", "tls: expected true or false, got 1"),
        (PORTS + "host = ''", "host: expected an address to listen on, such as 127.0.0.1, got nothing"),
        (PORTS + "names = 'fleet.example'", "names: expected a list of texts, got 'fleet.example'"),
        (PORTS + "database = 5", "database: expected a text in quotation marks, got something"),
        ("http_port = ", "cannot be read"),
        (PORTS + "lease_seconds = 0.1", "lease_seconds: expected a number from 0.5 to 300, got 0.1"),
        (PORTS + "log_format = 'xml'", "log_format: expected one of text, json, got 'xml'"),
        (
            PORTS + "roles = ['cook']",
            "roles: expected roles out of ingest, rollouts, drift, tuf, retention, got 'cook'",
        ),
        (
            PORTS + "brokers = ['10.0.0.1']",
            "brokers: expected a broker's address such as 10.0.0.1:8883, got '10.0.0.1'",
        ),
        (PORTS + "broker = 'nats-cluster'", "got the broker nats-cluster with 0 nodes"),
        (PORTS + "broker_nodes = ['a=h:1:2']", "got the broker embedded with 1 nodes"),
        (PORTS + "broker = 'nats-cluster'\nbroker_nodes = ['a=h:1']", "such as a=10.0.0.1:8883:6222, got 'a=h:1'"),
        (PORTS + "broker = 'mosquitto'\nplain = true", "plain: expected it with the embedded broker only, got it with"),
    ],
)
def test_wrong_settings_are_named(tmp_path: Path, text: str, words: str) -> None:
    """Unknown, missing, ill-typed and impossible settings: where, which, what was expected, and what came."""
    path = tmp_path / "fleet.toml"
    path.write_text(text)
    with pytest.raises(UsageError, match=re.escape(words)) as caught:
        read_config(path)
    assert str(caught.value).startswith(str(path))


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
        ("EDGEOPT_FLEET_HTTP_PRT", "1", "unknown variable EDGEOPT_FLEET_HTTP_PRT; known are"),
        ("EDGEOPT_FLEET_http_port", "1", "unknown variable EDGEOPT_FLEET_http_port; known are"),
        ("EDGEOPT_FLEET_HTTP_PORT", "eighty", "EDGEOPT_FLEET_HTTP_PORT: expected a whole number, got 'eighty'"),
        ("EDGEOPT_FLEET_TLS", "perhaps", "EDGEOPT_FLEET_TLS: expected true or false, got 'perhaps'"),
        ("EDGEOPT_FLEET_TICK_SECONDS", "0", "EDGEOPT_FLEET_TICK_SECONDS: tick_seconds: expected a number from 0.01"),
        ("EDGEOPT_FLEET_ROLES", "ingest,cook", "EDGEOPT_FLEET_ROLES: roles: expected roles out of"),
        ("EDGEOPT_FLEET_BROKERS", "a:b", "EDGEOPT_FLEET_BROKERS: brokers: expected a broker's address"),
    ],
)
def test_wrong_variables_are_named(tmp_path: Path, variable: str, text: str, words: str) -> None:
    """A mistyped variable would otherwise be a setting that silently does not hold; a bad value is not the file's."""
    path = tmp_path / "fleet.toml"
    path.write_text(PORTS)
    with pytest.raises(UsageError, match=re.escape(words)) as caught:
        read_settings(path, {variable: text})
    assert str(path) not in str(caught.value)


def test_a_secret_is_never_repeated(tmp_path: Path) -> None:
    """Whoever pastes a password into a wrong place finds it in no log."""
    path = tmp_path / "fleet.toml"
    path.write_text(PORTS + "database = ['hunter2']\n")
    with pytest.raises(UsageError) as caught:
        read_config(path)
    assert "hunter2" not in str(caught.value)
    assert "database" in str(caught.value)


def test_broker_nodes_are_read() -> None:
    """Also with an IPv6 address."""
    assert BrokerNode(name="a", host="::1", mqtt_port=8883, route_port=6222) == BrokerNode.parse("a=::1:8883:6222")
