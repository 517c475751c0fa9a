"""The options that record a run: on by default, off by one switch, and never in the way."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner

from edgeopt.cli.tracking_options import record_run, tracking_options
from edgeopt.packing import write_run
from edgeopt_contract.bundle import open_bundle
from tests.optimizer.runs import a_run, tiny_contents


@click.command()
@tracking_options
def _command(**options: Any) -> None:
    click.echo(f"{options['tracking']} {options['tracking_uri']}")


@pytest.mark.parametrize(
    ("arguments", "environment", "shown"),
    [
        ([], {}, "True None"),
        (["--no-tracking"], {}, "False None"),
        ([], {"EDGEOPT_TRACKING": "0"}, "False None"),
        (["--tracking"], {"EDGEOPT_TRACKING": "0"}, "True None"),
        (["--tracking-uri", "./mlruns"], {}, "True ./mlruns"),
    ],
)
def test_the_switch(arguments: list[str], environment: dict[str, str], shown: str) -> None:
    """The command line goes before the environment."""
    result = CliRunner().invoke(_command, arguments, env={"EDGEOPT_TRACKING": None} | environment)
    assert (0, f"{shown}\n") == (result.exit_code, result.output)


def test_where_it_was_recorded_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """On stderr, so that --json stays JSON; with the reference that gets the model back."""
    write_run(tmp_path / "out", tiny_contents(tmp_path / "tiny"), {})
    record_run(a_run(), tmp_path / "out", open_bundle(tmp_path / "out").digest, str(tmp_path / "mlruns"))
    shown, told = capsys.readouterr()
    assert "" == shown
    assert told.startswith(f"recorded in MLflow at {tmp_path / 'mlruns'}: run ")
    assert told.endswith(", models:/tiny/1\n")


def test_a_failure_is_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """And no exception: the bundle is written already."""
    (tmp_path / "file").write_text("")
    record_run(a_run(), tmp_path, None, str(tmp_path / "file"))
    assert capsys.readouterr().err.startswith("warning: this run was not recorded in MLflow: ")
