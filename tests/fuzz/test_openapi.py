"""Whatever the OpenAPI allows, and much that it does not, against a served fleet: every answer is one it declares."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator

import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, settings
from schemathesis.checks import not_a_server_error
from schemathesis.config import SchemathesisConfig
from schemathesis.specs.openapi.checks import (
    allow_header_conformance,
    content_type_conformance,
    missing_required_header,
    negative_data_rejection,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
    unsupported_method,
    use_after_free,
)

from edgeopt_fleet.api.app import create_app
from tests.fuzz.conftest import Served

pytestmark = pytest.mark.fuzz

EXAMPLES = int(os.environ.get("EDGEOPT_FUZZ_EXAMPLES", "3"))  # of each operation and role; hundreds for a long night
CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
    response_headers_conformance,
    negative_data_rejection,
    missing_required_header,
    unsupported_method,
    allow_header_conformance,
    use_after_free,
]
SETTINGS = settings(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize="EDGEOPT_FUZZ_EXAMPLES" not in os.environ,
    database=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)
OPENAPI = create_app(None).openapi()  # type: ignore[arg-type]  # its description only
SCHEMA = schemathesis.openapi.from_dict(OPENAPI)
DRAWN = schemathesis.openapi.from_dict(  # without the cases that cover each constraint: rights come before all of them
    OPENAPI, config=SchemathesisConfig.from_dict({"phases": {"coverage": {"enabled": False}}})
)
SEEN: Counter[str] = Counter()


@pytest.fixture(scope="module")
def session() -> Iterator[requests.Session]:
    """Keep connections, and close them."""
    with requests.Session() as session:
        yield session
    print(f"\nanswers as declared, by class of status: {dict(sorted(SEEN.items()))}")


def ask(case: schemathesis.Case, served: Served, session: requests.Session, key: str) -> int:
    """Send one request with a key and check the answer against the OpenAPI; return its status."""
    if case.operation.path == "/api/v1/events":
        case.query = {**(case.query or {}), "seconds": 0}  # the others would stay for a quarter of an hour
    headers = {"Authorization": f"Bearer {key}"}
    response = case.call(base_url=served.url, session=session, headers=headers, timeout=30)
    case.validate_response(response, checks=CHECKS, headers=headers)
    SEEN[f"{response.status_code // 100}xx"] += 1
    return int(response.status_code)


@SCHEMA.parametrize()
@SETTINGS
def test_an_admin_is_answered_as_declared(case: schemathesis.Case, served: Served, session: requests.Session) -> None:
    """Status, content type, headers and body are those of the OpenAPI, whatever is sent; what is wrong is refused."""
    ask(case, served, session, served.admin)


@DRAWN.parametrize()
@SETTINGS
def test_somebody_without_rights_is_answered_as_declared(
    case: schemathesis.Case, served: Served, session: requests.Session
) -> None:
    """A viewer sees, and is refused as declared where more is needed; nobody is let in with a wrong key."""
    ask(case, served, session, served.viewer)
    status = ask(case, served, session, "wrong")
    assert status == 401 or not case.operation.definition.raw.get("security")
