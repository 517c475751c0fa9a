"""Where inference requests come from: a Python iterable, a folder, or HTTP on loopback.

``module:factory``   an iterable of inputs or ``(inputs, label)``; the label is not used on the device
``folder:PATH``      ``.npy``/``.npz`` files dropped there; results beside them in ``PATH/results``
``http[:PORT]``      :mod:`edgeopt_agent.http_api`

A source that fails is logged and ends; it never takes the agent down. Example::

    for source in make_sources(config):
        group.create_task(source.run(serving))
"""

from __future__ import annotations

import asyncio
import importlib
import json
import logging
import sys
import threading
import zipfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from edgeopt_agent.config import AgentConfig
from edgeopt_agent.log import log_event
from edgeopt_agent.serving import Inference, NotServingError, Serving
from edgeopt_contract.errors import DataError, EdgeoptError, UsageError
from edgeopt_contract.storage import storage_errors, write_atomically

__all__ = ["FolderSource", "IterableSource", "Source", "make_sources"]

_FOLDER = "folder:"
_DEFAULT_HTTP_PORT = 8080
_POLL_SECONDS = 0.2
_LOG_EVERY_ERRORS = 100


class Source(Protocol):
    """Something that asks for inferences."""

    async def run(self, serving: Serving) -> None:
        """Ask until cancelled, or until there is nothing more to ask."""
        ...


def make_sources(config: AgentConfig) -> list[Source]:
    """Return the sources that ``config`` names. Raises :class:`UsageError` for one that cannot be made."""
    return [_make_source(text, config) for text in config.sources]


def _make_source(text: str, config: AgentConfig) -> Source:
    if text == "http" or text.startswith("http:"):
        from edgeopt_agent.http_api import HttpSource

        port = text.partition(":")[2] or str(_DEFAULT_HTTP_PORT)
        if not port.isdigit() or int(port) > 65535:
            raise UsageError(f"--source {text}: expected a port from 0 to 65535, got {port!r}")
        return HttpSource(int(port), config.queue_limit)
    if text.startswith(_FOLDER):
        return FolderSource(Path(text.removeprefix(_FOLDER)))
    return IterableSource(_load_factory(text), config.interval_seconds, repeat=config.repeat)


def _load_factory(text: str) -> Callable[[], Iterable[Any]]:
    module_name, _, name = text.partition(":")
    if not module_name or not name:
        raise UsageError(f"--source: expected module:factory, folder:PATH or http, got {text!r}")
    if "" not in sys.path:
        sys.path.insert(0, "")  # a console script does not look into the current directory, 'python -m' does
    try:
        factory = getattr(importlib.import_module(module_name), name)
    except Exception as error:  # an import runs the user's code, which may raise anything
        raise UsageError(f"--source {text}: cannot be imported: {type(error).__name__}: {error}") from error
    if not callable(factory):
        raise UsageError(f"--source {text}: expected something to call, got {type(factory).__name__}")
    return factory  # type: ignore[no-any-return]  # checked as far as Python can


@dataclass(frozen=True, slots=True)
class IterableSource:
    """Asks for each item of an iterable, one after the other.

    Items are taken on a thread of their own, so that a camera that blocks does not stop the agent. At its end it
    idles, or starts again with ``repeat``.
    """

    factory: Callable[[], Iterable[Any]]
    interval_seconds: float = 0.0
    repeat: bool = False

    async def run(self, serving: Serving) -> None:
        """Ask until the iterable ends."""
        loop = asyncio.get_running_loop()
        finished: asyncio.Future[None] = loop.create_future()
        stop = threading.Event()
        pump = threading.Thread(target=self._pump, args=(serving, loop, finished, stop), name="source", daemon=True)
        pump.start()
        try:
            await finished
            log_event("source_ended")
        except Exception as error:  # whatever the user's iterable raises
            log_event("source_failed", level=logging.ERROR, reason=f"{type(error).__name__}: {error}")
        finally:
            stop.set()

    def _pump(
        self, serving: Serving, loop: asyncio.AbstractEventLoop, finished: asyncio.Future[None], stop: threading.Event
    ) -> None:
        """Take items and hand each to the event loop; runs on its own thread."""
        failures = 0
        outcome: Exception | None = None
        try:
            while True:
                for item in self.factory():
                    failures += not asyncio.run_coroutine_threadsafe(_ask(serving, item, failures), loop).result()
                    if stop.wait(self.interval_seconds):
                        return
                if not self.repeat:
                    break
        except Exception as error:  # the user's iterable
            outcome = error
        if not stop.is_set():
            loop.call_soon_threadsafe(_finish, finished, outcome)


