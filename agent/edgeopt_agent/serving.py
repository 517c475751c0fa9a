"""What answers right now: one bundle with its runner, a candidate beside it, and the counts of both.

During a switch the old runner answers until the new one has passed. A runner that crashes is started again with
growing pauses; after ``crash_limit`` crashes in a row ``on_fault`` is told, and the life cycle decides. It does not
move the pointer on disk. Example::

    serving = Serving(options, spool, data, on_fault=…)
    await serving.start(slots.open("a"))
    reply = await serving.infer({"x": row})
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeopt_agent.backoff import restart_delay
from edgeopt_agent.log import log_event
from edgeopt_agent.machine import read_gauges
from edgeopt_agent.monitor import Serves, Window
from edgeopt_agent.selftest import compare, read_golden
from edgeopt_agent.slots import Installed
from edgeopt_agent.spool import Spool
from edgeopt_agent.supervisor import RunnerCrashError, RunnerOptions, RunnerProcess
from edgeopt_agent.tensors import fit_inputs
from edgeopt_contract.codec import decode
from edgeopt_contract.errors import BundleError, EdgeoptError, MessageError, StorageError, WorldError
from edgeopt_contract.manifest import Role
from edgeopt_contract.messages import Telemetry
from edgeopt_contract.profile import ReferenceProfile
from edgeopt_contract.topics import Channel

__all__ = ["Inference", "NotServingError", "Served", "Serving", "ServingOptions"]

Array = npt.NDArray[Any]


class NotServingError(WorldError):
    """No bundle is installed, or none could be started."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServingOptions:
    """How runners are treated."""

    runner: RunnerOptions
    crash_limit: int = 3


@dataclass(frozen=True, slots=True)
class Inference:
    """The answer to one request; arrays have no batch dimension."""

    bundle: str
    outputs: dict[str, Array]
    microseconds: float


class Served:
    """One bundle and the runner that has it loaded."""

    def __init__(self, installed: Installed, options: RunnerOptions) -> None:
        self.installed = installed
        self.crashes = 0  # in a row
        self.crashes_in_all = 0
        self._runner = RunnerProcess(options)
        self._lock = asyncio.Lock()
        try:
            profile = decode(ReferenceProfile, installed.path_with(Role.PROFILE).read_bytes())
        except (OSError, MessageError) as error:
            raise BundleError(f"the profile of {installed.manifest.name} cannot be read: {error}") from error
        self._features = profile.features
        self.window = self.new_window()

    def new_window(self) -> Window:
        """Return an empty window of this bundle that begins now."""
        serves = Serves(self.installed.digest, self.installed.variant.name)
        return Window(serves, self._features, int(time.time()))

    @property
    def slot(self) -> str:
        """The slot that the bundle lies in."""
        return self.installed.directory.name

    @property
    def runner_pid(self) -> int | None:
        """The process id of the runner while it lives."""
        return self._runner.pid

    async def start(self) -> None:
        """Load the model and check that the loading process read the right bytes.

        Raises :class:`~edgeopt_contract.errors.ModelError`, :class:`RunnerCrashError` or :class:`BundleError`.
        """
        entry = self.installed.model
        loaded = await self._runner.load((self.installed.directory / entry.path).absolute())
        if loaded.sha256 != entry.sha256:
            raise BundleError(f"{entry.path}: expected SHA-256 {entry.sha256[:12]}…, loaded {loaded.sha256[:12]}…")

    async def infer(self, batch: Mapping[str, Array]) -> tuple[dict[str, Array], float]:
        """Run the model on arrays with a first axis; start the runner again if it is gone."""
        async with self._lock:
            try:
                if self._runner.pid is None:
                    await asyncio.sleep(restart_delay(self.crashes))
                    await self._restart()
                answer = await self._runner.infer(batch)
            except RunnerCrashError:
                self.crashes += 1
                self.crashes_in_all += 1
                raise
            self.crashes = 0
            return {tensor.name: tensor.array() for tensor in answer.tensors}, answer.microseconds

    async def self_test(self) -> list[str]:
        """Run the golden inputs and return what is wrong; nothing when the test passed.

        One sample at a time, as requests come. Raises as :meth:`infer` does, or :class:`BundleError`.
        """
        installed = self.installed
        golden = await asyncio.to_thread(read_golden, installed.path_with(Role.GOLDEN), installed.variant.name)
        rows = []
        for index in range(golden.samples):
            outputs, _ = await self.infer({name: array[index : index + 1] for name, array in golden.inputs.items()})
            rows.append(outputs)
        try:
            got = {name: np.concatenate([row[name] for row in rows]) for name in rows[0]}
        except ValueError as error:
            return [f"the outputs change their shape from sample to sample: {error}"]
        return compare(golden.outputs, got, installed.variant.tolerance)

    async def drain(self) -> None:
        """Return when every request that came before has its answer."""
        async with self._lock:
            pass

    async def stop(self) -> None:
        """End the runner."""
        await self._runner.stop()

    async def _restart(self) -> None:
        try:
            await self.start()
        except (EdgeoptError, OSError) as error:
            raise RunnerCrashError(f"the runner could not be started again: {error}") from error


