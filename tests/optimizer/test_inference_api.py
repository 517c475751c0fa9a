"""The description of the inference API is what the agent serves: the agent's own answers are held against it."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from edgeopt.inference_api import DATATYPES, MAX_ROWS, inference_api
from edgeopt_agent import http_api
from edgeopt_agent.http_server import HttpError
from edgeopt_agent.serving import Inference
from edgeopt_contract.bundle import read_manifest
from tests.optimizer.runs import tiny_contents


class FakeServing:
    """A model that gives the same probabilities for each row."""

    def __init__(self, directory: Path) -> None:
        manifest, _ = read_manifest(directory)
        self.current: Any = SimpleNamespace(installed=SimpleNamespace(manifest=manifest, variant=manifest.variants[0]))

    async def infer(self, inputs: dict[str, np.ndarray]) -> Inference:
        """Answer one row."""
        assert (4,) == inputs["x"].shape
        return Inference("ab" * 32, {"p": np.array([0.5, 0.25, 0.25], np.float32)}, 5.0)


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
async def api(tmp_path: Path, description: Description) -> Any:
    """What the agent answers with, for the same model."""
    return http_api._Api(FakeServing(tmp_path / "tiny"), asyncio.get_running_loop(), 2)  # type: ignore[arg-type]


async def test_every_get_answers_as_described(api: Any, description: Description) -> None:
    """All described paths are served, with answers of the described shape."""
    paths = [path for path, calls in description.document["paths"].items() if "get" in calls]
    assert 5 == len(paths)
    for path in paths:
        answer = api.get(path.strip("/").split("/"))
        assert description.fits(answer, description.answer(path, "get", 200)), path


async def test_the_example_is_answered_as_described(api: Any, description: Description) -> None:
    """What people copy works; the answer has the described outputs."""
    path = "/v2/models/tiny/infer"
    content = description.document["paths"][path]["post"]["requestBody"]["content"]["application/json"]
    request = content["example"] | {"id": "q"}
    assert description.fits(request, content["schema"])
    answer = await asyncio.to_thread(api.post, path.strip("/").split("/"), json.dumps(request).encode())
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


async def test_errors_are_described(api: Any, description: Description) -> None:
    """Each status that the agent gives here has a description."""
    answers = description.document["paths"]["/v2/models/tiny/infer"]["post"]["responses"]
    api._serving.current = None
    with pytest.raises(HttpError) as caught:
        api.get(["v2", "models", "tiny"])
    assert str(int(caught.value.status)) in answers
    assert {"400", "404", "411", "413", "500", "503"} == set(answers) - {"200"}


def test_names_and_limits_are_the_agents() -> None:
    """Two programs that do not import each other agree."""
    assert http_api._DATATYPES == DATATYPES
    assert http_api._MAX_ROWS == MAX_ROWS
