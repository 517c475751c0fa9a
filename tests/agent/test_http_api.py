"""The HTTP source: the V2 protocol's answers to good and bad requests."""

from __future__ import annotations

import asyncio
import http.client
import json
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from edgeopt_agent.http_api import HttpSource
from edgeopt_agent.serving import Inference
from edgeopt_contract.bundle import read_manifest
from edgeopt_contract.errors import DataError, ModelError
from tests.agent.conftest import wait_until
from tests.tiny import tiny_bundle

GOOD = {"inputs": [{"name": "x", "shape": [1, 4], "datatype": "FP32", "data": [1, 2, 3, 4]}]}


class FakeServing:
    """A model that doubles; it waits while ``gate`` is closed."""

    def __init__(self, directory: Path) -> None:
        manifest, _ = read_manifest(directory)
        installed = SimpleNamespace(manifest=manifest, variant=manifest.variants[0])
        self.current: Any = SimpleNamespace(installed=installed)
        self.gate = asyncio.Event()
        self.gate.set()
        self.waiting = 0

    async def infer(self, inputs: dict[str, np.ndarray]) -> Inference:
        """Double ``x``."""
        self.waiting += 1
        await self.gate.wait()
        self.waiting -= 1
        if inputs["x"].shape != (4,):
            raise DataError("expected shape (4,)")
        if inputs["x"][0] < 0:
            raise ModelError("the model failed on an input")
        return Inference("ab" * 32, {"p": 2 * inputs["x"]}, 5.0)


class Client:
    """Speaks HTTP on a thread."""

    def __init__(self, port: int) -> None:
        self._port = port

    async def ask(self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None) -> Any:
        """Return status and decoded body."""
        return await asyncio.to_thread(self._ask, method, path, body, headers or {})

    def _ask(self, method: str, path: str, body: Any, headers: dict[str, str]) -> Any:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=10)
        payload = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        connection.request(method, path, payload, headers)
        answer = connection.getresponse()
        result = (answer.status, json.loads(answer.read()))
        connection.close()
        return result


@pytest.fixture
async def serving(tmp_path: Path) -> FakeServing:
    """What answers."""
    return FakeServing(tiny_bundle(tmp_path / "bundle").directory)


@pytest.fixture
async def client(serving: FakeServing, caplog: pytest.LogCaptureFixture) -> AsyncIterator[Client]:
    """A client of a source with room for two requests."""
    caplog.set_level("INFO", "edgeopt_agent")
    task = asyncio.create_task(HttpSource(0, 2).run(serving))  # type: ignore[arg-type]  # a fake
    async with asyncio.timeout(10):
        while "http_listening" not in caplog.text:  # noqa: ASYNC110  # a log line gives no event
            await asyncio.sleep(0.002)
    yield Client(int(caplog.messages[-1].rpartition("=")[2]))
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_inference_answers_each_row(client: Client) -> None:
    """Rows go through one by one and come back as one tensor with the request's id."""
    body = {"id": "q", "inputs": [{"name": "x", "shape": [2, 4], "datatype": "FP32", "data": [1, 2, 3, 4, 5, 6, 7, 8]}]}
    status, answer = await client.ask("POST", "/v2/models/tiny/infer", body)
    assert 200 == status
    assert ("tiny", "1", "q") == (answer["model_name"], answer["model_version"], answer["id"])
    assert [{"name": "p", "datatype": "FP32", "shape": [2, 4], "data": [2.0 * n for n in range(1, 9)]}] == answer[
        "outputs"
    ]


