"""Where settings come from, what counts first, and what is refused."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

from edgeopt_agent import settings
from edgeopt_agent.config import AgentConfig
from edgeopt_agent.settings import SETTINGS, locate_data, read_settings
from edgeopt_contract.errors import UsageError
from tests.project.conftest import ROOT

EXAMPLE = ROOT / "agent" / "agent.toml"


@pytest.fixture(autouse=True)
def _no_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Keep this machine's own settings out."""
    monkeypatch.setattr(settings, "DEFAULT_FILE", tmp_path / "none.toml")


def test_precedence(tmp_path: Path) -> None:
    """Command line, environment, file, the board's profile, defaults."""
    (tmp_path / "board.toml").write_text('name = "b"\ncores = 4\nmemory_mib = 4096\n')
    file = tmp_path / "agent.toml"
    file.write_text('data = "state"\nprofile = "board.toml"\nwindow = 1\nresend = 1\nrefresh = 1\nmemory-limit = 99\n')
    environment = {"EDGEOPT_AGENT_WINDOW": "2", "EDGEOPT_AGENT_RESEND": "2", "PATH": "/bin"}

    config = read_settings({"window": 3.0}, environment, file)

    assert (3, 2, 1, 30) == (
        config.window_seconds, config.resend_seconds, config.refresh_seconds, config.infer_timeout_seconds
    )  # fmt: skip
    assert (4, 99 << 20, False) == (config.threads, config.runner_memory_bytes, config.one_runner)
    assert tmp_path / "state" == config.data
    assert config == read_settings({"window": 3.0}, environment | {"EDGEOPT_AGENT_CONFIG": str(file)})


def test_units_are_those_that_are_documented(tmp_path: Path) -> None:
    """MiB, milliseconds and KiB outside; bytes and microseconds inside."""
    given = {"data": tmp_path, "memory-limit": 100, "latency-limit": 2.5, "max-download-rate": 8.0, "spool-limit": 1000}
    config = read_settings(given, {})
    assert 100 << 20 == config.runner_memory_bytes
    assert (2500, 8192, 1000 << 10) == (config.latency_limit_us, config.download_bytes_per_second, config.spool_bytes)


def test_http_is_short_for_a_source(tmp_path: Path) -> None:
    """Wherever it is set."""
    environment = {"EDGEOPT_AGENT_HTTP": "8080", "EDGEOPT_AGENT_SOURCE": "camera:frames folder:/in"}
    config = read_settings({"data": tmp_path}, environment)
    assert ("camera:frames", "folder:/in", "http:8080") == config.sources


@pytest.mark.parametrize("name", ["raspberry-pi-zero-2w", "raspberry-pi-4"])
def test_profiles_of_the_project_say_how_to_run(name: str, tmp_path: Path) -> None:
    """A board of 512 MiB runs one model at a time, one of 4 GiB two."""
    config = read_settings({"data": tmp_path, "profile": ROOT / "devices" / f"{name}.toml"}, {})
    assert 4 == config.threads
    assert (name == "raspberry-pi-zero-2w") == config.one_runner


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("windw = 1", "there is no setting windw; did you mean window"),
        ("q = 1", "there is no setting q; expected one of data"),
        ("window = '1'", "expected a number, got '1'"),
        ("window = true", "expected a number, got True"),
        ("threads = 1.5", "expected a whole number, got 1.5"),
        ("repeat = 1", "expected true or false, got 1"),
        ("source = 'x'", "expected a list of texts, got 'x'"),
        ("nice = 20", "expected 0 to 19, got 20"),
        ("memory-limit = 1", "expected 64 or more, got 1"),
        ("window = 0", "window: expected a number greater than zero"),
        ("delivery = 'pigeon'", "delivery: expected auto or mqtt or http"),
        ("profile = 'none.toml'", "cannot be read"),
        ("window = ", "is not TOML"),
    ],
)
def test_what_is_wrong_is_named(text: str, reason: str, tmp_path: Path) -> None:
    """The place, what was expected and what came; nothing is skipped silently."""
    file = tmp_path / "agent.toml"
    file.write_text(text)
    with pytest.raises(UsageError, match=reason):
        read_settings({"data": tmp_path}, {}, file)


@pytest.mark.parametrize(
    ("variable", "value", "reason"),
    [
        ("EDGEOPT_AGENT_WINDW", "1", "EDGEOPT_AGENT_WINDW: there is no setting windw; did you mean window"),
        ("EDGEOPT_AGENT_WINDOW", "soon", "EDGEOPT_AGENT_WINDOW: expected a number, got 'soon'"),
        ("EDGEOPT_AGENT_REPEAT", "perhaps", "expected true or false"),
    ],
)
def test_environment_is_checked_too(variable: str, value: str, reason: str, tmp_path: Path) -> None:
    """A typing error in a drop-in of systemd does not pass unnoticed."""
    with pytest.raises(UsageError, match=reason):
        read_settings({"data": tmp_path}, {variable: value})


def test_data_is_found_where_run_finds_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """``status`` and ``doctor`` need no option where the machine has settings."""
    with pytest.raises(UsageError, match="--data: expected"):
        locate_data(None, {})
    assert Path("/x") == locate_data(None, {"EDGEOPT_AGENT_DATA": "/x"})
    settings.DEFAULT_FILE.write_text('data = "/y"\nwindow = 5\n')
    assert Path("/y") == locate_data(None, {})
    assert Path("/z") == locate_data(Path("/z"), {})


def test_example_names_every_setting_with_its_default() -> None:
    """What the commented file says is what happens without it."""
    text = EXAMPLE.read_text(encoding="utf-8")
    assert AgentConfig(data=Path("/var/lib/edgeopt")) == read_settings({}, {}, EXAMPLE)
    shown: dict[str, Any] = tomllib.loads(re.sub(r"^# (?=[\w-]+ = )", "", text, flags=re.MULTILINE))
    assert {setting.name for setting in SETTINGS} == set(shown)
    for setting in SETTINGS:
        if setting.default not in (None, ()) and setting.name != "data":
            assert setting.default == shown[setting.name], setting.name
        assert f"# --- {setting.group} ---" in text
