"""The description of what a device answers: OpenAPI 3.1 for the Open Inference Protocol (V2, JSON) of one model.

It describes what the agent serves (``docs/guides/device.md``), with this model's own tensors in place of the
protocol's generic ones, so that generated clients know names, shapes and types. Pure: dictionaries in, bytes out. The
protocol: https://kserve.github.io/website/docs/concepts/architecture/data-plane/v2-protocol. Example::

    inference_api(contents)          # bytes of inference_api.json
"""

from __future__ import annotations

import math
from typing import Any
from urllib.parse import quote

import msgspec

from edgeopt_contract.bundle import BundleContents
from edgeopt_contract.manifest import TensorSpec
from edgeopt_contract.values import canonical_json

__all__ = ["DATATYPES", "MAX_ROWS", "inference_api"]

MAX_ROWS = 1024  # of one request, as the agent allows
DATATYPES = {
    "bool": "BOOL", "uint8": "UINT8", "uint16": "UINT16", "uint32": "UINT32", "uint64": "UINT64", "int8": "INT8",
    "int16": "INT16", "int32": "INT32", "int64": "INT64", "float16": "FP16", "float32": "FP32", "float64": "FP64",
    "bfloat16": "BF16",
}  # fmt: skip
_EXAMPLE_VALUES = 64  # longer examples hide what they show
_ERRORS = {
    "400": "The body is not an inference request, or the inputs do not fit the model.",
    "403": "The request came from a web page of another origin.",
    "404": "This device serves another model, or another version.",
    "405": "This path wants another method.",
    "413": "The body is larger than the device takes.",
    "415": "The body is packed by something else than gzip or deflate.",
    "421": "The host is not a name of this device.",
    "500": "The model did not answer, or gave NaN, which JSON cannot carry.",
    "503": "No model is installed yet, or too many requests wait: try again after Retry-After seconds.",
    "504": "No answer within the request's timeout.",
}


def inference_api(contents: BundleContents) -> bytes:
    """Return the description as indented JSON; equal ``contents`` give equal bytes."""
    return msgspec.json.format(canonical_json(_document(contents)), indent=2) + b"\n"


def _document(contents: BundleContents) -> dict[str, Any]:
    model = f"/v2/models/{quote(contents.name, safe='')}"
    version = f"{model}/versions/{quote(contents.version, safe='')}"
    return {
        "openapi": "3.1.0",
        "info": {
            "title": f"Inference with {contents.name}",
            "version": contents.version,
            "description": "The Open Inference Protocol (V2), as edgeopt-agent serves it on --source http:PORT. "
            "Binary tensors (binary_tensor_data) are served too; this document describes JSON.",
        },
        "servers": [
            {
                "url": "http://127.0.0.1:{port}",
                "variables": {"port": {"default": "8080", "description": "PORT of --source"}},
            }
        ],
        "paths": {
            "/v2": {"get": _get("server", "What serves.", _ref("Server"), errors=())},
            "/v2/health/live": {"get": _get("live", "Whether the agent runs.", _flag("live"), errors=())},
            "/v2/health/ready": {"get": _get("ready", "Whether a model is served.", _flag("ready"), errors=("503",))},
            "/v2/repository/index": {"post": _get("index", "What is served.", _ref("Index"), errors=())},
            **_model_paths(contents, model, ""),
            **_model_paths(contents, version, "OfVersion"),
        },
        "components": {"schemas": _schemas(contents)},
    }


def _model_paths(contents: BundleContents, path: str, suffix: str) -> dict[str, Any]:
    ready, metadata = "Whether this model is served.", "The model's tensors."
    return {
        path: {"get": _get(f"metadata{suffix}", metadata, _ref("Metadata"), errors=("404", "503"))},
        f"{path}/ready": {"get": _get(f"modelReady{suffix}", ready, _ref("ModelReady"), errors=("404", "503"))},
        f"{path}/infer": {"post": _infer(contents, suffix)},
    }


def _get(operation: str, summary: str, schema: dict[str, Any], errors: tuple[str, ...]) -> dict[str, Any]:
    return {"operationId": operation, "summary": summary, "responses": _responses(schema, errors)}


def _infer(contents: BundleContents, suffix: str) -> dict[str, Any]:
    return {
        "operationId": f"infer{suffix}",
        "summary": f"Answer 1 to {MAX_ROWS} rows.",
        "requestBody": {"required": True, "content": {"application/json": _request_content(contents)}},
        "responses": _responses(_ref("InferenceResponse"), tuple(_ERRORS)),
    }


