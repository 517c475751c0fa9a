"""Runs in MLflow: what is recorded, that nothing is lost when MLflow fails, and that nobody is called."""

from __future__ import annotations

import contextlib
import math
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from edgeopt.criteria import Name
from edgeopt.gate import Verdict
from edgeopt.packing import write_run
from edgeopt.tracking import runs
from edgeopt.tracking.connection import absolute_uri, artifact_root, connected, default_uri, shown
from edgeopt.tracking.records import clean_name, metrics, params, tags
from edgeopt.tracking.registry import load_registered
from edgeopt.tracking.runs import track, track_or_warn
from edgeopt_contract.bundle import open_bundle
from edgeopt_contract.errors import MissingExtraError, StorageError, UnreachableError, UsageError
from tests.optimizer.runs import a_run, target, tiny_contents


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for the stores of this module: a database takes seconds to make."""
    return tmp_path_factory.mktemp("stores")


@pytest.fixture(scope="module", params=["sqlite:///{}/runs.db", "{}/mlruns"], ids=["sqlite", "folder"])
def store(request: pytest.FixtureRequest, here: Path) -> str:
    """A store of each local kind."""
    return str(request.param.format(here))


@pytest.fixture(scope="module")
def output(here: Path) -> Path:
    """What a run with a PASS leaves behind."""
    directory = here / "out"
    if not directory.exists():
        write_run(directory, tiny_contents(here / "tiny"), {"report.json": b"{}", "report.html": b"<html>"})
    return directory


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The working directory of the first run."""
    return tmp_path_factory.mktemp("elsewhere")


@pytest.fixture(scope="module")
def tracked(store: str, output: Path, elsewhere: Path) -> runs.Tracked:
    """The first run in the store, recorded and registered."""
    with contextlib.chdir(elsewhere):
        return track(a_run(), output, open_bundle(output).digest, store)


def test_a_pass_is_a_run_with_its_bundle_and_a_model_version(
    tracked: runs.Tracked, store: str, output: Path, tmp_path: Path
) -> None:
    """Parameters, metrics with intervals, tags, datasets and every file; the version points at the run and digest."""
    digest = open_bundle(output).digest
    with connected(store) as client:
        run = client.get_run(tracked.run_id)
        version = client.get_model_version("tiny", tracked.model_version)
        downloaded = Path(client.download_artifacts(tracked.run_id, "bundle", str(tmp_path)))
    assert ("FINISHED", "tiny 1") == (run.info.status, run.info.run_name)
    assert params(a_run()) == run.data.params
    assert metrics(a_run()) == run.data.metrics
    assert tags(a_run(), digest).items() <= run.data.tags.items()
    assert {"calibration", "selection", "certification"} == {one.dataset.name for one in run.inputs.dataset_inputs}
    assert {path.name for path in output.iterdir()} == {path.name for path in downloaded.iterdir()}
    assert digest == open_bundle(downloaded).digest
    assert ("1", tracked.run_id) == (tracked.model_version, version.run_id)
    assert (digest, "PASS", "raspberry-pi-4") == tuple(version.tags[key] for key in ("digest", "verdict", "targets"))


def test_nothing_is_written_or_set_elsewhere(tracked: runs.Tracked, store: str, elsewhere: Path) -> None:
    """MLflow makes clients of its own on the way, which must not open a store in the working directory."""
    assert tracked.run_id
    assert [] == list(elsewhere.iterdir())
    assert absolute_uri(store) != os.environ.get("MLFLOW_TRACKING_URI")


def test_what_was_registered_can_be_quantized_again(tracked: runs.Tracked, store: str, output: Path) -> None:
    """models:/tiny/1 leads to the float variant of the bundle."""
    found = load_registered(f"models:/tiny/{tracked.model_version}", lambda path: Path(path).read_bytes(), store)
    assert (output / "fp32.onnx").read_bytes() == found


