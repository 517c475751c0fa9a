"""models:/name/version as MODEL: what is taken from a registered version, and what is refused."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from edgeopt.models import OnnxModel, load_model
from edgeopt.packing import write_run
from edgeopt.tracking.connection import connected
from edgeopt.tracking.registry import find_model, load_registered, resolve
from edgeopt_contract.bundle import open_bundle
from edgeopt_contract.errors import BundleError, ModelError
from tests.optimizer.runs import tiny_contents


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """A bundle of a float and an int8 variant."""
    write_run(tmp_path / "bundle", tiny_contents(tmp_path / "tiny"), {})
    return tmp_path / "bundle"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An empty folder of a registered version."""
    (tmp_path / "files").mkdir()
    return tmp_path / "files"


@pytest.fixture
def registered(tmp_path: Path, bundle: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A store that holds the bundle as models:/tiny/1 with the alias prod; the environment names the store."""
    store = str(tmp_path / "mlruns")
    with connected(store) as client:
        run = client.create_run(client.create_experiment("any"))
        client.log_artifacts(run.info.run_id, str(bundle), "bundle")
        client.create_registered_model("tiny")
        client.create_model_version("tiny", f"{run.info.artifact_uri}/bundle", run.info.run_id)
        client.set_registered_model_alias("tiny", "prod", "1")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store)
    return store


@pytest.mark.parametrize("reference", ["models:/tiny/1", "models:/tiny@prod"])
def test_a_version_is_a_model_like_any_other(reference: str, registered: str, bundle: Path) -> None:
    """The float variant of the bundle is loaded, from the store that the environment names."""
    model = load_model(reference)
    assert isinstance(model, OnnxModel)
    assert (bundle / "fp32.onnx").read_bytes() == model._model


def test_nothing_is_left_behind(registered: str) -> None:
    """What was fetched vanishes when the model is loaded."""
    with resolve("models:/tiny/1", registered) as path:
        assert path.exists()
    assert not path.parent.exists()


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        ("models:/tiny/9", "it has the versions 1"),
        ("models:/tiny@test", "it has the versions 1"),
        ("models:/other/1", "no model has this name"),
        ("models:/tiny", "expected models:/name/3"),
        ("models:/tiny/latest", "expected models:/name/3"),
    ],
)
def test_what_is_not_there_is_told(reference: str, message: str, registered: str) -> None:
    """With what there is instead."""
    with pytest.raises(ModelError, match=message):
        load_registered(reference, load_model, registered)


def test_a_bundle_that_was_replaced_is_refused(registered: str, tmp_path: Path) -> None:
    """The registry says which digest was certified; a damaged bundle is found as everywhere."""
    with connected(registered) as client:
        client.set_model_version_tag("tiny", "1", "digest", "ab" * 32)
    with pytest.raises(ModelError, match="was registered as the bundle abab"):
        load_model("models:/tiny/1")
    (damaged,) = (tmp_path / "mlruns").rglob("artifacts/bundle/fp32.onnx")
    damaged.write_bytes(b"x" + damaged.read_bytes()[1:])
    with pytest.raises(BundleError, match="was changed or damaged"):
        load_model("models:/tiny/1")


class TestFiles:
    """Which file of a version is the model."""

    def test_an_onnx_file_anywhere(self, folder: Path, bundle: Path) -> None:
        """As MLflow's ONNX flavour saves it, described by MLmodel."""
        (folder / "data").mkdir()
        shutil.copy(bundle / "fp32.onnx", folder / "data" / "model.onnx")
        (folder / "MLmodel").write_text("flavors:\n  onnx:\n    data: model.onnx\n  python_function: {}\n")
        assert folder / "data" / "model.onnx" == find_model(folder, "models:/x/1")

    def test_a_program_of_torch_export(self, folder: Path) -> None:
        """When there is no ONNX file."""
        (folder / "model.pt2").write_bytes(b"")
        assert folder / "model.pt2" == find_model(folder, "models:/x/1")

    def test_several_are_ambiguous(self, folder: Path) -> None:
        """Nobody guesses which one is meant."""
        for name in ("a.onnx", "b.onnx"):
            (folder / name).write_bytes(b"")
        with pytest.raises(ModelError, match=r"several \.onnx files \(a\.onnx, b\.onnx\)"):
            find_model(folder, "models:/x/1")

    def test_a_pickled_model_is_refused_with_the_way_out(self, folder: Path) -> None:
        """MLflow's PyTorch flavour: what to log instead, and nothing is opened."""
        (folder / "data").mkdir()
        (folder / "data" / "model.pth").write_bytes(b"\x80\x04cos\nsystem\n.")
        (folder / "MLmodel").write_text("flavors:\n  pytorch: {model_data: data}\n  python_function: {}\n")
        with pytest.raises(ModelError, match=r"was logged as pytorch; a pickled model .* mlflow\.onnx\.log_model"):
            find_model(folder, "models:/x/1")

    def test_nothing_usable(self, folder: Path) -> None:
        """An empty version."""
        with pytest.raises(ModelError, match=r"has no ONNX file, \.pt2 file or bundle"):
            find_model(folder, "models:/x/1")

    def test_the_digest_of_a_bundle_is_held(self, bundle: Path) -> None:
        """The right one passes."""
        assert bundle / "fp32.onnx" == find_model(bundle, "models:/x/1", open_bundle(bundle).digest)
