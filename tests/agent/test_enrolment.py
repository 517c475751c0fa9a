"""Enrolment over HTTP: whom a device believes, what it says when it does not, and what is left on the disk."""

from __future__ import annotations

import json
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from edgeopt_agent.credentials.enrolment import Order, enrol, renew
from edgeopt_agent.credentials.fleet_http import FleetHttp
from edgeopt_agent.credentials.identity import load_identity, load_renewal
from edgeopt_contract.codec import decode, encode
from edgeopt_contract.enrolment import EnrolRequest, EnrolResponse, EnrolToken, MqttAccess, RenewRequest
from edgeopt_contract.errors import EdgeoptError, StorageError, UnreachableError, UsageError
from edgeopt_contract.manifest import Capabilities
from edgeopt_fleet.ca import DeviceAuthority
from edgeopt_fleet.credentials import write_pair
from tests.agent.conftest import DEVICE, free_port

Answer = tuple[int, bytes]


@dataclass
class Server:
    """Answers like a fleet, unless it is told to answer something else; remembers what it was sent."""

    authority: DeviceAuthority
    directory: Path
    seconds: float = 86400
    device: str | None = None  # another one than asked for
    ca: str | None = None  # another one than its own
    instead: dict[str, Answer] = field(default_factory=dict)
    bodies: list[bytes] = field(default_factory=list)
    url: str = ""

    def answer(self, method: str, path: str, body: bytes) -> Answer:
        """Answer one request."""
        if path in self.instead:
            return self.instead[path]
        if (method, path) == ("GET", "/api/v1/ca"):
            return 200, (self.ca or self.authority.pem).encode()
        self.bodies.append(body)
        asked = decode(EnrolRequest if path.endswith("enrol") else RenewRequest, body)
        now = time.time()
        issued = self.authority.sign_device(asked.device, asked.csr, now=now, lifetime_seconds=self.seconds)
        response = EnrolResponse(
            device=self.device or asked.device,
            mqtt=MqttAccess(host="127.0.0.1", port=8883, tls=True),
            certificate=issued.pem,
            serial=issued.serial,
            valid_from=issued.valid_from,
            valid_until=issued.valid_until,
            ca=self.ca or self.authority.pem,
            bearer="bearer",
            root=f"root at {path}",
            reconnect_window_seconds=1,
        )
        return 201, encode(response)


