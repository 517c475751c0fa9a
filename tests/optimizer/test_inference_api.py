"""The description of the inference API is what the agent serves: the agent's own answers are held against it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from edgeopt.inference_api import DATATYPES, MAX_ROWS, inference_api
from edgeopt_agent.http import open_inference
from edgeopt_agent.http.api import InferenceApi
from edgeopt_agent.http.messages import HttpError, Request, segments_of
from edgeopt_agent.inference.serving import Inference
from edgeopt_agent.runner.frames import Tensor
from edgeopt_contract.bundle import read_manifest
from edgeopt_contract.values import digest_of
from tests.optimizer.runs import tiny_contents


class FakeServing:
    """A model that gives the same probabilities for each row."""

    def __init__(self, directory: Path) -> None:
        manifest, data = read_manifest(directory)
        installed = SimpleNamespace(manifest=manifest, variant=manifest.variants[0], digest=digest_of(data))
        self.current: Any = SimpleNamespace(installed=installed, is_ready=True)

    async def infer(self, tensors: Sequence[Tensor]) -> Inference:
        """Answer one row."""
        assert [(1, 4)] == [tensor.shape for tensor in tensors]
        answer = Tensor("p", "float32", (1, 3), np.array([0.5, 0.25, 0.25], np.float32).tobytes())
        return Inference(self.current.installed.digest, (answer,), 5.0)


class Description:
    """The OpenAPI document, and whether a value fits one of its schemas (the part of JSON Schema that it uses)."""

    def __init__(self, data: bytes) -> None:
        self.document = json.loads(data)

    def answer(self, path: str, method: str, status: int) -> Any:
        """Return the schema of an answer."""
        response = self.document["paths"][path][method]["responses"][str(status)]
        return response["content"]["application/json"]["schema"]

    def fits(self, value: Any, schema: dict[str, Any]) -> bool:
        """Tell whether ``value`` is what ``schema`` says."""
        if "$ref" in schema:
            return self.fits(value, self.document["components"]["schemas"][schema["$ref"].rpartition("/")[2]])
        if "const" in schema:
            return bool(value == schema["const"])
        if "enum" in schema:
            return value in schema["enum"]
        if "oneOf" in schema:
            return 1 == sum(self.fits(value, one) for one in schema["oneOf"])
        kinds = {"object": dict, "array": list, "string": str, "integer": int, "number": (int, float), "boolean": bool}
        if not isinstance(value, kinds[schema["type"]]):
            return False
        if schema["type"] == "object":
            known = schema["properties"]
            return set(schema["required"]) <= set(value) <= set(known) and all(
                self.fits(item, known[key]) for key, item in value.items()
            )
        if schema["type"] == "array":
            firsts = schema.get("prefixItems", [schema.get("items")] * len(value))
            return schema.get("minItems", 0) <= len(value) <= schema.get("maxItems", len(value)) and all(
                self.fits(item, one) for item, one in zip(value, firsts, strict=True)
            )
        return bool(schema.get("minimum", value) <= value <= schema.get("maximum", value))


@pytest.fixture
def description(tmp_path: Path) -> Description:
    """The description of the tiny model."""
    return Description(inference_api(tiny_contents(tmp_path / "tiny")))


@pytest.fixture
async def api(tmp_path: Path, description: Description) -> InferenceApi:
    """What the agent answers with, for the same model."""
    return InferenceApi(FakeServing(tmp_path / "tiny"), 2)  # type: ignore[arg-type]  # a fake


async def ask(api: InferenceApi, method: str, path: str, body: bytes = b"") -> Any:
    """Return what the agent answers, decoded."""
    response = await api.answer(Request(method, segments_of(path), {}, body))
    return json.loads(b"".join(response.parts))


async def test_every_path_answers_as_described(api: InferenceApi, description: Description) -> None:
    """All described paths are served, with answers of the described shape."""
    calls = {
        (path, method)
        for path, methods in description.document["paths"].items()
        for method in methods
        if not path.endswith("/infer")
    }
    assert 8 == len(calls)
    for path, method in calls:
        answer = await ask(api, method.upper(), path)
        assert description.fits(answer, description.answer(path, method, 200)), path


@pytest.mark.parametrize("path", ["/v2/models/tiny/infer", "/v2/models/tiny/versions/1/infer"])
async def test_the_example_is_answered_as_described(api: InferenceApi, description: Description, path: str) -> None:
    """What people copy works; the answer has the described outputs."""
    content = description.document["paths"][path]["post"]["requestBody"]["content"]["application/json"]
    request = content["example"] | {"id": "q", "parameters": {"timeout": 5_000_000}}
    assert description.fits(request, content["schema"])
    answer = await ask(api, "POST", path, json.dumps(request).encode())
    assert description.fits(answer, description.answer(path, "post", 200))
    assert [1, 3] == answer["outputs"][0]["shape"]


@pytest.mark.parametrize("change", [{"shape": [1, 5]}, {"name": "y"}, {"datatype": "INT8"}, {"shape": [2000, 4]}])
def test_what_does_not_fit_the_model_does_not_fit_the_description(
    change: dict[str, Any], description: Description
) -> None:
    """The description is of this model, not of any."""
    (example,) = description.document["paths"]["/v2/models/tiny/infer"]["post"]["requestBody"]["content"].values()
    (tensor,) = example["example"]["inputs"]
    assert not description.fits({"inputs": [tensor | change]}, example["schema"])


async def test_errors_are_described(api: InferenceApi, description: Description) -> None:
    """Each status that the agent gives here has a description."""
    answers = description.document["paths"]["/v2/models/tiny/infer"]["post"]["responses"]
    api._serving.current = None
    with pytest.raises(HttpError) as caught:
        await ask(api, "GET", "/v2/models/tiny")
    assert str(int(caught.value.status)) in answers
    assert {"400", "403", "404", "405", "413", "415", "421", "500", "503", "504"} == set(answers) - {"200"}


def test_names_and_limits_are_the_agents() -> None:
    """Two programs that do not import each other agree."""
    assert open_inference.DATATYPES == DATATYPES
    assert open_inference.MAX_ROWS == MAX_ROWS
