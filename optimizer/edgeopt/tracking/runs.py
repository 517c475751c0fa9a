"""One run of edgeopt as a run in MLflow; on PASS its bundle as a version of a registered model.

It writes to the store that the URI names, and to nothing else. Tracking is a record beside the work: whoever calls
:func:`track_or_warn` keeps bundle and exit code whatever MLflow does. Example::

    tracked = track(run, Path("build/digits"), bundle.digest, "sqlite:///mlflow.db")
    tracked.run_id, tracked.model_version        # ("3f2a…", "4")
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgeopt.results import RunResult
from edgeopt.samples import chunks
from edgeopt.tracking.connection import artifact_root, connected, shown
from edgeopt.tracking.records import TAG, clean_name, metrics, params, tags
from edgeopt_contract.errors import EdgeoptError

__all__ = ["EXPERIMENT", "Tracked", "track", "track_or_warn"]

EXPERIMENT = "edgeopt"
_FOLDER = "bundle"
_BATCH = 100  # entries in one request: https://mlflow.org/docs/latest/api_reference/rest-api.html#request-limits
_DIGEST_LENGTH = 36  # MLflow's longest digest of a dataset


@dataclass(frozen=True, slots=True)
class Tracked:
    """Where the run is found again; ``model_version`` is ``None`` when nothing was registered."""

    uri: str
    run_id: str
    model: str
    model_version: str | None


def track(run: RunResult, output: Path, digest: str | None, uri: str) -> Tracked:
    """Record ``run`` with every file of ``output``; register them as a model version if ``digest`` names a bundle.

    Raises :class:`MissingExtraError`, :class:`UnreachableError` or :class:`StorageError`; a run that was begun is then
    marked as failed, if that still can be done.
    """
    with connected(uri) as client:
        created = client.create_run(_experiment(client, uri), run_name=f"{run.name} {run.version}")
        run_id = created.info.run_id
        try:
            _record(client, run_id, run, digest)
            client.log_artifacts(run_id, str(output), _FOLDER)
            model, version = clean_name(run.name).replace(":", "_"), None
            if digest is not None:
                version = _register(client, model, f"{created.info.artifact_uri}/{_FOLDER}", run_id, tags(run, digest))
        except BaseException:
            client.set_terminated(run_id, "FAILED")
            raise
        client.set_terminated(run_id, "FINISHED")
    return Tracked(shown(uri), run_id, model, version)


def track_or_warn(
    run: RunResult, output: Path, digest: str | None, uri: str, warn: Callable[[str], None]
) -> Tracked | None:
    """Do the same; what goes wrong is one sentence for ``warn``, and ``None`` is returned."""
    try:
        return track(run, output, digest, uri)
    except EdgeoptError as error:
        warn(f"this run was not recorded in MLflow: {error} (--no-tracking leaves it out)")
        return None


def _experiment(client: Any, uri: str) -> str:
    """Return the id of the experiment, which is made when it is not there, and restored when somebody deleted it."""
    found = client.get_experiment_by_name(EXPERIMENT)
    if found is None:
        return str(client.create_experiment(EXPERIMENT, artifact_location=artifact_root(uri)))
    if found.lifecycle_stage == "deleted":
        client.restore_experiment(found.experiment_id)
    return str(found.experiment_id)


def _record(client: Any, run_id: str, run: RunResult, digest: str | None) -> None:
    from mlflow.entities import Metric, Param, RunTag

    now = int(time.time() * 1000)
    entries = {
        "params": [Param(name, value) for name, value in params(run).items()],
        "metrics": [Metric(name, value, now, 0) for name, value in metrics(run).items()],
        "tags": [RunTag(name, value) for name, value in tags(run, digest).items()],
    }
    for kind, items in entries.items():
        for few in chunks(items, _BATCH):
            client.log_batch(run_id, **{kind: list(few)})
    client.log_inputs(run_id, datasets=list(_datasets(run)))


def _datasets(run: RunResult) -> Iterator[Any]:
    """Yield the splits as MLflow's dataset inputs; the whole Merkle root is a tag, since a digest must be short."""
    from mlflow.entities import Dataset, DatasetInput, InputTag

    given = run.lineage.get("settings", {}).get("data", {})
    for name, split in run.splits.items():
        source = json.dumps({"given": given, "split": name})
        dataset = Dataset(
            name=name,
            digest=split.hash[:_DIGEST_LENGTH],
            source_type="edgeopt",
            source=source,
            profile=json.dumps({"num_rows": split.size}),
        )
        yield DatasetInput(dataset, [InputTag("mlflow.data.context", name), InputTag(f"{TAG}merkle_root", split.hash)])


def _register(client: Any, model: str, source: str, run_id: str, every_tag: dict[str, str]) -> str:
    from mlflow.exceptions import MlflowException

    try:
        client.get_registered_model(model)
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        client.create_registered_model(model)
    own = {name.removeprefix(TAG): value for name, value in every_tag.items() if name.startswith(TAG)}
    return str(client.create_model_version(model, source, run_id, tags=own).version)