def test_without_a_bundle_nothing_is_registered(tracked: runs.Tracked, store: str, output: Path) -> None:
    """A FAIL is recorded as well: runs that did not pass are what people look for later."""
    failed = track(a_run(verdict=Verdict.FAIL, name="failing"), output, None, store)
    with connected(store) as client:
        run = client.get_run(failed.run_id)
        assert [] == [one for one in client.search_registered_models() if one.name == "failing"]
    assert failed.model_version is None
    assert tracked.run_id != failed.run_id
    assert "FAIL" == run.data.tags["edgeopt.verdict"]
    assert "edgeopt.digest" not in run.data.tags


def test_a_run_that_breaks_off_is_marked(
    tracked: runs.Tracked, store: str, output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not left as running for ever."""

    def breaks(*given: Any) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(runs, "_record", breaks)
    with pytest.raises(StorageError, match="no space left"):
        track(a_run(), output, None, store)
    with connected(store) as client:
        experiment = client.get_experiment_by_name("edgeopt").experiment_id
        statuses = {run.info.run_id: run.info.status for run in client.search_runs([experiment])}
    assert "FINISHED" == statuses[tracked.run_id]
    assert "FAILED" in statuses.values()
    assert "RUNNING" not in statuses.values()


def test_a_deleted_experiment_comes_back(tracked: runs.Tracked, store: str, output: Path) -> None:
    """Somebody tidied up; the next run is recorded all the same."""
    with connected(store) as client:
        client.delete_experiment(client.get_experiment_by_name("edgeopt").experiment_id)
    assert track(a_run(), output, None, store).run_id


class TestFailure:
    """Tracking never costs the bundle."""

    def test_a_server_that_does_not_answer_is_a_sentence(
        self, output: Path, monkeypatch: pytest.MonkeyPatch, unused_tcp_port: int
    ) -> None:
        """Within few retries; the password in the address is not shown."""
        monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
        told: list[str] = []
        uri = f"http://me:secret@127.0.0.1:{unused_tcp_port}"
        assert track_or_warn(a_run(), output, None, uri, told.append) is None
        assert told[0].startswith(f"this run was not recorded in MLflow: MLflow at http://127.0.0.1:{unused_tcp_port}:")
        assert "secret" not in told[0]
        with pytest.raises(UnreachableError):
            track(a_run(), output, None, uri)

    def test_a_store_that_cannot_be_written_is_a_sentence(self, output: Path, tmp_path: Path) -> None:
        """A file where the folder should be."""
        (tmp_path / "mlruns").write_text("taken")
        told: list[str] = []
        assert track_or_warn(a_run(), output, None, str(tmp_path / "mlruns"), told.append) is None
        assert 1 == len(told)
        assert "--no-tracking" in told[0]

    @pytest.mark.parametrize(("missing", "uri"), [("mlflow.tracking", "./mlruns"), ("alembic", "sqlite:///x.db")])
    def test_without_mlflow(
        self, missing: str, uri: str, output: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """One sentence says how to install it, and nothing is written."""
        monkeypatch.chdir(tmp_path)
        monkeypatch.setitem(sys.modules, missing, None)
        with pytest.raises(MissingExtraError, match=r"pip install 'edgeopt\[mlflow\]'"):
            track(a_run(), output, None, uri)
        assert [] == list(tmp_path.iterdir())

    def test_an_empty_address(self, output: Path) -> None:
        """MLflow would take it for the working directory."""
        with pytest.raises(UsageError, match="tracking URI is empty"):
            track(a_run(), output, None, " ")


def test_nobody_is_called(tmp_path: Path, output: Path) -> None:
    """A whole run with a local store, without what switches telemetry off in tests: no connection, no client of it."""
    program = f"""
import socket
from pathlib import Path
def refuse(*given):
    raise SystemExit(f"connected to {{given[1:]}}")
socket.socket.connect = socket.socket.connect_ex = refuse
socket.getaddrinfo = lambda *given, **more: refuse(None, *given)
from edgeopt.tracking.runs import track
from tests.optimizer.runs import a_run
track(a_run(), Path({str(output)!r}), {open_bundle(output).digest!r}, {str(tmp_path / "mlruns")!r})
from mlflow.telemetry import get_telemetry_client
assert get_telemetry_client() is None
"""
    tests_only = ("PYTEST_", "CI", "GITHUB_", "MLFLOW_", "DO_NOT_TRACK")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(tests_only)}
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True, text=True, check=False, cwd=Path(__file__).parents[3],
        env=environment | {"PYTHONPATH": "."},
    )  # fmt: skip
    assert (0, "", "") == (done.returncode, done.stdout, done.stderr)


class TestRecords:
    """What is said about a run."""

    def test_settings_are_flat_and_choices_are_among_them(self) -> None:
        """Nested settings have dotted names; each target's variant and recipe stand there."""
        found = params(a_run())
        assert ("net:data", "0") == (found["data.data"], found["seed"])
        assert ("int8", a_run().targets[0].variants[0].recipe.title) == (
            found["raspberry-pi-4/chosen"],
            found["raspberry-pi-4/recipe"],
        )
        nothing = a_run(targets=(replace(target(), chosen=None),))
        assert "none" == params(nothing)["raspberry-pi-4/chosen"]

    def test_metrics_have_their_intervals(self) -> None:
        """Drop and ratio with both ends; criteria with bound and limit; what was not measured is absent."""
        found = metrics(a_run())
        assert (0.002, 0.004, 0.008) == tuple(
            round(found[f"raspberry-pi-4/int8/{name}"], 6) for name in ("drop_lower", "drop", "drop_upper")
        )
        assert (1.375, 1.5, 1.625) == tuple(
            found[f"raspberry-pi-4/int8/{name}"] for name in ("ratio_low", "ratio", "ratio_high")
        )
        assert 0.95 == found[f"raspberry-pi-4/criteria/{Name.AGREEMENT}_limit"]
        assert all(math.isfinite(value) for value in found.values())
        assert not any("ratio" in name for name in metrics(a_run(targets=(target(ratio=None),))))

    def test_tags_say_where_it_comes_from(self) -> None:
        """Commit and dirty flag, roots of the splits, versions of the data; outside a repository no commit is told."""
        lineage = dict(a_run().lineage) | {"data_versions": {"data": {"tool": "dvc", "version": "1f3a.dir"}}}
        found = tags(a_run(lineage=lineage), "ab" * 32)
        assert ("0123456789" * 4, "false") == (found["edgeopt.git.commit"], found["edgeopt.git.dirty"])
        assert ("a" * 64, "1f3a.dir") == (
            found["edgeopt.data.calibration"],
            found["edgeopt.data_version.data.version"],
        )
        assert "**PASS**" in found["mlflow.note.content"]
        outside = tags(a_run(lineage={"git": None}), None)
        assert not any("git" in name for name in outside)

    @pytest.mark.parametrize("name", ["../../etc", "a/b", ".hidden", "größe", ""])
    def test_names_become_no_paths(self, name: str) -> None:
        """A folder store makes files of names."""
        cleaned = clean_name(name)
        assert cleaned
        assert "/" not in cleaned
        assert not cleaned.startswith(".")


class TestPlaces:
    """Where a store is."""

    def test_relative_places_mean_this_directory(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Also after somebody changed it; artifacts of a database lie beside it."""
        monkeypatch.chdir(tmp_path)
        assert f"sqlite:///{tmp_path}/mlflow.db" == absolute_uri("sqlite:///mlflow.db")
        assert (tmp_path / "mlruns").as_uri() == absolute_uri("mlruns") == artifact_root("sqlite:///mlflow.db")
        assert "https://host:5000" == absolute_uri("https://host:5000")
        assert artifact_root("https://host:5000") is None

    def test_the_environment_says_the_default(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """As for every program that uses MLflow."""
        monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
        assert "sqlite:///mlflow.db" == default_uri()
        monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://there")
        assert "http://there" == default_uri()

    def test_passwords_are_not_shown(self) -> None:
        """Neither with nor without a user."""
        assert "https://host/x" == shown("https://me:secret@host/x") == shown("https://token@host/x")
