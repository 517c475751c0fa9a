from __future__ import annotations

from pathlib import Path

import pytest

from edgeopt_contract.errors import UsageError
from edgeopt_fleet.config import FleetConfig, read_config, write_config


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
