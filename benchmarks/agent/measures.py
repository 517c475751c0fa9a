"""The figures of one agent: what it adds to a device, and what it adds to a request and to a download.

Each function measures one thing and returns rows; where there is a peer it is measured in the same run, in turn.
Example::

    rows = footprint(rig, idle_seconds=30) + latency(rig, model, requests=400)
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median, quantiles

import numpy as np
import onnxruntime

from benchmarks.agent.bundles import picture
from benchmarks.agent.monitoring import measure as measure_monitoring
from benchmarks.agent.processes import added_memory, cpu_seconds, memory_of
from benchmarks.agent.rig import Rig
from edgeopt_agent.client import Client
from edgeopt_contract.bundle import Bundle
from edgeopt_contract.topics import Topics
from tests.agent.conftest import blocks_of, free_port, wait_until

__all__ = ["Row", "delivery", "footprint", "latency", "monitoring"]

_MB = 1e6
_FEATURES = 64
_ROUNDS = 5


@dataclass(frozen=True, slots=True)
class Row:
    """One figure; ``limit`` is the greatest that is allowed, ``beside`` what a peer took in the same run."""

    name: str
    value: float
    unit: str
    limit: float | None = None
    beside: str = ""

    @property
    def holds(self) -> bool:
        """Whether the figure is within its limit."""
        return self.limit is None or self.value <= self.limit


def footprint(rig: Rig, idle_seconds: float) -> list[Row]:
    """Return memory and idle CPU of an agent that serves and has nothing to do."""
    before = cpu_seconds(rig.agent_pid), cpu_seconds(rig.runner_pid)
    time.sleep(idle_seconds)
    agent, runner = (
        100 * (cpu_seconds(pid) - start) / idle_seconds
        for pid, start in zip((rig.agent_pid, rig.runner_pid), before, strict=True)
    )
    own, theirs = memory_of(rig.agent_pid), memory_of(rig.runner_pid)
    added = added_memory(rig.agent_pid, beside=rig.runner_pid)
    return [
        Row("agent: memory added beside its runner", added / _MB, "MB", 25.0, f"runner: RSS {theirs.rss / _MB:.1f} MB"),
        Row("agent: RSS", own.rss / _MB, "MB"),
        Row("agent: PSS", own.pss / _MB, "MB", beside=f"runner: {theirs.pss / _MB:.1f} MB"),
        Row("agent: USS", own.uss / _MB, "MB", beside=f"runner: {theirs.uss / _MB:.1f} MB"),
        Row(f"agent: CPU of a core, idle for {idle_seconds:g} s", agent, "%", 0.5, f"runner: {runner:.2f} %"),
    ]


def latency(rig: Rig, bundle: Bundle, requests: int) -> list[Row]:
    """Time requests of 602,112 bytes over HTTP and the bare session in turn, one thread each."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(bundle.directory / "fp32.onnx"), options)
    inputs = [picture(seed) for seed in range(8)]
    bare, http = [], []
    with Client(f"http://127.0.0.1:{rig.http_port}") as client:
        for index in range(requests + 20):  # the first twenty warm up
            x = inputs[index % len(inputs)]
            bare.append(_timed(lambda x=x: session.run(None, {"x": x[np.newaxis]})))  # type: ignore[misc]
            http.append(_timed(lambda x=x: client.infer(x)))  # type: ignore[misc]
    bare_ms, http_ms = 1e3 * median(bare[20:]), 1e3 * median(http[20:])
    tail = 1e3 * quantiles(http[20:], n=100)[98]
    return [
        Row("600 KB over HTTP: added at the median", http_ms - bare_ms, "ms", 2.0, f"bare session: {bare_ms:.2f} ms"),
        Row("600 KB over HTTP: 99th percentile", tail, "ms"),
    ]


def monitoring(rounds: int) -> list[Row]:
    """Time the counting of one inference, as the runner does it."""
    rows = []
    for cost in measure_monitoring(rounds):
        limit = 50.0 if cost.features == _FEATURES else None
        name = f"counting an inference, {cost.profile}, {cost.features} features: 99th percentile"
        beside = f"median: {cost.median_us:.1f} µs, by the clock {cost.clock_p99_us:.1f} µs"
        rows.append(Row(name, cost.p99_us, "µs", limit, beside))
    return rows


def delivery(rig: Rig, bundles: list[Bundle], scratch: Path) -> list[Row]:
    """Time updates from the desired state to confirmed, beside plain downloads of the same bytes."""
    confirmed, by_mqtt, by_http = [], [], []
    for bundle in bundles:
        rig.publish(bundle)
        blocks = blocks_of(bundle)
        by_mqtt.append(_timed(_mosquitto_sub(rig, list(blocks))))
        by_http.append(_http_download(b"".join(blocks.values()), scratch))
        confirmed.append(rig.roll_out(bundle))
    size = sum(map(len, blocks.values())) / _MB
    beside = f"mosquitto_sub: {median(by_mqtt):.2f} s, HTTP: {median(by_http):.3f} s"
    return [Row(f"{size:.1f} MB: from desired to confirmed, bake time 0", median(confirmed), "s", beside=beside)]


def _mosquitto_sub(rig: Rig, digests: list[str]) -> Callable[[], None]:
    """Return a call that fetches all blocks with Mosquitto's own client."""
    command = ["mosquitto_sub", "-h", "127.0.0.1", "-p", str(rig.broker.port), "-u", "fleet", "-P", "secret"]
    command += ["-C", str(len(digests)), "-N", *(word for digest in digests for word in ("-t", Topics.block(digest)))]

    def fetch() -> None:
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, timeout=60)

    return fetch


def _http_download(data: bytes, scratch: Path) -> float:
    """Return the seconds that a download of ``data`` from Python's file server takes."""
    with tempfile.TemporaryDirectory(dir=scratch) as directory:
        (Path(directory) / "blob").write_bytes(data)
        port = free_port()
        command = [sys.executable, "-m", "http.server", str(port), "--bind", "127.0.0.1", "--directory", directory]
        server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        url = f"http://127.0.0.1:{port}/blob"

        def fetch() -> int:
            with urllib.request.urlopen(url, timeout=10) as answer:
                return len(answer.read())

        def is_up() -> bool:
            try:
                return fetch() == len(data)
            except OSError:
                return False

        try:
            wait_until("the file server", is_up)
            return median(_timed(fetch) for _ in range(_ROUNDS))
        finally:
            server.terminate()
            server.wait()


def _timed(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start
