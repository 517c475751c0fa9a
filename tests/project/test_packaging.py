"""The wheel, its extras, and what a device gets when it installs the agent's."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from tests.project.conftest import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def run(*command: str | Path, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    """Run a command and show what it said when it fails."""
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    assert 0 == done.returncode, done.stdout + done.stderr
    return done


def test_extras_are_those_of_the_documents(documents: str) -> None:
    """Each program, and each thing that only some need, has its extra; 'all' brings them; the documents name each."""
    extras = PROJECT["optional-dependencies"]
    programs, additions = ("agent", "optimizer", "fleet"), ("data", "litert", "mlflow", "openvino", "pruning")
    assert {*programs, *additions, "all", "test"} == set(extras)
    assert [f"edgeopt[{','.join((*programs, *additions))}]"] == extras["all"]
    for extra in (*programs, *additions, "all"):
        assert re.search(rf"edgeopt\[([a-z]+,)*{extra}(,[a-z]+)*\]", documents), extra


def test_versions_agree() -> None:
    """The changelog knows the version, and the licence is the one that the project names."""
    assert "Apache-2.0" == PROJECT["license"]
    assert "Apache License" in (ROOT / "LICENSE").read_text()
    assert "## [Unreleased]" in (ROOT / "CHANGELOG.md").read_text()


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of this checkout."""
    directory = tmp_path_factory.mktemp("wheel")
    build = "import hatchling.build, sys; print(hatchling.build.build_wheel(sys.argv[1]))"
    run(sys.executable, "-c", build, directory)
    (found,) = directory.glob("*.whl")
    return found


@pytest.mark.install
def test_wheel_holds_the_four_packages_and_nothing_else(wheel: Path) -> None:
    """Typed packages with templates and licence, no tests, no examples."""
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    tops = {name.partition("/")[0] for name in names if ".dist-info" not in name}
    assert {"edgeopt_contract", "edgeopt", "edgeopt_fleet", "edgeopt_agent"} == tops
    assert all(f"{top}/py.typed" in names for top in tops)
    assert any(name.endswith("licenses/LICENSE") for name in names)
    assert any(name.startswith("edgeopt/templates/") for name in names)


def put_in_from_here(python: Path, wheel: Path, extra: str) -> None:
    """Install the wheel with an extra as pip would, without a registry: what it needs is linked from here."""
    run(python, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--disable-pip-version-check", wheel)
    (site,) = python.parent.parent.glob("lib/python*/site-packages")
    (metadata_file,) = site.glob("edgeopt-*.dist-info")
    wanted = needed(metadata.Distribution.at(metadata_file), {extra})
    for file in {file for distribution in wanted.values() for file in distribution.files or ()}:
        if file.suffix == ".pyc" or ".." in file.parts:  # caches, and commands in bin/
            continue
        (site / file).parent.mkdir(parents=True, exist_ok=True)
        (site / file).symlink_to(file.locate())


def needed(distribution: metadata.Distribution, extras: set[str]) -> dict[str, metadata.Distribution]:
    """Return what a distribution with these extras requires in this environment, and what that requires."""
    found: dict[str, metadata.Distribution] = {}
    for line in distribution.requires or ():
        requirement = Requirement(line)
        if requirement.marker and not any(requirement.marker.evaluate({"extra": extra}) for extra in (extras or {""})):
            continue
        other = metadata.distribution(requirement.name)
        if requirement.name not in found:
            found |= {requirement.name: other} | needed(other, requirement.extras)
    return found


@pytest.fixture(params=["3.11", "3.13"])
def interpreter(request: pytest.FixtureRequest) -> str:
    """The Pythons of Raspberry Pi OS bookworm and trixie; the one that runs the tests stands in for its version."""
    if request.param == f"{sys.version_info.major}.{sys.version_info.minor}":
        return sys.executable
    found = shutil.which(f"python{request.param}")
    if found is None or subprocess.run([found, "-c", "import ensurepip"], capture_output=True, check=False).returncode:
        pytest.skip(f"there is no python{request.param} with venv on this machine")
    return found


@pytest.mark.install
@pytest.mark.timeout(600)
def test_agents_extra_is_small_and_works_alone(wheel: Path, tmp_path: Path, interpreter: str) -> None:
    """In a clean environment: no torch, no pydantic, no web framework, no onnx; the agent starts all the same.

    What it imports is looked at, not only what is installed: every module of the agent is imported.
    """
    run(interpreter, "-m", "venv", tmp_path / "venv")
    python = tmp_path / "venv" / "bin" / "python"
    if interpreter == sys.executable:
        put_in_from_here(python, wheel, "agent")
    else:
        run(python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", f"{wheel}[agent]", cwd=tmp_path)
    listed = json.loads(run(python, "-m", "pip", "list", "--format", "json", cwd=tmp_path).stdout)
    installed = {package["name"].lower() for package in listed}
    assert "edgeopt" in installed
    assert set() == installed & {
        *("torch", "pydantic", "pydantic-core", "fastapi", "starlette", "sqlmodel", "sqlalchemy", "onnx", "scipy"),
        *("httpx", "rich", "uvicorn"),
    }
    for words in (["--help"], ["enroll", "--help"], ["run", "--help"], ["status", "--help"]):
        assert "Example" in run(python.with_name("edgeopt-agent"), *words, cwd=tmp_path).stdout
    everything = (
        "import importlib, pkgutil, edgeopt_agent, edgeopt_contract\n"
        "for package in (edgeopt_contract, edgeopt_agent):\n"
        "    for module in pkgutil.walk_packages(package.__path__, package.__name__ + '.'):\n"
        "        if not module.name.endswith('__main__'):\n"
        "            importlib.import_module(module.name)\n"
    )
    run(python, "-W", "error", "-c", everything, cwd=tmp_path)
    missing = subprocess.run(
        [python.with_name("edgeopt"), "devices", "--fleet", "operator.json"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert 2 == missing.returncode
    assert "pip install 'edgeopt[optimizer]'" in missing.stderr
    assert 1 == len(missing.stderr.strip().splitlines())
