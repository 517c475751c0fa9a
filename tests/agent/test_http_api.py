"""The inference API over HTTP: the protocol's answers to good and bad requests, to others' clients and to ours."""

from __future__ import annotations

import asyncio
import http.client
import json
import re
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from edgeopt_agent.client import BusyError, Client, InferenceFailedError
from edgeopt_agent.http.api import InferenceApi
from edgeopt_agent.http.messages import HttpLimits
from edgeopt_agent.http.open_inference import DATATYPES
from edgeopt_agent.http.server import HttpServer
from edgeopt_agent.inference.served import RestartingError
from edgeopt_agent.inference.serving import Inference
from edgeopt_agent.runner.arrays import array_of, tensor_of
from edgeopt_agent.runner.frames import Tensor
from edgeopt_contract.bundle import read_manifest
from edgeopt_contract.errors import DataError, ModelError, UnreachableError, UsageError
from edgeopt_contract.manifest import TensorSpec
from tests.tiny import tiny_bundle

ENTRY = {"name": "x", "shape": [1, 4], "datatype": "FP32", "data": [1, 2, 3, 4]}
GOOD = {"inputs": [ENTRY]}
PLACES = 2


class FakeServing:
    """A model that doubles; it waits while ``gate`` is closed."""

    def __init__(self, directory: Path) -> None:
        manifest, _ = read_manifest(directory)
        self.manifest = replace(manifest, name="my model", outputs=(TensorSpec(name="p", dtype="float32", shape=(4,)),))
        self.current: Any = None
        self.serve("ab" * 32, "1")
        self.gate = asyncio.Event()
        self.gate.set()
        self.waiting = 0
        self.cancelled = 0
        self.failure: Exception | None = None

    def serve(self, digest: str, version: str, dtype: str = "float32") -> None:
        """Serve another bundle."""
        inputs = (TensorSpec(name="x", dtype=dtype, shape=(4,)),)
        outputs = (TensorSpec(name="p", dtype=dtype, shape=(4,)),)
        manifest = replace(self.manifest, version=version, inputs=inputs, outputs=outputs)
        installed = SimpleNamespace(manifest=manifest, variant=manifest.variants[0], digest=digest)
        self.current = SimpleNamespace(installed=installed, is_ready=True)

    async def infer(self, tensors: Sequence[Tensor]) -> Inference:
        """Double ``x``."""
        self.waiting += 1
        try:
            await self.gate.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        finally:
            self.waiting -= 1
        if self.failure:
            raise self.failure
        (x,) = tensors
        return Inference(self.current.installed.digest, (tensor_of("p", 2 * array_of(x)),), 5.04)


@pytest.fixture
async def serving(tmp_path: Path) -> FakeServing:
    """What answers."""
    return FakeServing(tiny_bundle(tmp_path / "bundle").directory)


@pytest.fixture
async def api(serving: FakeServing) -> InferenceApi:
    """The API with room for two requests."""
    return InferenceApi(serving, PLACES)  # type: ignore[arg-type]  # a fake


@pytest.fixture
async def port(api: InferenceApi) -> AsyncIterator[int]:
    """Where it listens."""
    server = HttpServer(api.answer, HttpLimits())
    yield await server.listen(0)
    await server.close()


@pytest.fixture
def client(port: int) -> Iterator[Client]:
    """Our client."""
    with Client(f"http://127.0.0.1:{port}", timeout_seconds=20) as client:
        yield client


class Triton:
    """Somebody else's client on a thread of its own, which it does not leave: gevent's rule."""

    def __init__(self, port: int) -> None:
        self._thread = ThreadPoolExecutor(1)
        self._port = port
        self._client: Any = None

    async def __call__(self, work: Callable[[Any], Any]) -> Any:
        """Return what ``work`` makes of the client."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._work, work)

    def _work(self, work: Callable[[Any], Any]) -> Any:
        import tritonclient.http

        self._client = self._client or tritonclient.http.InferenceServerClient(f"127.0.0.1:{self._port}", concurrency=1)
        return work(self._client)

    async def close(self) -> None:
        """Close the client and end the thread."""
        await self(lambda client: client.close())
        self._thread.shutdown()


@pytest.fixture
async def triton(port: int) -> AsyncIterator[Triton]:
    """Somebody else's client."""
    pytest.importorskip("tritonclient.http")
    triton = Triton(port)
    yield triton
    await triton.close()


async def ask(port: int, method: str, path: str, body: Any = None) -> tuple[int, Any]:
    """Return status and decoded body."""

    def go() -> tuple[int, Any]:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        connection.request(method, path, body if body is None or isinstance(body, bytes) else json.dumps(body))
        answer = connection.getresponse()
        result = (answer.status, json.loads(answer.read()))
        connection.close()
        return result

    return await asyncio.to_thread(go)


