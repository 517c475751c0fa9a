"""Enrolment over HTTP: what the fleet says, what something else says, and what is left on the disk."""

from __future__ import annotations

import json
import stat
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from edgeopt_agent.identity import enrol, load_identity
from edgeopt_contract.codec import decode, encode
from edgeopt_contract.errors import StorageError, UnreachableError, UsageError
from edgeopt_contract.manifest import Capabilities
from edgeopt_contract.messages import EnrolRequest, EnrolResponse, MqttAccess
from tests.agent.conftest import DEVICE, Signer, free_port, write_identity

ServeFleet = Callable[[int, bytes], str]


@pytest.fixture
def request_(capabilities: Capabilities) -> EnrolRequest:
    """What a device sends."""
    return EnrolRequest(token="once", device=DEVICE, tags={"site": "oslo"}, capabilities=capabilities)


@pytest.fixture
def response(signer: Signer) -> EnrolResponse:
    """What a fleet answers."""
    access = MqttAccess(host="10.0.0.1", port=1883, username=DEVICE, password="hunter2")
    return EnrolResponse(device=DEVICE, mqtt=access, keys=(signer.public,), reconnect_window_seconds=1)


@pytest.fixture
def bodies() -> list[bytes]:
    """What the server was sent."""
    return []


@pytest.fixture
def serve(bodies: list[bytes]) -> Iterator[ServeFleet]:
    """Start a server that always gives one answer; returns its address."""
    servers = []

    def start(status: int, answer: bytes) -> str:
        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                assert "/api/v1/devices/enrol" == self.path
                bodies.append(self.rfile.read(int(self.headers["Content-Length"])))
                self.send_response(status)
                self.send_header("Content-Length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            def log_message(self, *_: object) -> None:
                pass

        server = HTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        return f"http://127.0.0.1:{server.server_address[1]}"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def test_enrolment_is_kept_for_the_owner_alone(
    serve: ServeFleet, bodies: list[bytes], request_: EnrolRequest, response: EnrolResponse, tmp_path: Path
) -> None:
    """The answer is kept with mode 0600 and comes back; the fleet got token, tags and capabilities."""
    data = tmp_path / "new" / "device"
    assert response == enrol(serve(201, encode(response)) + "/", request_, data)
    assert response == load_identity(data)
    assert 0o600 == stat.S_IMODE((data / "device.json").stat().st_mode)
    assert ["device.json"] == [path.name for path in data.iterdir()]
    assert request_ == decode(EnrolRequest, bodies[0])


@pytest.mark.parametrize(
    ("answer", "error", "reason"),
    [
        ((403, b'{"title": "Forbidden", "detail": "the token was used"}'), UsageError, "the token was used"),
        ((409, b'{"title": "the id is taken"}'), UsageError, "the id is taken"),
        ((503, b'{"detail": "the database is locked"}'), UnreachableError, "cannot enrol now"),
        ((404, b"<html>nginx</html>"), UnreachableError, "not like an edgeopt fleet"),
        ((404, b"[]"), UnreachableError, "not like an edgeopt fleet"),
        ((200, b"<html>hello</html>"), UnreachableError, "not like an edgeopt fleet"),
        ((200, b"{}"), UnreachableError, "not like an edgeopt fleet"),
        ((200, b"x" * 100_000), UnreachableError, "not like an edgeopt fleet"),
    ],
)
def test_refusals_and_strangers_leave_nothing(
    serve: ServeFleet,
    request_: EnrolRequest,
    tmp_path: Path,
    answer: tuple[int, bytes],
    error: type[Exception],
    reason: str,
) -> None:
    """A fleet that refuses is a usage error with its words; anything else at that address is unreachable."""
    with pytest.raises(error, match=reason):
        enrol(serve(*answer), request_, tmp_path)
    assert [] == list(tmp_path.iterdir())


def test_server_that_is_down_is_unreachable(request_: EnrolRequest, tmp_path: Path) -> None:
    """No answer at all names the address."""
    with pytest.raises(UnreachableError, match=r"no fleet answers at http://127\.0\.0\.1"):
        enrol(f"http://127.0.0.1:{free_port()}", request_, tmp_path)


def test_identity_of_another_device_is_refused(
    serve: ServeFleet, request_: EnrolRequest, response: EnrolResponse, tmp_path: Path
) -> None:
    """A server that answers for somebody else is not believed."""
    other = json.loads(encode(response)) | {"device": "cam-2"}
    with pytest.raises(UnreachableError, match="got that of cam-2"):
        enrol(serve(201, json.dumps(other).encode()), request_, tmp_path)


@pytest.mark.parametrize("server", ["fleet.example", "file:///etc/passwd", "ftp://fleet.example"])
def test_address_must_be_http(request_: EnrolRequest, tmp_path: Path, server: str) -> None:
    """Only HTTP and HTTPS are spoken."""
    with pytest.raises(UsageError, match="expected a server like"):
        enrol(server, request_, tmp_path)


def test_token_is_not_spent_when_it_could_not_be_kept(
    serve: ServeFleet, bodies: list[bytes], request_: EnrolRequest, response: EnrolResponse, tmp_path: Path
) -> None:
    """A directory that cannot be made is noticed before the fleet is asked."""
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match="cannot write"):
        enrol(serve(201, encode(response)), request_, tmp_path / "file" / "device")
    assert [] == bodies


def test_enrolled_device_is_not_enrolled_again(
    serve: ServeFleet, bodies: list[bytes], request_: EnrolRequest, signer: Signer, tmp_path: Path
) -> None:
    """A second enrolment would orphan the first identity."""
    write_identity(tmp_path / "device", signer, 1)
    with pytest.raises(UsageError, match="holds the identity of cam-1 already"):
        enrol(serve(201, b""), request_, tmp_path / "device")
    assert [] == bodies


def test_damaged_or_missing_identity_is_said(tmp_path: Path) -> None:
    """What to do stands in the message."""
    with pytest.raises(UsageError, match="edgeopt-agent enroll"):
        load_identity(tmp_path)
    (tmp_path / "device.json").write_bytes(b"{")
    with pytest.raises(UsageError, match="enrol again"):
        load_identity(tmp_path)
