"""The command ``batch`` on the files of a device."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from edgeopt_agent.cli import cli
from edgeopt_agent.update.slots import Slots
from edgeopt_contract.errors import DataError, UsageError
from edgeopt_contract.manifest import Capabilities
from tests.agent.conftest import blocks_of
from tests.tiny import samples, tiny_bundle


@pytest.fixture
def data(tmp_path: Path, capabilities: Capabilities) -> Path:
    """The state of a device that serves the tiny model."""
    slots = Slots(tmp_path / "device" / "slots", capabilities)
    slots.prepare()
    bundle = tiny_bundle(tmp_path / "bundle")
    blocks = blocks_of(bundle)
    slots.fill("a", blocks[bundle.digest], lambda block: blocks[block.sha256])
    slots.point_to("a")
    return tmp_path / "device"


def test_batch_answers_and_lists_what_failed(tmp_path: Path, data: Path) -> None:
    """Progress on standard error, the summary on standard output, failures in the error that gives exit code 2."""
    source = tmp_path / "in"
    source.mkdir()
    np.save(source / "good.npy", samples(5, 3))
    command = ["batch", str(source), str(tmp_path / "out"), "--data", str(data)]
    before = {path: path.stat().st_mtime_ns for path in data.rglob("*")}

    done = CliRunner().invoke(cli, command, catch_exceptions=False)
    assert (0, "1 answered, 0 kept, 0 failed") == (done.exit_code, done.stdout.partition(";")[0])
    assert "1/1 good.npy: good.npy.npz" in done.stderr

    for number in range(25):
        np.save(source / f"bad-{number}.npy", np.ones(7))
    again = CliRunner().invoke(cli, [*command, "--json"])
    summary = json.loads(again.stdout)
    assert (1, 25) == (summary["kept"], summary["failed"])
    assert isinstance(again.exception, DataError)
    assert 2 == again.exception.exit_code
    assert "25 of 26 files got no answer" in str(again.exception)
    assert "and 5 more: see" in str(again.exception)
    assert before == {path: path.stat().st_mtime_ns for path in data.rglob("*")}, "the device's files were touched"


def test_batch_without_a_bundle_says_so(tmp_path: Path) -> None:
    """Before the first rollout there is nothing to answer with."""
    done = CliRunner().invoke(cli, ["batch", str(tmp_path), str(tmp_path / "out"), "--data", str(tmp_path)])
    assert isinstance(done.exception, UsageError)
    assert "no bundle serves" in str(done.exception)


@pytest.mark.parametrize("option", [("--infer-timeout", "nan"), ("--infer-timeout", "0"), ("--threads", "0")])
def test_numbers_that_mean_nothing_are_refused(tmp_path: Path, data: Path, option: tuple[str, str]) -> None:
    """Before a runner is started with them."""
    command = ["batch", str(tmp_path), str(tmp_path / "out"), "--data", str(data), *option]
    done = CliRunner().invoke(cli, command)
    assert 2 == (done.exception.exit_code if isinstance(done.exception, UsageError) else done.exit_code)
    assert not (tmp_path / "out").exists()