def make_authority(directory: Path) -> DeviceAuthority:
    """Return a new CA below ``directory``."""
    directory.mkdir()
    DeviceAuthority.create(directory, time.time())
    return DeviceAuthority.load(directory)


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[..., Server]]:
    """Start a server with HTTPS (``tls`` names its certificate) or HTTP."""
    running = []

    def start(tls: Path | None = None) -> Server:
        server = Server(make_authority(tmp_path / "ca"), tmp_path)

        class Handler(BaseHTTPRequestHandler):
            def _answer(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                status, content = server.answer(self.command, self.path, body)
                self.send_response(status)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            do_GET = do_POST = _answer  # noqa: N815  # as http.server calls them

            def log_message(self, *_: object) -> None:
                pass

        class Quiet(ThreadingHTTPServer):
            def handle_error(self, *_: object) -> None:
                """A device that does not believe this server hangs up."""

        http = Quiet(("127.0.0.1", 0), Handler)
        if tls is not None:
            if not tls.exists():
                write_pair(tls, server.authority.make_server(["127.0.0.1"], time.time()))
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(tls)
            http.socket = context.wrap_socket(http.socket, server_side=True)
        threading.Thread(target=http.serve_forever, daemon=True).start()
        running.append(http)
        server.url = f"{'http' if tls is None else 'https'}://127.0.0.1:{http.server_address[1]}"
        return server

    yield start
    for http in running:
        http.shutdown()
        http.server_close()


def order(server: Server, capabilities: Capabilities, **changes: str) -> Order:
    """Return an enrolment with a token of this server."""
    fingerprint = changes.pop("fingerprint", server.authority.fingerprint)
    return Order(
        server=changes.pop("url", server.url),
        token=EnrolToken(secret=f"canary{'s' * 37}", fingerprint=fingerprint),
        device=changes.pop("device", DEVICE),
        tags={"site": "oslo"},
        capabilities=capabilities,
    )


@pytest.mark.parametrize("tls", [False, True])
def test_enrolment_sends_the_secret_and_keeps_the_answer(
    serve: Callable[..., Server], capabilities: Capabilities, tmp_path: Path, *, tls: bool
) -> None:
    """The fleet gets the token's secret, tags and capabilities; what is kept is what it answered."""
    server = serve(tmp_path / "server.pem" if tls else None)
    data = tmp_path / "new" / "device"
    identity = enrol(order(server, capabilities, url=f"{server.url}/"), data)
    assert identity == load_identity(data)
    assert (server.url, DEVICE) == (identity.server, identity.device)
    (body,) = server.bodies
    asked = decode(EnrolRequest, body)
    assert (f"canary{'s' * 37}", {"site": "oslo"}, capabilities) == (asked.token, dict(asked.tags), asked.capabilities)
    assert b"PRIVATE" not in body


def test_enrolling_again_keeps_the_identity(
    serve: Callable[..., Server], capabilities: Capabilities, tmp_path: Path
) -> None:
    """The same command twice asks once; another device, or another fleet's token, is refused unless --replace."""
    server, data = serve(), tmp_path / "device"
    first = enrol(order(server, capabilities), data)
    assert first == enrol(order(server, capabilities), data)
    assert 1 == len(server.bodies)
    for changes in ({"device": "cam-2"}, {"fingerprint": "0" * 64}):
        with pytest.raises(UsageError, match="holds the identity of cam-1 already"):
            enrol(order(server, capabilities, **changes), data)
    replaced = enrol(order(server, capabilities, device="cam-2"), data, replace=True)
    assert ("cam-2", replaced) == (load_identity(data).device, load_identity(data))


def test_the_token_is_not_sent_to_another_fleet(
    serve: Callable[..., Server], capabilities: Capabilities, tmp_path: Path
) -> None:
    """A fleet with another CA is noticed before it hears the secret; nothing is left on the disk but the lock."""
    server = serve(tmp_path / "server.pem")
    with pytest.raises(UsageError, match=r"is not the fleet that made this token.*was not sent"):
        enrol(order(server, capabilities, fingerprint="0" * 64), tmp_path / "device")
    assert [] == server.bodies
    assert ["identity.lock"] == [path.name for path in (tmp_path / "device").iterdir()]


def test_a_server_that_only_repeats_the_right_ca_is_not_believed(
    serve: Callable[..., Server], capabilities: Capabilities, tmp_path: Path
) -> None:
    """A man in the middle can show the true CA certificate, but has no server certificate of it."""
    stranger = make_authority(tmp_path / "stranger")
    write_pair(tmp_path / "server.pem", stranger.make_server(["127.0.0.1"], time.time()))
    server = serve(tmp_path / "server.pem")
    with pytest.raises(UnreachableError, match="not of the fleet's CA"):
        enrol(order(server, capabilities), tmp_path / "device")
    assert [] == server.bodies


@pytest.mark.parametrize(
    ("names", "made", "words"),
    [
        (["127.0.0.1"], 10 * 86400, r"not valid yet: this device's clock says \d{4}-\d\d-\d\d .* set the clock"),
        (["127.0.0.1"], -3 * 365 * 86400, "has expired: this device's clock says"),
        (["fleet.example"], 0, "for other names"),
    ],
)
def test_a_wrong_clock_and_a_wrong_name_are_told_apart(
    serve: Callable[..., Server], capabilities: Capabilities, tmp_path: Path, names: list[str], made: int, words: str
) -> None:
    """The message says which, and what to do. The certificate stands for the clock: it was made at another time."""
    server = serve(tmp_path / "server.pem")  # to have its CA; its own certificate is replaced
    pair = server.authority.make_server(names, time.time() + made)
    path = tmp_path / "other.pem"
    write_pair(path, pair)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(path)
    other = ThreadingHTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler)
    other.handle_error = lambda *_: None  # type: ignore[method-assign]  # the device hangs up
    other.socket = context.wrap_socket(other.socket, server_side=True)
    threading.Thread(target=other.serve_forever, daemon=True).start()
    fleet = FleetHttp.trusting(f"https://127.0.0.1:{other.server_address[1]}", server.authority.pem)
    try:
        with pytest.raises(UnreachableError, match=words):
            fleet.post("enrol", EnrolRequest(
                token="t", device=DEVICE, csr="-----BEGIN CERTIFICATE REQUEST-----", tags={}, capabilities=capabilities
            ))  # fmt: skip
    finally:
        other.shutdown()
        other.server_close()


PROBLEM = b'{"title": "Forbidden", "detail": "the token was used up by another device"}'


