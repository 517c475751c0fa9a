"""Models from MLflow's registry: ``models:/name/version`` and ``models:/name@alias`` as MODEL.

The version's files are fetched by MLflow's own code, and from them an ONNX file, a ``.pt2`` program or the float
variant of a bundle is taken. Pickled models, which is what MLflow's PyTorch flavour saves unless told otherwise, are
refused: loading one runs code from the file. An alias may mean another version tomorrow; a bundle that is to be
reproduced is better made from a version. Example::

    model = load_registered("models:/digits/3", load_model)
"""

from __future__ import annotations

import contextlib
import re
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from edgeopt.tracking.connection import absolute_uri, connected, default_uri, shown
from edgeopt_contract.bundle import MANIFEST_NAME, open_bundle
from edgeopt_contract.errors import ModelError

__all__ = ["PREFIX", "find_model", "load_registered", "resolve"]

PREFIX = "models:/"
_FP32 = "fp32"
_MLMODEL = "MLmodel"
_REFERENCE = re.compile(r"models:/(?P<name>[^/@]+)(?:/(?P<version>\d+)|@(?P<alias>[^/@]+))")
_WAY_OUT = (
    "log it with mlflow.onnx.log_model, log a file that torch.export.save wrote (.pt2), or write a function that loads "
    "it and give that as 'package.module:function'"
)
Loaded = TypeVar("Loaded")


def load_registered(reference: str, load: Callable[[str], Loaded], uri: str | None = None) -> Loaded:
    """Fetch the version that ``reference`` names and return ``load(path)`` of the model file in it.

    ``uri`` is the store's, by default what ``MLFLOW_TRACKING_URI`` says or the local one. Raises :class:`ModelError`
    for what is not there or cannot be used, :class:`MissingExtraError`, :class:`UnreachableError`,
    :class:`StorageError`.
    """
    with resolve(reference, uri) as path:
        return load(str(path))


@contextlib.contextmanager
def resolve(reference: str, uri: str | None = None) -> Iterator[Path]:
    """Give the path of the model file, which vanishes afterwards. Raises as :func:`load_registered`."""
    match = _REFERENCE.fullmatch(reference)
    if match is None:
        raise ModelError(f"{reference!r}: expected models:/name/3 (a version's number) or models:/name@alias")
    with tempfile.TemporaryDirectory(prefix="edgeopt-") as folder:
        files, digest = _fetch(match, uri or default_uri(), Path(folder))
        yield find_model(files, reference, digest)


def find_model(folder: Path, reference: str, digest: str | None = None) -> Path:
    """Return the one usable model file below ``folder``: a bundle's float variant, an ONNX file, or a ``.pt2``.

    ``digest`` is what a bundle must have. Raises :class:`ModelError`, :class:`BundleError`.
    """
    if manifest := next(iter(sorted(folder.rglob(MANIFEST_NAME))), None):
        return _from_bundle(manifest.parent, reference, digest)
    for suffix in (".onnx", ".pt2"):
        found = sorted(folder.rglob(f"*{suffix}"))
        if len(found) == 1:
            return found[0]
        if found:
            names = ", ".join(path.name for path in found[:5])
            raise ModelError(f"{reference} has several {suffix} files ({names}): register the one that is meant")
    flavours = _flavours(folder)
    what = f"was logged as {', '.join(flavours)}" if flavours else "has no ONNX file, .pt2 file or bundle"
    raise ModelError(f"{reference} {what}; a pickled model would run code from the file when loaded: {_WAY_OUT}")


def _from_bundle(directory: Path, reference: str, digest: str | None) -> Path:
    bundle = open_bundle(directory)
    if digest is not None and digest != bundle.digest:
        raise ModelError(
            f"{reference} was registered as the bundle {digest[:12]}…, its files are {bundle.digest[:12]}…: they were "
            "replaced; register them anew"
        )
    for variant in bundle.manifest.variants:
        if variant.name == _FP32:
            return directory / variant.file
    raise ModelError(f"{reference} is a bundle without the float model ({_FP32}), which is needed to start from")


def _fetch(match: re.Match[str], uri: str, folder: Path) -> tuple[Path, str | None]:
    """Return where the version's files were put, and the bundle's digest if the version has one."""
    with connected(uri) as client:
        from mlflow.artifacts import download_artifacts

        found = _version(client, match, uri)
        source = client.get_model_version_download_uri(found.name, found.version)
        path = Path(download_artifacts(artifact_uri=source, dst_path=str(folder), tracking_uri=absolute_uri(uri)))
    return path, found.tags.get("digest")


def _version(client: Any, match: re.Match[str], uri: str) -> Any:
    from mlflow.exceptions import MlflowException

    try:
        if match["alias"] is not None:
            return client.get_model_version_by_alias(match["name"], match["alias"])
        return client.get_model_version(match["name"], match["version"])
    except MlflowException as error:
        if error.error_code not in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            raise
        versions = sorted(int(one.version) for one in client.search_model_versions(f"name='{match['name']}'"))
        there = f"it has the versions {', '.join(map(str, versions))}" if versions else "no model has this name"
        raise ModelError(f"{match[0]} is not in the registry at {shown(uri)}: {there}") from error


def _flavours(folder: Path) -> list[str]:
    """Return the flavours that MLflow's description of the model names, besides the generic one."""
    path = next(iter(sorted(folder.rglob(_MLMODEL))), None)
    if path is None:
        return []
    import yaml

    described = yaml.safe_load(path.read_text(encoding="utf-8"))
    flavours = described.get("flavors", {}) if isinstance(described, dict) else {}
    return sorted(set(flavours) - {"python_function"})