def _request_content(contents: BundleContents) -> dict[str, Any]:
    content: dict[str, Any] = {"schema": _ref("InferenceRequest")}
    if sum(math.prod(spec.shape) for spec in contents.inputs) <= _EXAMPLE_VALUES:
        tensors = [
            {
                "name": spec.name,
                "shape": [1, *spec.shape],
                "datatype": _datatype(spec),
                "data": [False if spec.dtype == "bool" else 0] * math.prod(spec.shape),
            }
            for spec in contents.inputs
        ]
        content["example"] = {"inputs": tensors}
    return content


def _responses(schema: dict[str, Any], errors: tuple[str, ...]) -> dict[str, Any]:
    good = {"200": {"description": "The answer.", "content": {"application/json": {"schema": schema}}}}
    bad: dict[str, Any] = {
        code: {"description": _ERRORS[code], "content": {"application/json": {"schema": _ref("Error")}}}
        for code in errors
    }
    if "503" in bad:
        bad["503"]["headers"] = {"Retry-After": {"schema": {"type": "integer"}}}
    return {**good, **bad}


def _schemas(contents: BundleContents) -> dict[str, Any]:
    text, true = {"type": "string"}, {"const": True}
    return {
        "Server": _record(
            {"name": {"const": "edgeopt-agent"}, "version": text, "extensions": {"type": "array", "items": text}}
        ),
        "Index": {
            "type": "array",
            "items": _record({"name": text, "version": text, "state": {"enum": ["READY", "LOADING"]}, "reason": text}),
        },
        "ModelReady": _record({"name": {"const": contents.name}, "ready": true}),
        "Metadata": _record(
            {
                "name": {"const": contents.name},
                "versions": {"type": "array", "items": text},
                "platform": text,
                "inputs": _tuple([_metadata(spec) for spec in contents.inputs]),
                "outputs": _tuple([_metadata(spec) for spec in contents.outputs]),
            }
        ),
        "InferenceRequest": _record(
            {
                "inputs": _one_of_each(contents.inputs),
                "id": text,
                "parameters": _record({"timeout": {"type": "integer", "minimum": 0}}, optional=("timeout",)),
            },
            optional=("id", "parameters"),
        ),
        "InferenceResponse": _record(
            {
                "model_name": {"const": contents.name},
                "model_version": text,
                "id": text,
                "parameters": _record({"bundle": text, "microseconds": {"type": "number"}}),
                "outputs": _one_of_each(contents.outputs),
            },
            optional=("id",),
        ),
        "Error": _record({"error": text}),
    }


def _one_of_each(specs: tuple[TensorSpec, ...]) -> dict[str, Any]:
    return {
        "type": "array",
        "minItems": len(specs),
        "maxItems": len(specs),
        "items": {"oneOf": [_tensor(spec) for spec in specs]},
    }


def _tensor(spec: TensorSpec) -> dict[str, Any]:
    """Describe a tensor with its batch dimension; ``data`` is flat, in row-major order."""
    value = {"type": "boolean"} if spec.dtype == "bool" else {"type": "number" if "float" in spec.dtype else "integer"}
    rows = {"type": "integer", "minimum": 1, "maximum": MAX_ROWS}
    return _record(
        {
            "name": {"const": spec.name},
            "datatype": {"const": _datatype(spec)},
            "shape": _tuple([rows, *({"const": size} for size in spec.shape)]),
            "data": {"type": "array", "items": value},
        }
    )


def _metadata(spec: TensorSpec) -> dict[str, Any]:
    return _record(
        {
            "name": {"const": spec.name},
            "datatype": {"const": _datatype(spec)},
            "shape": {"const": [-1, *spec.shape]},
        }
    )


def _datatype(spec: TensorSpec) -> str:
    return DATATYPES.get(spec.dtype, spec.dtype.upper())


def _record(properties: dict[str, Any], optional: tuple[str, ...] = ()) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": sorted(set(properties) - set(optional)),
    }


def _tuple(items: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the schema of a list with these very items (JSON Schema 2020-12, section 10.3.1.1)."""
    return {"type": "array", "prefixItems": items, "minItems": len(items), "maxItems": len(items)}


def _flag(name: str) -> dict[str, Any]:
    return _record({name: {"const": True}})


def _ref(name: str) -> dict[str, Any]:
    return {"$ref": f"#/components/schemas/{name}"}