class Serving:
    """The bundle that answers, and the ones beside it during an update."""

    def __init__(
        self, options: ServingOptions, spool: Spool, data: Path, on_fault: Callable[[str], None] = lambda _: None
    ) -> None:
        self._options = options
        self._spool = spool
        self._data = data
        self.on_fault = on_fault
        self.current: Served | None = None
        self.candidate: Served | None = None
        self._standby: Served | None = None
        self._serves = asyncio.Event()
        self._requests = 0
        self._errors = 0

    # --- answering ------------------------------------------------------------------------------------------------

    @property
    def running(self) -> str | None:
        """The digest of the bundle that answers now."""
        return self.current.installed.digest if self.current else None

    async def wait_until_serving(self) -> None:
        """Return when there is a bundle that answers."""
        await self._serves.wait()

    async def infer(self, inputs: Any) -> Inference:
        """Answer one sample (arrays without batch dimension).

        Raises :class:`NotServingError`, :class:`~edgeopt_contract.errors.DataError` when the inputs do not fit, or
        what the runner raised. Every failure but the first is counted as an error of the bundle.
        """
        served = self.current
        if served is None:
            raise NotServingError("no bundle is installed on this device yet; roll one out to it")
        try:
            batch = fit_inputs(served.installed.manifest.inputs, inputs)
            outputs, microseconds = await served.infer(batch)
        except EdgeoptError as error:
            self._count_error(served, error)
            raise
        self._requests += 1
        served.window.count_row(batch, outputs, microseconds)
        return Inference(served.installed.digest, {k: v[0] for k, v in outputs.items()}, microseconds)

    def _count_error(self, served: Served, error: EdgeoptError) -> None:
        self._requests += 1
        self._errors += 1
        served.window.count_error()
        if served is self.current and served.crashes >= self._options.crash_limit:
            log_event("runner_faulty", level=logging.ERROR, crashes=served.crashes, reason=error)
            self.on_fault(f"{served.crashes} runner crashes in a row: {error}")

    def since_switch(self) -> tuple[int, int, int]:
        """Return requests, failed requests and runner crashes since the last switch."""
        crashes = self.current.crashes_in_all if self.current else 0
        return self._requests, self._errors, crashes

    # --- switching ------------------------------------------------------------------------------------------------

    async def start(self, installed: Installed) -> None:
        """Load ``installed`` and let it answer. Raises as :meth:`Served.start`."""
        await self.load_candidate(installed)
        await self.promote()
        await self.commit()

    async def load_candidate(self, installed: Installed) -> Served:
        """Start a second runner on ``installed``; the current one goes on answering."""
        await self.drop_candidate()
        candidate = Served(installed, self._options.runner)
        try:
            await candidate.start()
        except BaseException:
            await candidate.stop()
            raise
        self.candidate = candidate
        return candidate

    async def drop_candidate(self) -> None:
        """End the second runner, if there is one."""
        candidate, self.candidate = self.candidate, None
        if candidate:
            await candidate.stop()

    async def promote(self) -> None:
        """Let the candidate answer from now on; the old runner is kept until :meth:`commit` or :meth:`go_back`."""
        assert self.candidate is not None  # the caller loaded it
        promoted, self.candidate = self.candidate, None
        if self._standby:
            await self._standby.stop()
        self._standby = self.current
        await self._switch_to(promoted)

    async def go_back(self, slot: str | None) -> bool:
        """Let the kept runner answer again if it is the one of ``slot``; say whether that slot answers now."""
        await self.drop_candidate()
        standby, self._standby = self._standby, None
        if self.current and self.current.slot == slot:
            if standby:
                await standby.stop()
            return True
        failed = self.current
        if standby and standby.slot != slot:
            await standby.stop()
            standby = None
        await self._switch_to(standby)
        if failed:
            await failed.stop()
        return standby is not None

    async def commit(self) -> None:
        """End the runner that was kept in case the switch had to be undone."""
        standby, self._standby = self._standby, None
        if standby:
            await standby.stop()

    async def _switch_to(self, served: Served | None) -> None:
        old, self.current = self.current, served
        if served:
            served.window = served.new_window()
            self._serves.set()
        else:
            self._serves.clear()
        self._requests = self._errors = 0
        if old:
            await old.drain()  # its last answers belong to its window
            self._keep(old.window)
        log_event("serves", bundle=self.running, slot=served.slot if served else None)

    # --- telling --------------------------------------------------------------------------------------------------

    def close_window(self) -> None:
        """Number the counts so far and begin a new window; while the spool is full the window stays open."""
        if self.current and not self._spool.is_full and self._keep(self.current.window):
            self.current.window = self.current.new_window()

    async def stop(self) -> None:
        """Keep the last window and end all runners."""
        current, self.current = self.current, None
        self._serves.clear()
        if current:
            self._keep(current.window)
        for served in (self.candidate, self._standby, current):
            if served:
                await served.stop()

    def _keep(self, window: Window) -> bool:
        """Put ``window`` into the spool; say whether that worked."""
        now, gauges = int(time.time()), read_gauges(self._data)
        try:
            try:
                self._append(lambda s, n: window.close(s, n, end=now, gauges=gauges))
            except MessageError as error:  # a profile of very many cells: its rows and latencies still count
                log_event("cells_dropped", level=logging.ERROR, reason=error)
                self._append(lambda s, n: replace(window.close(s, n, end=now, gauges=gauges), cells={}))
        except StorageError as error:
            log_event("window_not_kept", level=logging.ERROR, reason=error, rows=window.rows)
            return False
        return True

    def _append(self, build: Callable[[int, int], Telemetry]) -> None:
        with self._spool.transaction():
            self._spool.append(Channel.TELEMETRY, build)