async def until(probe: Callable[[], Any]) -> None:
    """Wait until ``probe`` is true."""
    async with asyncio.timeout(10):
        while not probe():  # noqa: ASYNC110  # there is no event for what a test looks at
            await asyncio.sleep(0.002)


INFER = "/v2/models/my%20model/infer"


# --- the protocol ---------------------------------------------------------------------------------------------------


async def test_inference_answers_all_rows(port: int) -> None:
    """Rows go in and come out as one tensor, with the request's id and the bundle that answered."""
    body = {"id": "q", "inputs": [ENTRY | {"shape": [2, 4], "data": [1, 2, 3, 4, 5, 6, 7, 8]}]}
    expected = {
        "model_name": "my model",
        "model_version": "1",
        "id": "q",
        "parameters": {"bundle": "ab" * 32, "microseconds": 5.0},
        "outputs": [{"name": "p", "datatype": "FP32", "shape": [2, 4], "data": [2.0 * n for n in range(1, 9)]}],
    }
    assert (200, expected) == await ask(port, "POST", INFER, body)


@pytest.mark.parametrize(
    ("failure", "status"),
    [
        (DataError("does not fit after all"), 400),
        (ModelError("the model failed on an input"), 500),
        (RestartingError("its runner is being started again"), 503),
    ],
)
async def test_failure_says_whose_it_is(port: int, serving: FakeServing, failure: Exception, status: int) -> None:
    """The caller's, the model's, or the moment's."""
    serving.failure = failure
    got, answer = await ask(port, "POST", INFER, GOOD)
    assert (status, True) == (got, str(failure) in answer["error"])
    serving.failure = None
    assert 200 == (await ask(port, "POST", INFER, GOOD))[0]


async def test_bad_request_is_the_callers(port: int) -> None:
    """What does not fit never reaches the model."""
    status, answer = await ask(port, "POST", INFER, {"inputs": [ENTRY | {"shape": [1, 5]}]})
    assert (400, True) == (status, "expected the shape" in answer["error"])


async def test_nan_that_json_cannot_carry_is_said(port: int) -> None:
    """A model that answers NaN answers JSON with an error and bytes with NaN."""
    raw = np.full((1, 4), np.nan, np.float32).tobytes()
    text = json.dumps(
        {"inputs": [{"name": "x", "shape": [1, 4], "datatype": "FP32", "parameters": {"binary_data_size": 16}}]}
    )

    def go() -> tuple[int, str]:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        headers = {"Inference-Header-Content-Length": str(len(text))}
        connection.request("POST", INFER, text.encode() + raw, headers)
        answer = connection.getresponse()
        result = (answer.status, json.loads(answer.read())["error"])
        connection.close()
        return result

    status, reason = await asyncio.to_thread(go)
    assert (500, True) == (status, "binary_data" in reason)


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/v2", 200),
        ("GET", "/v2/", 200),
        ("GET", "/v2/health/live", 200),
        ("GET", "/v2/health/ready?verbose=1", 200),
        ("GET", "/v2/models/my%20model", 200),
        ("GET", "/v2/models/my%20model/ready", 200),
        ("GET", "/v2/models/my%20model/versions/1", 200),
        ("GET", "/v2/models/my%20model/versions/1/ready", 200),
        ("POST", "/v2/models/my%20model/versions/1/infer", 200),
        ("POST", "/v2/repository/index", 200),
        ("GET", "/v2/models/my%20model/versions/2", 404),
        ("POST", "/v2/models/my%20model/versions/2/infer", 404),
        ("GET", "/v2/models/my%ff", 400),
        ("GET", "/v2/models/other", 404),
        ("GET", "/", 404),
        ("GET", "/v3", 404),
        ("POST", "/v2/models/other/infer", 404),
        ("POST", "/v2/models/my/model/infer", 404),
        ("GET", INFER, 405),
        ("POST", "/v2/health/live", 405),
        ("POST", "/v2/models/my%20model", 405),
        ("PUT", "/v2/repository/index", 405),
    ],
)
async def test_paths(port: int, method: str, path: str, status: int) -> None:
    """The protocol's paths, decoded, and nothing else."""
    assert status == (await ask(port, method, path, GOOD if method != "GET" else None))[0]


