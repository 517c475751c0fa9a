"""The OpenAPI description of the API, with what FastAPI does not know: who may call, and what problems look like.

Example::

    describe_api(app)["paths"]["/api/v1/devices"]["get"]["operationId"]      # 'listDevices'
"""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from edgeopt_fleet.api.views import Problem
from edgeopt_fleet.rights import Caller, least_for

__all__ = ["METHODS", "describe_api"]

METHODS = ("get", "put", "post", "delete", "patch")
_SCHEMES = {
    "operatorKey": {"type": "http", "scheme": "bearer", "description": "the key of a user, as in operator.json"},
    "deviceBearer": {"type": "http", "scheme": "bearer", "description": "the bearer of a device's identity"},
}
_TAGS = {
    "devices": "What the fleet consists of, and what its devices say.",
    "cohorts": "Saved filters over devices, as targets of rollouts.",
    "tokens": "One-time tokens with which devices enrol.",
    "identities": "Enrolment, renewal and revocation of devices.",
    "bundles": "Models, signed and cut into blocks.",
    "downloads": "What devices fetch over HTTP.",
    "tuf": "The metadata that devices verify bundles with.",
    "rollouts": "Bringing a bundle to a cohort in waves, and back.",
    "gate": "What the gate saw, and why it said what it said.",
    "shadows": "Challengers that run beside what serves, and how they agree with it.",
    "alerts": "What wants somebody's attention.",
    "events": "Live views.",
    "users": "People, their roles and their keys.",
    "audit": "Who did what, in a chain that cannot be changed unnoticed.",
    "operations": "Health, readiness, metrics.",
}


def describe_api(app: FastAPI) -> dict[str, Any]:
    """Return the description of ``app``'s routes."""
    schema = get_openapi(
        title=app.title,
        version=app.version,
        summary=app.summary,
        description=app.description,
        routes=app.routes,
        tags=[{"name": name, "description": text} for name, text in _TAGS.items()],
    )
    components = schema.setdefault("components", {})
    components.setdefault("schemas", {})["Problem"] = Problem.model_json_schema()
    components["securitySchemes"] = _SCHEMES
    for path, operations in schema["paths"].items():
        for method, operation in operations.items():
            _say_who(method.upper(), path, operation)
    return schema


def _say_who(method: str, path: str, operation: dict[str, Any]) -> None:
    """Add the least role to an operation, and leave out the refusals that it cannot answer with."""
    least = least_for(method, path)
    if least is Caller.ANYONE:
        operation["security"] = []
    else:
        operation["security"] = [{"deviceBearer" if least is Caller.DEVICE else "operatorKey": []}]
        operation["x-least-role"] = str(least)