async def test_nested_data_is_taken_too(client: Client) -> None:
    """The protocol allows nested lists as well as flat ones."""
    body = {"inputs": [GOOD["inputs"][0] | {"data": [[1, 2, 3, 4]]}]}
    assert 200 == (await client.ask("POST", "/v2/models/tiny/infer", body))[0]


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ({"shape": [1, 5]}, 400),
        ({"shape": [2, 2], "data": [1, 2, 3, 4]}, 400),
        ({"shape": ["x"]}, 400),
        ({"shape": []}, 400),
        ({"shape": [0, 4], "data": []}, 400),
        ({"name": "y"}, 400),
        ({"data": ["a", "b", "c", "d"]}, 400),
        ({"data": None}, 400),
        ({"data": [-1, 2, 3, 4]}, 500),
    ],
)
async def test_bad_input_is_told_apart_from_a_failing_model(
    client: Client, change: dict[str, Any], status: int
) -> None:
    """What does not fit is the caller's fault (400), what the model cannot answer is ours (500)."""
    answer = await client.ask("POST", "/v2/models/tiny/infer", {"inputs": [GOOD["inputs"][0] | change]})
    assert (status, ["error"]) == (answer[0], list(answer[1]))


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"{}", b'{"inputs": []}', b'{"inputs": [7]}', b"[" * 100_000])
async def test_body_that_is_no_request_is_refused(client: Client, body: bytes) -> None:
    """Nonsense gets 400, and the server lives on."""
    assert 400 == (await client.ask("POST", "/v2/models/tiny/infer", body))[0]
    assert 200 == (await client.ask("GET", "/v2/health/live"))[0]


async def test_full_queue_is_refused_at_once(client: Client, serving: FakeServing) -> None:
    """The third of three requests gets 503 and a clear message while two wait; the two are answered."""
    serving.gate.clear()
    waiting = [asyncio.create_task(client.ask("POST", "/v2/models/tiny/infer", GOOD)) for _ in range(2)]
    await asyncio.to_thread(wait_until, "two requests to wait", lambda: serving.waiting == 2)
    status, answer = await client.ask("POST", "/v2/models/tiny/infer", GOOD)
    assert (503, "2 requests wait already; send fewer at a time") == (status, answer["error"])
    serving.gate.set()
    assert [200, 200] == [status for status, _ in await asyncio.gather(*waiting)]


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/v2", 200),
        ("GET", "/v2/health/live", 200),
        ("GET", "/v2/health/ready?verbose=1", 200),
        ("GET", "/v2/models/tiny", 200),
        ("GET", "/v2/models/tiny/ready", 200),
        ("GET", "/v2/models/other", 404),
        ("GET", "/", 404),
        ("POST", "/v2/models/tiny", 404),
        ("POST", "/v2/models/other/infer", 404),
    ],
)
async def test_paths(client: Client, method: str, path: str, status: int) -> None:
    """The protocol's paths, and nothing else."""
    assert status == (await client.ask(method, path, {} if method == "POST" else None))[0]


async def test_not_ready_without_a_bundle(client: Client, serving: FakeServing) -> None:
    """Alive, but not ready: 503 for readiness, metadata and inference."""
    serving.current = None
    assert 200 == (await client.ask("GET", "/v2/health/live"))[0]
    for method, path in (("GET", "/v2/health/ready"), ("GET", "/v2/models/tiny"), ("POST", "/v2/models/tiny/infer")):
        assert 503 == (await client.ask(method, path, GOOD if method == "POST" else None))[0]


@pytest.mark.parametrize(("length", "status"), [(str(1 << 40), 413), ("-1", 411), ("many", 411)])
async def test_impossible_length_is_refused_without_reading(client: Client, length: str, status: int) -> None:
    """A caller cannot make the agent hold gigabytes."""
    assert status == (await client.ask("POST", "/v2/models/tiny/infer", b"", {"Content-Length": length}))[0]


async def test_port_that_is_taken_is_logged(
    client: Client, serving: FakeServing, caplog: pytest.LogCaptureFixture
) -> None:
    """A second source on the same port ends with a line in the log, and the agent goes on."""
    await HttpSource(client._port, 2).run(serving)  # type: ignore[arg-type]  # a fake
    assert "source_failed" in caplog.text
