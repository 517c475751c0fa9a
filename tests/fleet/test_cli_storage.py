from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from edgeopt_contract.errors import UsageError
from edgeopt_fleet.cli import group


def run(*arguments: object) -> str:
    """Run a command and return what it printed; raise what it raises."""
    result = CliRunner().invoke(group, [str(argument) for argument in arguments], catch_exceptions=False)
    if isinstance(result.exception, Exception):
        raise result.exception
    return result.output


def test_a_fleet_is_backed_up_restored_migrated_and_maintained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each command says what it did; the restored fleet can be backed up in its turn, and nothing is overwritten."""
    monkeypatch.delenv("EDGEOPT_FLEET_DATABASE", raising=False)
    fleet, copy = tmp_path / "fleet", tmp_path / "copy"
    run("init", fleet, "--plain")
    assert 0o600 == (fleet / "fleet.toml").stat().st_mode & 0o777  # it may hold the database's password
    assert "has version 0001\n" in run("migrate", fleet)
    assert "nothing was due\n" == run("maintain", fleet)
    assert "settings, keys and blocks" in run("backup", fleet, tmp_path / "fleet.backup")
    assert f"edgeopt-fleet serve {copy}" in run("restore", tmp_path / "fleet.backup", copy)
    assert (fleet / "operator.json").read_bytes() == (copy / "operator.json").read_bytes()
    run("backup", copy, tmp_path / "copy.backup")
    with pytest.raises(UsageError, match="not empty"):
        run("restore", tmp_path / "fleet.backup", copy)
    with pytest.raises(UsageError, match="edgeopt-fleet init"):
        run("backup", tmp_path / "nothing", tmp_path / "x")
    assert not (tmp_path / "x").exists()