async def test_not_ready_without_a_bundle(port: int, serving: FakeServing) -> None:
    """Alive, but not ready: 503 for readiness, metadata and inference, and an empty index."""
    serving.current = None
    assert 200 == (await ask(port, "GET", "/v2/health/live"))[0]
    assert (200, []) == await ask(port, "POST", "/v2/repository/index", {})
    for method, path in (("GET", "/v2/health/ready"), ("GET", "/v2/models/x"), ("POST", "/v2/models/x/infer")):
        assert 503 == (await ask(port, method, path, GOOD if method == "POST" else None))[0]


async def test_not_ready_while_the_runner_comes_back(port: int, serving: FakeServing) -> None:
    """A model whose process crashed is there, but not ready."""
    serving.current.is_ready = False
    assert 503 == (await ask(port, "GET", "/v2/health/ready"))[0]
    assert 503 == (await ask(port, "GET", "/v2/models/my%20model/ready"))[0]
    assert 200 == (await ask(port, "GET", "/v2/models/my%20model"))[0]
    assert "LOADING" == (await ask(port, "POST", "/v2/repository/index", {}))[1][0]["state"]


async def test_answer_names_the_version_that_answered(port: int, serving: FakeServing) -> None:
    """A switch between question and answer is not hidden."""
    serving.gate.clear()
    asked = asyncio.create_task(ask(port, "POST", INFER, GOOD))
    await until(lambda: serving.waiting)
    serving.serve("cd" * 32, "2")
    serving.gate.set()
    _, answer = await asked
    assert ("2", "cd" * 32) == (answer["model_version"], answer["parameters"]["bundle"])


# --- places and deadlines -------------------------------------------------------------------------------------------


async def test_full_queue_is_refused_at_once(port: int, api: InferenceApi, serving: FakeServing) -> None:
    """The third of three requests gets 503 and a clear message while two wait; the two are answered."""
    serving.gate.clear()
    waiting = [asyncio.create_task(ask(port, "POST", INFER, GOOD)) for _ in range(PLACES)]
    await until(lambda: api._inside == PLACES)
    status, answer = await ask(port, "POST", INFER, GOOD)
    assert (503, "2 requests wait already; send fewer at a time") == (status, answer["error"])
    assert 503 == (await ask(port, "GET", "/v2/health/ready"))[0]
    serving.gate.set()
    assert [200, 200] == [status for status, _ in await asyncio.gather(*waiting)]
    assert 200 == (await ask(port, "GET", "/v2/health/ready"))[0]


async def test_requests_are_answered_in_turn(port: int, api: InferenceApi, serving: FakeServing) -> None:
    """One request at a time is with the model; the other waits outside."""
    serving.gate.clear()
    waiting = [asyncio.create_task(ask(port, "POST", INFER, GOOD)) for _ in range(2)]
    await until(lambda: api._inside == 2)
    assert 1 == serving.waiting
    serving.gate.set()
    await asyncio.gather(*waiting)


async def test_caller_that_vanishes_frees_its_place(port: int, api: InferenceApi, serving: FakeServing) -> None:
    """One that waits leaves at once. One that the model works on leaves with the answer: the runner is not ended."""
    serving.gate.clear()
    writers = []
    for count in (1, 2):
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        data = json.dumps(GOOD).encode()
        writer.write(f"POST {INFER} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(data)}\r\n\r\n".encode() + data)
        writers.append(writer)
        await until(lambda count=count: api._inside == count)
    writers[1].close()
    await until(lambda: api._inside == 1)
    writers[0].close()
    waiting = asyncio.create_task(ask(port, "POST", INFER, GOOD))
    await until(lambda: api._inside == 2)
    assert (1, 0) == (serving.waiting, serving.cancelled)
    serving.gate.set()
    assert 200 == (await waiting)[0]
    await until(lambda: api._inside == 0)
    assert 0 == serving.cancelled


async def test_deadline_frees_the_place(port: int, api: InferenceApi, serving: FakeServing) -> None:
    """504 when the time is up, whether the request waits or the model works on it."""
    serving.gate.clear()
    late = GOOD | {"parameters": {"timeout": 20_000}}
    status, answer = await ask(port, "POST", INFER, late)
    assert (504, True) == (status, "0.02 s" in answer["error"])
    assert 1 == api._inside  # the model is still at work
    assert 504 == (await ask(port, "POST", INFER, late))[0]
    assert 1 == api._inside  # this one had not begun
    serving.gate.set()
    await until(lambda: api._inside == 0)
    assert 200 == (await ask(port, "POST", INFER, late | {"parameters": {"timeout": 10_000_000}}))[0]


# --- somebody else's client -----------------------------------------------------------------------------------------


