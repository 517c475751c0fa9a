"""Files dropped into a folder, answered one by one: results in ``results/``, the files go to ``done/`` or ``failed/``.

A file is taken when it has not changed between two looks. One that is interrupted by a power cut is answered again,
with the same result. Example::

    watch_folder(Path("/data/in"), client, stop)
"""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

from edgeopt_agent.client import Answer, BusyError, Client
from edgeopt_agent.inference.readers import SUFFIXES, read_inputs
from edgeopt_contract.errors import EdgeoptError, UnreachableError
from edgeopt_contract.storage import storage_errors, write_atomically

__all__ = ["watch_folder"]

_POLL_SECONDS = 0.2


def watch_folder(path: Path, client: Client, stop: threading.Event) -> None:
    """Answer what is in ``path``, and what comes, until ``stop`` is set.

    Raises :class:`UnreachableError` when the agent has gone, :class:`StorageError` when results cannot be written.
    """
    with storage_errors(path):
        for folder in ("results", "done", "failed"):
            (path / folder).mkdir(parents=True, exist_ok=True)
    seen: dict[Path, tuple[int, int]] = {}
    while not stop.is_set():
        with storage_errors(path):
            found = _look(path)
        for file in sorted(path for path, mark in found.items() if seen.get(path) == mark):
            _process(path, file, client)
        seen = found
        stop.wait(_POLL_SECONDS)


def _look(path: Path) -> dict[Path, tuple[int, int]]:
    found = {}
    for file in path.iterdir():
        if file.suffix.lower() in SUFFIXES and not file.name.startswith("."):
            stat = file.stat()
            found[file] = (stat.st_size, stat.st_mtime_ns)
    return found


def _process(path: Path, file: Path, client: Client) -> None:
    try:
        answer = _as_json(client.infer(read_inputs(file, client.model().inputs)))
    except BusyError:
        return  # nothing serves at this moment: next time
    except UnreachableError:
        raise
    except EdgeoptError as error:
        answer = {"error": str(error)}
    # The result first, then the file: what is interrupted is done again.
    write_atomically(path / "results" / f"{file.name}.json", json.dumps({"file": file.name, **answer}).encode())
    with storage_errors(file):
        file.replace(path / ("failed" if "error" in answer else "done") / file.name)


def _as_json(answer: Answer) -> dict[str, Any]:
    outputs = {name: array.tolist() for name, array in answer.outputs.items()}
    return {"bundle": answer.bundle, "microseconds": answer.microseconds, "outputs": outputs}