def _finish(finished: asyncio.Future[None], outcome: Exception | None) -> None:
    if finished.done():
        return
    if outcome is None:
        finished.set_result(None)
    else:
        finished.set_exception(outcome)


async def _ask(serving: Serving, item: Any, failures: int) -> bool:
    """Ask for one inference, once something serves; say whether it was answered."""
    inputs = item[0] if isinstance(item, tuple) else item
    while True:
        await serving.wait_until_serving()
        try:
            await serving.infer(inputs)
        except NotServingError:
            continue  # it was taken away in this moment
        except EdgeoptError as error:
            if failures % _LOG_EVERY_ERRORS == 0:
                log_event("inference_failed", level=logging.WARNING, failures=failures + 1, reason=error)
            return False
        return True


@dataclass(frozen=True, slots=True)
class FolderSource:
    """Processes every ``.npy`` and ``.npz`` file dropped into ``path``, one sample a file, each once.

    The result goes to ``results/<file>.json``, the file to ``done/`` (or ``failed/``). A file is taken when its size
    has not changed between two looks. A file interrupted by a power cut is processed again, with the same result.
    """

    path: Path

    async def run(self, serving: Serving) -> None:
        """Look for files until cancelled."""
        try:
            with storage_errors(self.path):
                for folder in ("results", "done", "failed"):
                    (self.path / folder).mkdir(parents=True, exist_ok=True)
            seen: dict[Path, tuple[int, int]] = {}
            while True:
                found = await asyncio.to_thread(self._look)
                for file in sorted(path for path, mark in found.items() if seen.get(path) == mark):
                    await serving.wait_until_serving()
                    await self._process(serving, file)
                seen = found
                await asyncio.sleep(_POLL_SECONDS)
        except (EdgeoptError, OSError) as error:
            log_event("source_failed", level=logging.ERROR, source=self.path, reason=error)

    def _look(self) -> dict[Path, tuple[int, int]]:
        found = {}
        for path in self.path.iterdir():
            if path.suffix in (".npy", ".npz") and not path.name.startswith("."):
                stat = path.stat()
                found[path] = (stat.st_size, stat.st_mtime_ns)
        return found

    async def _process(self, serving: Serving, file: Path) -> None:
        try:
            answer: dict[str, Any] = _as_json(await serving.infer(await asyncio.to_thread(_read_file, file)))
        except NotServingError:
            return  # next time
        except EdgeoptError as error:
            answer = {"error": str(error)}
        await asyncio.to_thread(self._put_away, file, answer)

    def _put_away(self, file: Path, answer: dict[str, Any]) -> None:
        """Write the result first, then move the file: what is interrupted is done again."""
        result = json.dumps({"file": file.name, **answer}).encode()
        write_atomically(self.path / "results" / f"{file.name}.json", result)
        with storage_errors(file):
            file.replace(self.path / ("failed" if "error" in answer else "done") / file.name)


def _read_file(file: Path) -> Any:
    """Return the array of an ``.npy`` file, or the arrays of an ``.npz`` by name. Raises :class:`DataError`."""
    try:
        loaded = np.load(file, allow_pickle=False)
        if isinstance(loaded, np.ndarray):
            return loaded
        with loaded:
            return {name: loaded[name] for name in loaded.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise DataError(f"{file.name}: expected arrays as numpy.save or numpy.savez write them: {error}") from error


def _as_json(inference: Inference) -> dict[str, Any]:
    outputs = {name: array.tolist() for name, array in inference.outputs.items()}
    return {"bundle": inference.bundle, "microseconds": round(inference.microseconds, 1), "outputs": outputs}
