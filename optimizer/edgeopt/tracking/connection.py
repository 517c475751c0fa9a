"""A connection to an MLflow store: where it is, and MLflow kept quiet, patient for seconds only, and private.

MLflow's telemetry is switched off before it is imported. The network is used only where the URI names a server. The
local default is MLflow's own, ``sqlite:///mlflow.db`` with artifacts in ``mlruns`` beside it, so that ``mlflow ui`` in
the same directory shows the runs; a folder (``./mlruns``) is a store too. Example::

    with connected("sqlite:///mlflow.db") as client:
        client.search_experiments()
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from edgeopt.silence import silenced
from edgeopt_contract.errors import EdgeoptError, MissingExtraError, StorageError, UnreachableError, UsageError

__all__ = ["DEFAULT_URI", "absolute_uri", "artifact_root", "connected", "default_uri", "forbid_telemetry", "shown"]

DEFAULT_URI = "sqlite:///mlflow.db"
_SQLITE = "sqlite:///"
_REMOTE = ("http", "https", "databricks", "databricks-uc", "uc", "postgresql", "mysql", "mssql")
_PATIENCE = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2", "MLFLOW_HTTP_REQUEST_TIMEOUT": "30"}  # else minutes of silence


def default_uri() -> str:
    """Return what ``MLFLOW_TRACKING_URI`` says, else the local store in the working directory."""
    return os.environ.get("MLFLOW_TRACKING_URI") or DEFAULT_URI


def forbid_telemetry() -> None:
    """Switch MLflow's telemetry off for this process; whoever imports MLflow does so after this."""
    os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
    os.environ["DO_NOT_TRACK"] = "true"


@contextlib.contextmanager
def connected(uri: str) -> Iterator[Any]:
    """Give an ``MlflowClient`` for runs and registry at ``uri``; nothing of MLflow's reaches the terminal.

    Raises :class:`MissingExtraError` without MLflow, :class:`UnreachableError` for a server and :class:`StorageError`
    for a local store when MLflow fails inside; errors of this program pass unchanged.
    """
    place = absolute_uri(uri)
    forbid_telemetry()
    with _environment(place), silenced():
        try:
            from mlflow.tracking import MlflowClient

            if place.startswith("sqlite:"):
                import alembic  # noqa: F401  (MLflow names it in a traceback only)
        except ModuleNotFoundError as error:
            raise MissingExtraError(error.name or "mlflow", "mlflow") from error
        try:
            yield MlflowClient(tracking_uri=place, registry_uri=place)
        except EdgeoptError:
            raise
        except Exception as error:  # MLflow passes on what requests, SQLAlchemy and clouds raise
            kind = UnreachableError if _scheme(place) in _REMOTE else StorageError
            raise kind(f"MLflow at {shown(uri)}: {_first_line(error)}") from error


@contextlib.contextmanager
def _environment(place: str) -> Iterator[None]:
    """Say to MLflow, inside, what it takes from the environment only: some calls make a client of their own."""
    wanted = {name: os.environ.get(name, value) for name, value in _PATIENCE.items()}
    wanted |= dict.fromkeys(("MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI"), place)
    if _scheme(place) == "file":
        wanted["MLFLOW_ALLOW_FILE_STORE"] = "true"  # who names a folder wants a folder
    before = {name: os.environ.get(name) for name in wanted}
    os.environ.update(wanted)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def absolute_uri(uri: str) -> str:
    """Return ``uri`` so that it means the same from any directory. Raises :class:`UsageError` for an empty one."""
    if not uri.strip():
        raise UsageError("the tracking URI is empty: give a folder, sqlite:///file.db, or the address of a server")
    if uri.startswith(_SQLITE):
        return f"{_SQLITE}{Path(uri.removeprefix(_SQLITE)).absolute()}"
    return uri if _scheme(uri) else Path(uri).absolute().as_uri()


def artifact_root(uri: str) -> str | None:
    """Return where the artifacts of a local database go: beside it; ``None`` where the store itself decides."""
    place = absolute_uri(uri)
    if not place.startswith(_SQLITE):
        return None
    return (Path(unquote(place.removeprefix(_SQLITE))).parent / "mlruns").as_uri()


def shown(uri: str) -> str:
    """Return ``uri`` without a password that may stand in it."""
    return re.sub(r"(?<=//)[^/@]*@", "", uri)


def _scheme(uri: str) -> str:
    return urlsplit(uri).scheme.partition("+")[0]


def _first_line(error: Exception) -> str:
    text = re.sub(r"(?<=//)[^/@\s]*@", "", str(error)).strip()
    return f"{type(error).__name__}: {text.splitlines()[0][:300]}" if text else type(error).__name__
