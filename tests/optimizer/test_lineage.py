"""Where a bundle comes from: the commit and its changes, the lock of the environment, versions of data, recipes."""

from __future__ import annotations

import getpass
import os
import platform
import socket
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import msgspec
import pytest

from edgeopt import environment, lineage
from edgeopt.data_version import data_version
from edgeopt.environment import lock_digest, versions_of
from edgeopt.recipe import Precision, Recipe
from edgeopt_contract.errors import DataError, MissingExtraError
from edgeopt_contract.values import canonical_json

IDENTITY = {
    "GIT_AUTHOR_NAME": "a",
    "GIT_AUTHOR_EMAIL": "a@b",
    "GIT_COMMITTER_NAME": "a",
    "GIT_COMMITTER_EMAIL": "a@b",
}


def _record(**settings: Any) -> dict[str, Any]:
    return lineage.record(splits={}, settings=settings)


class TestGit:
    """The code, as git knows it."""

    @pytest.fixture
    def repository(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        """An own repository with one commit; the working directory is a folder in it."""
        (tmp_path / "net.py").write_text("x = 1\n")
        (tmp_path / "work").mkdir()
        for arguments in (["init", "-q"], ["add", "."], ["commit", "-q", "-m", "first"]):
            subprocess.run(["git", *arguments], check=True, cwd=tmp_path, env={**os.environ, **IDENTITY})
        monkeypatch.chdir(tmp_path / "work")
        return tmp_path

    def test_what_a_run_leaves_behind_is_no_change(self, repository: Path) -> None:
        """A bundle or a tracking store in the repository must not give the next build another digest."""
        before = _record()
        (repository / "work" / "mlflow.db").write_bytes(b"\0")
        (repository / "out").mkdir()
        (repository / "out" / "manifest.json").write_text("{}")
        assert before == _record()
        assert before["git"]["dirty"] is False

    def test_code_that_git_does_not_track_is_a_change(self, repository: Path) -> None:
        """It may be what was run; its content counts, from any folder of the repository."""
        (repository / "new.py").write_text("y = 1\n")
        first = _record()["git"]
        assert first["dirty"] is True
        assert first == _record()["git"]
        (repository / "new.py").write_text("y = 2\n")
        assert first["changes"] != _record()["git"]["changes"]

    def test_other_changes_are_told_apart(self, repository: Path) -> None:
        """Two builds of the same change are equal, of another are not."""
        (repository / "net.py").write_text("x = 2\n")
        first = _record()["git"]
        (repository / "net.py").write_text("x = 3\n")
        second = _record()["git"]
        assert first["commit"] == second["commit"]
        assert first["changes"] != second["changes"]
        (repository / "net.py").write_text("x = 2\n")
        assert first == _record()["git"]


class TestEnvironment:
    """The lock."""

    def test_what_builds_is_in_it_and_what_tests_is_not(self) -> None:
        """Needs of needs too; every version is the installed one; sorted."""
        versions = versions_of()
        assert {"edgeopt", "numpy", "onnxruntime", "protobuf", "torch"} <= set(versions)
        assert not {"pytest", "ruff", "mlflow-skinny", "fastapi"} & set(versions)
        assert sorted(versions) == list(versions)
        assert all(metadata.version(name) == version for name, version in versions.items())

    def test_what_the_users_module_came_with_is_in_it(self) -> None:
        """A model factory from a package: the package decides the weights."""
        assert "scikit-learn" not in versions_of()
        assert {"scikit-learn", "joblib"} <= set(versions_of(["sklearn.datasets", "edgeopt_zoo"]))
        assert "scikit-learn" in _record(model="sklearn.linear_model:Ridge")["versions"]
        assert "scikit-learn" in _record(data={"certification": "sklearn.datasets:load_digits"})["versions"]

    def test_another_version_is_another_lock(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """One package more or another version changes the digest; order does not."""
        lock = {"numpy": "2.0", "onnx": "1.17"}
        assert lock_digest(lock) == lock_digest({"onnx": "1.17", "numpy": "2.0"})
        assert lock_digest(lock) != lock_digest(lock | {"numpy": "2.1"})
        before = _record()["environment"]
        monkeypatch.setattr(environment.metadata, "version", lambda name: "9.9")
        assert before != _record()["environment"]


class TestDataVersion:
    """DVC's and Delta's, without either."""

    @pytest.fixture(autouse=True)
    def here(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        """Paths are given as users give them: relative."""
        monkeypatch.chdir(tmp_path)
        (tmp_path / "raw" / "cat").mkdir(parents=True)
        (tmp_path / "raw" / "cat" / "1.png").write_bytes(b"png")
        (tmp_path / "table.csv").write_text("a,label\n1,0\n")
        return tmp_path

    def test_a_file_with_its_dvc_file(self, here: Path) -> None:
        """As 'dvc add table.csv' writes it."""
        (here / "table.csv.dvc").write_text(
            "outs:\n- md5: a304afb96060aad90176268345e10355\n  size: 12\n  hash: md5\n  path: table.csv\n"
        )
        expected = {"tool": "dvc", "hash": "md5", "version": "a304afb96060aad90176268345e10355"}
        assert expected == data_version("table.csv") == data_version(str(here / "table.csv"))

    def test_a_file_in_a_folder_with_a_dvc_file(self, here: Path) -> None:
        """As 'dvc add raw' writes it; the folder's version is that of what is in it."""
        (here / "raw.dvc").write_text("outs:\n- md5: 1f3a.dir\n  nfiles: 1\n  hash: md5\n  path: raw\n")
        assert "1f3a.dir" == (data_version("raw") or {})["version"]
        assert "1f3a.dir" == (data_version("raw/cat") or {})["version"]

    def test_the_output_of_a_pipeline(self, here: Path) -> None:
        """As 'dvc repro' writes dvc.lock: outputs count, dependencies do not."""
        (here / "dvc.lock").write_text(
            "schema: '2.0'\nstages:\n  prepare:\n    cmd: python prepare.py\n    deps:\n    - path: raw\n"
            "      md5: dd\n    outs:\n    - path: table.csv\n      hash: md5\n      md5: aa\n"
        )
        assert "aa" == (data_version("table.csv") or {})["version"]
        assert data_version("raw") is None

    def test_a_delta_table(self, here: Path) -> None:
        """The greatest commit or checkpoint in the log; a file of the table has the table's version."""
        log = here / "table" / "_delta_log"
        log.mkdir(parents=True)
        (here / "table" / "part-0.parquet").write_bytes(b"")
        assert data_version("table") is None
        commits = ("00000000000000000000.json", "00000000000000000012.json")
        for name in (*commits, "00000000000000000010.checkpoint.parquet", "00000000000000000099.crc"):
            (log / name).write_text("{}")
        assert {"tool": "delta", "version": 12} == data_version("table") == data_version("table/part-0.parquet")

    @pytest.mark.parametrize("source", ["examples.digits:data", "nowhere.csv", "table.csv"])
    def test_what_has_no_version(self, source: str) -> None:
        """A factory, a missing file, a file that nobody versions."""
        assert data_version(source) is None

    def test_a_damaged_file_is_told(self, here: Path) -> None:
        """Lineage that says nothing where something stands would be a gap nobody sees."""
        (here / "table.csv.dvc").write_text("outs: [")
        with pytest.raises(DataError, match=r"table\.csv\.dvc, which says the version of the data"):
            data_version("table.csv")

    def test_without_yaml(self, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """One sentence naming the extra."""
        (here / "table.csv.dvc").write_text("outs: []\n")
        monkeypatch.setitem(sys.modules, "yaml", None)
        with pytest.raises(MissingExtraError, match="optimizer"):
            data_version("table.csv")

    def test_it_stands_in_the_record_by_purpose(self, here: Path) -> None:
        """And the path as it was given."""
        (here / "raw.dvc").write_text("outs:\n- md5: 1f3a.dir\n  path: raw\n")
        found = _record(model="net.onnx", data={"calibration": "raw", "selection": "table.csv", "input_shape": [3]})
        assert {"calibration": {"tool": "dvc", "hash": "md5", "version": "1f3a.dir"}} == found["data_versions"]
        assert str(here) not in canonical_json(found).decode()


def test_recipes_are_read_back() -> None:
    """A recipe decodes to itself."""
    recipe = Recipe(precision=Precision.INT8, float_nodes=("a", "b"), equalized=True)
    found = lineage.record(splits={}, settings={}, recipes={"int8": recipe})
    assert recipe == msgspec.convert(msgspec.json.decode(canonical_json(found))["recipes"]["int8"], Recipe)


def test_no_trace_of_machine_or_user(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither the host nor the user is asked for; the working directory and the home are not written down."""
    for module, name in ((socket, "gethostname"), (platform, "node"), (getpass, "getuser")):
        monkeypatch.setattr(module, name, lambda: pytest.fail("asked for the machine or its user"))
    text = canonical_json(_record(model="edgeopt_zoo:digits", data={"data": "edgeopt_zoo:digits_data"})).decode()
    assert str(Path.cwd()) not in text
    assert str(Path.home()) not in text