async def test_triton_client_sees_what_is_served(triton: Triton) -> None:
    """Health, metadata and index through tritonclient."""
    assert await triton(lambda client: client.is_server_live())
    assert await triton(lambda client: client.is_server_ready())
    for version in ("", "1"):
        assert await triton(lambda client, version=version: client.is_model_ready("my model", version))
    metadata = await triton(lambda client: client.get_model_metadata("my model"))
    assert {"name": "x", "datatype": "FP32", "shape": [-1, 4]} == metadata["inputs"][0]
    assert "binary_tensor_data" in (await triton(lambda client: client.get_server_metadata()))["extensions"]
    index = await triton(lambda client: client.get_model_repository_index())
    assert [("my model", "1", "READY")] == [(m["name"], m["version"], m["state"]) for m in index]


@pytest.mark.parametrize("binary_in", [True, False])
@pytest.mark.parametrize("binary_out", [True, False, None])
@pytest.mark.parametrize("compression", [None, "gzip", "deflate"])
async def test_triton_client_is_answered(
    triton: Triton, binary_in: bool, binary_out: bool | None, compression: str | None  # noqa: FBT001  # a table
) -> None:  # fmt: skip
    """Binary and JSON, in and out, packed or not, with a batch dimension; without named outputs all come as bytes."""
    import tritonclient.http as tritonhttp

    rows = np.arange(12, dtype=np.float32).reshape(3, 4)
    given = tritonhttp.InferInput("x", [3, 4], "FP32").set_data_from_numpy(rows, binary_data=binary_in)
    wanted = None if binary_out is None else [tritonhttp.InferRequestedOutput("p", binary_data=binary_out)]
    options = {"request_compression_algorithm": compression, "response_compression_algorithm": compression}
    answer = await triton(
        lambda client: client.infer("my model", [given], outputs=wanted, request_id="q", timeout=5_000_000, **options)
    )
    np.testing.assert_array_equal(2 * rows, answer.as_numpy("p"))
    assert ("q", "1") == (answer.get_response()["id"], answer.get_response()["model_version"])


@pytest.mark.parametrize("dtype", sorted(set(DATATYPES) - {"bool", "bfloat16"}))
@pytest.mark.parametrize("binary", [True, False])
async def test_triton_client_sends_every_datatype(
    triton: Triton,
    serving: FakeServing,
    dtype: str,
    binary: bool,  # noqa: FBT001  # a table
) -> None:
    """Each dtype goes there and back."""
    import tritonclient.http as tritonhttp
    from tritonclient.utils import np_to_triton_dtype

    serving.serve("ab" * 32, "1", dtype)
    rows = np.arange(4, dtype=dtype).reshape(1, 4)
    given = tritonhttp.InferInput("x", [1, 4], np_to_triton_dtype(rows.dtype)).set_data_from_numpy(
        rows, binary_data=binary
    )
    wanted = [tritonhttp.InferRequestedOutput("p", binary_data=binary)]
    answer = await triton(lambda client: client.infer("my model", [given], outputs=wanted))
    assert np.dtype(dtype) == answer.as_numpy("p").dtype
    np.testing.assert_array_equal(2 * rows, answer.as_numpy("p"))


async def test_triton_client_understands_a_refusal(triton: Triton) -> None:
    """Status and reason arrive as its own exception."""
    import tritonclient.http as tritonhttp
    from tritonclient.utils import InferenceServerException

    given = tritonhttp.InferInput("x", [1, 3], "FP32").set_data_from_numpy(np.ones((1, 3), np.float32))
    with pytest.raises(InferenceServerException, match="expected the shape") as caught:
        await triton(lambda client: client.infer("my model", [given]))
    assert "400" == caught.value.status()


async def test_asyncio_triton_client_is_answered(port: int) -> None:
    """The same through tritonclient's asyncio client."""
    tritonaio = pytest.importorskip("tritonclient.http.aio")
    async with tritonaio.InferenceServerClient(f"127.0.0.1:{port}") as client:
        rows = np.ones((2, 4), np.float32)
        given = tritonaio.InferInput("x", [2, 4], "FP32").set_data_from_numpy(rows)
        answer = await client.infer("my model", [given])
        np.testing.assert_array_equal(2 * rows, answer.as_numpy("p"))


# --- our client -----------------------------------------------------------------------------------------------------


async def test_client_answers_samples_and_batches(client: Client) -> None:
    """What goes in as a sample comes out as one, and rows as rows; values are cast to the model's dtype."""
    answer = await asyncio.to_thread(client.infer, [1, 2, 3, 4])
    np.testing.assert_array_equal(np.asarray([2, 4, 6, 8], np.float32), answer.outputs["p"])
    assert ("my model", "1", "ab" * 32, 5.0) == (answer.model, answer.version, answer.bundle, answer.microseconds)
    rows = np.arange(600_000, dtype=np.float64).reshape(-1, 4)[:1000]
    np.testing.assert_array_equal(2 * rows, (await asyncio.to_thread(client.infer, {"x": rows})).outputs["p"])
    answer.outputs["p"][0] = 7  # the arrays are the caller's own