@pytest.mark.parametrize(
    ("instead", "error", "words"),
    [
        ({"/api/v1/devices/enrol": (403, PROBLEM)}, UsageError, "used up by another device"),
        ({"/api/v1/devices/enrol": (409, b'{"title": "the id is taken"}')}, UsageError, "the id is taken"),
        ({"/api/v1/devices/enrol": (503, b'{"detail": "the disk"}')}, UnreachableError, "cannot do this now"),
        ({"/api/v1/devices/enrol": (404, b"<html>nginx</html>")}, UnreachableError, "not like an edgeopt fleet"),
        ({"/api/v1/devices/enrol": (201, b"{}")}, UnreachableError, "not like an edgeopt fleet"),
        ({"/api/v1/devices/enrol": (201, b"x" * 200_000)}, UnreachableError, "not like an edgeopt fleet"),
        ({"/api/v1/ca": (200, b"<html>hello</html>")}, UnreachableError, "no CA certificate"),
        ({"/api/v1/ca": (404, b"[]")}, UnreachableError, "not like an edgeopt fleet"),
    ],
)
def test_refusals_and_strangers_leave_no_identity(
    serve: Callable[..., Server],
    capabilities: Capabilities,
    tmp_path: Path,
    instead: dict[str, Answer],
    error: type[Exception],
    words: str,
) -> None:
    """A fleet that refuses is a usage error with its words; anything else at that address is unreachable."""
    server = serve()
    server.instead = instead
    with pytest.raises(error, match=words):
        enrol(order(server, capabilities), tmp_path / "device")
    assert not (tmp_path / "device" / "device.json").exists()


@pytest.mark.parametrize(("attribute", "value", "words"), [("device", "cam-2", "got that of cam-2"), ("ca", "x", "CA")])
def test_an_answer_for_somebody_else_is_not_believed(
    serve: Callable[..., Server], capabilities: Capabilities, tmp_path: Path, attribute: str, value: str, words: str
) -> None:
    """Another device's identity, or one of another CA, is not kept, not even over plain HTTP."""
    server = serve()
    fleet_ca = server.authority.pem.encode()
    server.instead = {"/api/v1/ca": (200, fleet_ca)}
    setattr(server, attribute, value)
    with pytest.raises(UnreachableError, match=words):
        enrol(order(server, capabilities), tmp_path / "device")


@pytest.mark.parametrize(
    "url", ["fleet.example", "file:///etc/passwd", "ftp://fleet.example", "http://", "http://[::1"]
)
def test_address_must_be_http(
    serve: Callable[..., Server], capabilities: Capabilities, tmp_path: Path, url: str
) -> None:
    """Only HTTP and HTTPS are spoken."""
    with pytest.raises(UsageError, match="expected a server like"):
        enrol(order(serve(), capabilities, url=url), tmp_path)


def test_server_that_is_down_is_unreachable(
    serve: Callable[..., Server], capabilities: Capabilities, tmp_path: Path
) -> None:
    """No answer at all names the address."""
    with pytest.raises(UnreachableError, match=r"no fleet answers at http://127\.0\.0\.1"):
        enrol(order(serve(), capabilities, url=f"http://127.0.0.1:{free_port()}"), tmp_path)


def test_the_token_is_not_spent_when_the_answer_could_not_be_kept(
    serve: Callable[..., Server], capabilities: Capabilities, tmp_path: Path
) -> None:
    """A directory that cannot be made is noticed before the fleet is asked."""
    server = serve()
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match="cannot write"):
        enrol(order(server, capabilities), tmp_path / "file" / "device")
    assert [] == server.bodies


def test_without_an_identity_nothing_is_renewed(tmp_path: Path) -> None:
    """It is said that there is none, and a directory that was misspelt is not made."""
    with pytest.raises(UsageError, match=r"missing holds no device identity .* enroll"):
        renew(tmp_path / "missing", now=time.time())
    assert [] == list(tmp_path.iterdir())


def test_a_renewal_is_signed_by_the_old_key_and_waits_beside_it(
    serve: Callable[..., Server], capabilities: Capabilities, tmp_path: Path
) -> None:
    """New key, old root of trust; asked again it is the same, until it has expired itself."""
    server, data = serve(tmp_path / "server.pem"), tmp_path / "device"
    present = enrol(order(server, capabilities), data)
    renewed = renew(data, now=time.time())
    assert (present, renewed) == (load_identity(data), load_renewal(data))
    assert (present.access.root, True) == (renewed.access.root, present.key != renewed.key)
    assert renewed == renew(data, now=time.time())
    assert 2 == len(server.bodies)
    assert renewed.key == renew(data, now=renewed.access.valid_until + 1).key
    assert 3 == len(server.bodies)


def test_a_fleet_with_another_ca_cannot_renew(
    serve: Callable[..., Server], capabilities: Capabilities, tmp_path: Path
) -> None:
    """What counts is the CA of the enrolment; a damaged key says what to do."""
    server, data = serve(), tmp_path / "device"
    present = enrol(order(server, capabilities), data)
    server.ca = make_authority(tmp_path / "other").pem
    with pytest.raises(UnreachableError, match="another CA"):
        renew(data, now=time.time())
    assert load_renewal(data) is None
    (data / f"device-{present.key}.key").write_bytes(b"x")
    with pytest.raises(EdgeoptError, match="--replace"):
        renew(data, now=time.time())
    assert "canary" not in json.dumps([path.name for path in data.iterdir()])