async def test_client_follows_a_rollout(client: Client, serving: FakeServing) -> None:
    """When another version with other inputs serves, the client learns it by itself."""
    assert "1" == (await asyncio.to_thread(client.infer, np.ones(4))).version
    serving.serve("cd" * 32, "2", "int8")
    answer = await asyncio.to_thread(client.infer, np.ones(4, np.int8))
    assert ("2", np.int8) == (answer.version, answer.outputs["p"].dtype)


async def test_client_connects_again_once(client: Client, api: InferenceApi, port: int) -> None:
    """A connection that was closed while idle is opened again without the caller's notice."""
    await asyncio.to_thread(client.infer, np.ones(4))
    held = client._connection.sock
    held.shutdown(2)
    assert "1" == (await asyncio.to_thread(client.infer, np.ones(4))).version
    assert held is not client._connection.sock


async def test_client_says_what_went_wrong(client: Client, serving: FakeServing) -> None:
    """Each kind of failure is an error of its own."""
    with pytest.raises(DataError, match=r"expected shape \(4,\)"):
        await asyncio.to_thread(client.infer, np.ones(5))
    serving.failure = ModelError("no")
    with pytest.raises(InferenceFailedError, match="did not answer: no"):
        await asyncio.to_thread(client.infer, np.ones(4))
    serving.failure = RestartingError("soon")
    with pytest.raises(BusyError, match="soon") as caught:
        await asyncio.to_thread(client.infer, np.ones(4))
    assert 1.0 == caught.value.retry_seconds
    serving.failure = None
    serving.gate.clear()
    with pytest.raises(InferenceFailedError, match=r"timeout of 0\.01 s"):
        await asyncio.to_thread(lambda: client.infer(np.ones(4), model_timeout_seconds=0.01))
    serving.gate.set()
    serving.current = None
    with pytest.raises(BusyError, match="no model is installed"):
        await asyncio.to_thread(client.model)
    assert not await asyncio.to_thread(client.is_ready)


async def test_client_asks_for_some_outputs_only(client: Client) -> None:
    """An output that does not exist is refused by name."""
    assert ["p"] == list((await asyncio.to_thread(lambda: client.infer(np.ones(4), outputs=["p"]))).outputs)
    with pytest.raises(DataError, match="outputs among p"):
        await asyncio.to_thread(lambda: client.infer(np.ones(4), outputs=["q"]))


async def test_client_waits_until_something_serves(client: Client, serving: FakeServing) -> None:
    """It returns when a model serves, and says so when none does in time."""
    current, serving.current = serving.current, None
    with pytest.raises(UnreachableError, match="nothing serves"):
        await asyncio.to_thread(client.wait_until_ready, 0.0)
    waiting = asyncio.create_task(asyncio.to_thread(client.wait_until_ready))
    await asyncio.sleep(0)
    serving.current = current
    await waiting


def test_client_without_an_agent_says_so() -> None:
    """The address and what to do stand in the message; an address that is none is refused."""
    with pytest.raises(UnreachableError, match=r"127\.0\.0\.1:9.*--http"), Client("http://127.0.0.1:9") as client:
        client.infer(np.ones(4))
    for address in ("ftp://x", "127.0.0.1:80", "http://[::1", "http://x:y"):
        with pytest.raises(UsageError, match="http://HOST:PORT"):
            Client(address)


async def test_client_over_a_unix_socket(api: InferenceApi, tmp_path: Path) -> None:
    """The same over a socket in the file system."""
    server = HttpServer(api.answer, HttpLimits())
    await server.listen_unix(tmp_path / "s")
    with Client(f"unix:{tmp_path / 's'}") as client:
        assert "1" == (await asyncio.to_thread(client.infer, np.ones(4))).version
    await server.close()


async def test_the_guides_example_runs(port: int, capsys: pytest.CaptureFixture[str]) -> None:
    """What people copy from docs/guides/device.md works as it stands there, but for the port."""
    guide = (Path(__file__).parents[2] / "docs" / "guides" / "device.md").read_text()
    (example,) = re.findall(r"```python\n(.*?)```", guide, re.DOTALL)
    assert "127.0.0.1:8080" in example
    code = compile(example.replace(":8080", f":{port}"), "device.md", "exec")
    await asyncio.to_thread(exec, code, {})
    assert "1 {'p': (4,)}\n" == capsys.readouterr().out
