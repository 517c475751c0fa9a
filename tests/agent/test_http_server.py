"""The HTTP server beneath the inference API: what it reads, what it refuses, and what nobody can make grow."""

from __future__ import annotations

import asyncio
import gzip
import http.client
import json
import socket
import zlib
from collections.abc import AsyncIterator, Callable
from http import HTTPStatus
from pathlib import Path
from typing import Any

import pytest

from edgeopt_agent.http.messages import HttpError, HttpLimits, Request, Response, is_local_name, segments_of
from edgeopt_agent.http.server import HttpServer
from edgeopt_contract.errors import UsageError

LIMITS = HttpLimits(
    body_bytes=100_000,
    held_bytes=150_000,
    connections=4,
    head_seconds=0.3,
    body_seconds=0.3,
    write_seconds=0.3,
    idle_seconds=0.5,
)


class Echo:
    """Says how long the body was; waits while ``gate`` is closed."""

    def __init__(self) -> None:
        self.gate = asyncio.Event()
        self.gate.set()
        self.inside = 0
        self.cancelled = 0
        self.seen: list[Request] = []

    async def answer(self, request: Request) -> Response:
        """Answer, fail or refuse as the path says."""
        self.seen.append(request)
        self.inside += 1
        try:
            await self.gate.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        finally:
            self.inside -= 1
        match request.segments:
            case ["fail"]:
                raise ZeroDivisionError("secret")
            case ["refuse"]:
                raise HttpError(HTTPStatus.SERVICE_UNAVAILABLE, "later")
            case ["large"]:
                return Response(HTTPStatus.OK, (b"[", bytes(50_000_000), b"]"))
        return Response(HTTPStatus.OK, (b'{"bytes": ', str(len(request.body)).encode(), b"}"))


@pytest.fixture
async def echo() -> Echo:
    """What answers."""
    return Echo()


@pytest.fixture
async def server(echo: Echo) -> AsyncIterator[HttpServer]:
    """A server with small limits."""
    server = HttpServer(echo.answer, LIMITS)
    yield server
    await server.close()


@pytest.fixture
async def port(server: HttpServer) -> int:
    """Where it listens."""
    return await server.listen(0)


async def say(port: int, data: bytes, *, end: bool = False) -> bytes:
    """Send ``data`` and return everything that comes until the server closes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(data)
    if end:
        writer.write_eof()
    async with asyncio.timeout(10):
        answer = await reader.read()
    writer.close()
    return answer


def request(body: bytes = b"", *headers: str, path: str = "/x", version: str = "1.1", length: bool = True) -> bytes:
    """Return a POST that asks for the connection to be closed."""
    lines = [f"POST {path} HTTP/{version}", "Host: localhost", "Connection: close", *headers]
    if length:
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def status_of(answer: bytes) -> int:
    """Return the status of the first answer."""
    return int(answer.split(b" ", 2)[1])


async def until(probe: Callable[[], Any]) -> None:
    """Wait until ``probe`` is true."""
    async with asyncio.timeout(10):
        while not probe():  # noqa: ASYNC110  # there is no event for what a test looks at
            await asyncio.sleep(0.002)


async def test_connection_is_kept_for_the_next_request(port: int) -> None:
    """Requests follow each other on one connection, also when they are sent at once."""
    one = b"POST /x HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3\r\n\r\nabc"
    answer = await say(port, one + one + request(b"defg"))
    assert [b'{"bytes": 3}', b'{"bytes": 3}', b'{"bytes": 4}'] == [
        part.split(b"\r\n\r\n")[1] for part in answer.split(b"HTTP/1.1 200 OK")[1:]
    ]


@pytest.mark.parametrize("size", [0, 1, 65_535, 65_536, 100_000])
async def test_body_comes_whole_however_it_is_cut(port: int, echo: Echo, size: int) -> None:
    """Bodies arrive byte for byte in one piece, in small pieces, and in chunks."""
    body = bytes(i * 7 % 251 for i in range(size))
    assert 200 == status_of(await say(port, request(body)))
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    whole = request(body)
    for start in range(0, len(whole), 30_000):
        writer.write(whole[start : start + 30_000])
        await asyncio.sleep(0)
    assert 200 == status_of(await reader.read())
    writer.close()
    chunks = b"".join(b"%x\r\n%s\r\n" % (len(c), c) for c in (body[:500], body[500:]) if c) + b"0\r\n\r\n"
    assert 200 == status_of(await say(port, request(b"", "Transfer-Encoding: chunked", length=False) + chunks))
    assert [body] * 3 == [bytes(seen.body) for seen in echo.seen]


@pytest.mark.parametrize(("name", "pack"), [("gzip", gzip.compress), ("deflate", zlib.compress)])
async def test_packed_body_is_unpacked(port: int, echo: Echo, name: str, pack: Callable[[bytes], bytes]) -> None:
    """What clients compress arrives as it was."""
    assert 200 == status_of(await say(port, request(pack(b"abc" * 99), f"Content-Encoding: {name}")))
    assert b"abc" * 99 == bytes(echo.seen[0].body)


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (request(bytes(100_001)), 413),
        (request(b"", "Content-Length: 99999999999999999999", length=False), 413),
        (request(b"", "Content-Length: -1", length=False), 400),
        (request(b"", "Transfer-Encoding: chunked", length=False) + b"%x\r\n" % 100_001 + bytes(100_001), 413),
        (request(b"", "Transfer-Encoding: chunked", length=False) + b"zz\r\n", 400),
        (request(b"", "Transfer-Encoding: gzip", length=False), 501),
        (request(gzip.compress(bytes(5_000_000)), "Content-Encoding: gzip"), 413),
        (request(gzip.compress(b"abc")[:-4], "Content-Encoding: gzip"), 400),
        (request(gzip.compress(b"abc") + b"more", "Content-Encoding: gzip"), 400),
        (request(b"no gzip", "Content-Encoding: gzip"), 400),
        (request(b"abc", "Content-Encoding: br"), 415),
        (request(b"", f"X-Long: {'a' * 70_000}"), 431),
        (request(b"", path="/%ff"), 400),
        (b"\x16\x03\x01\x02\x00\x01\x00", 400),
        (b"GET / HTTP/1.1\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\nHost: evil\r\n\r\n", 400),
        (request(path="/fail"), 500),
        (request(path="/refuse"), 503),
    ],
)  # fmt: skip
async def test_refusal_has_its_status_and_a_reason(port: int, data: bytes, status: int) -> None:
    """Each is answered with a JSON error, and the server goes on."""
    answer = await say(port, data)
    assert status == status_of(answer)
    reason = json.loads(answer.partition(b"\r\n\r\n")[2])["error"]
    assert reason
    assert "secret" not in reason
    assert (status == 503) == (b"retry-after" in answer.lower())
    assert 200 == status_of(await say(port, request(b"abc")))


@pytest.mark.parametrize(
    ("header", "status"),
    [
        ("Host: 127.0.0.1:8080", 200),
        ("Host: [::1]:9", 200),
        ("Host: LOCALHOST", 200),
        ("Host: evil.example", 421),
        ("Host: 127.0.0.1.evil.example:80", 421),
        ("Host: ", 421),
        ("Host: localhost\r\nOrigin: http://localhost:3000", 200),
        ("Host: localhost\r\nOrigin: http://evil.example", 403),
        ("Host: localhost\r\nOrigin: null", 403),
    ],
)
async def test_a_web_page_cannot_reach_it(port: int, header: str, status: int) -> None:
    """A name that an attacker points at 127.0.0.1 is refused, and so is a page from elsewhere."""
    assert status == status_of(await say(port, f"GET / HTTP/1.1\r\n{header}\r\nConnection: close\r\n\r\n".encode()))


async def test_old_http_is_answered_and_closed(port: int) -> None:
    """HTTP/1.0 needs no host and keeps no connection."""
    answer = await say(port, b"POST /x HTTP/1.0\r\nContent-Length: 2\r\n\r\nab")
    assert (200, True) == (status_of(answer), answer.endswith(b'{"bytes": 2}'))


async def test_expectation_is_met_only_for_what_will_be_read(port: int) -> None:
    """A caller that asks first is told to go on, or refused before it sends."""
    good = await say(port, request(b"abc", "Expect: 100-continue"))
    assert good.startswith(b"HTTP/1.1 100")
    assert b"HTTP/1.1 200" in good
    head = request(b"", "Expect: 100-continue", "Content-Length: 200000", length=False)
    assert (await say(port, head)).startswith(b"HTTP/1.1 413")


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"POST /x HT",
        request(b"", "Content-Length: 9", length=False) + b"abc",
        b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",  # and then nothing more
    ],
)
async def test_a_slow_caller_is_dropped(port: int, server: HttpServer, data: bytes) -> None:
    """Whoever stops in the middle, or never begins, does not hold a connection for ever."""
    await say(port, data)
    await until(lambda: not server._connections)
    assert 0 == server._held_bytes


async def test_a_caller_that_drips_is_dropped(port: int) -> None:
    """One byte at a time does not buy more time for a head."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    dropped = asyncio.create_task(reader.read())
    async with asyncio.timeout(10):
        while not dropped.done():
            writer.write(b"G")
            await asyncio.sleep(0.01)
    await asyncio.gather(dropped, return_exceptions=True)
    writer.close()


async def test_a_caller_that_does_not_read_is_dropped(port: int, server: HttpServer) -> None:
    """A large answer that nobody takes is thrown away."""
    _, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(request(path="/large"))
    await until(lambda: server._connections)
    await until(lambda: not server._connections)
    writer.close()


async def test_too_many_connections_are_refused(port: int, server: HttpServer, echo: Echo) -> None:
    """The fifth of four is told so; when one leaves there is room again."""
    echo.gate.clear()
    waiting = [asyncio.create_task(say(port, request(b"abc"))) for _ in range(4)]
    await until(lambda: echo.inside == 4)
    assert 503 == status_of(await say(port, b""))
    echo.gate.set()
    assert [200] * 4 == [status_of(answer) for answer in await asyncio.gather(*waiting)]
    await until(lambda: not server._connections)
    assert 200 == status_of(await say(port, request(b"abc")))


async def test_bodies_together_are_bounded(port: int, server: HttpServer, echo: Echo) -> None:
    """Two bodies of 100,000 bytes do not fit into 150,000; the second is told to try again, and then it fits."""
    echo.gate.clear()
    first = asyncio.create_task(say(port, request(bytes(100_000))))
    await until(lambda: echo.inside)
    assert 503 == status_of(await say(port, request(bytes(100_000))))
    echo.gate.set()
    assert 200 == status_of(await first)
    assert 200 == status_of(await say(port, request(bytes(100_000))))
    assert 0 == server._held_bytes


async def test_caller_that_vanishes_is_not_answered(port: int, server: HttpServer, echo: Echo) -> None:
    """What was being answered is cancelled, and nothing is held for it."""
    echo.gate.clear()
    _, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(request(bytes(1000)))
    await until(lambda: echo.inside)
    writer.close()
    await until(lambda: echo.cancelled)
    assert (0, 0) == (echo.inside, server._held_bytes)


async def test_flood_of_early_bytes_is_bounded(port: int, server: HttpServer, echo: Echo) -> None:
    """What a caller sends before it has its answer waits in the socket, not in memory."""
    echo.gate.clear()
    _, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(request(b"abc") + bytes(20_000_000))
    await until(lambda: echo.inside)
    (connection,) = server._connections
    await until(lambda: len(connection._early) > 65_536)
    for _ in range(20):
        await asyncio.sleep(0)
    assert 200_000 > len(connection._early)
    writer.transport.abort()


async def test_unix_socket_is_the_users_own(server: HttpServer, tmp_path: Path) -> None:
    """Mode 0600, any host name; a socket left by a killed agent is replaced; it is gone after the end."""
    path = tmp_path / "s"
    left = socket.socket(socket.AF_UNIX)
    left.bind(str(path))
    left.close()
    await server.listen_unix(path)
    assert 0o600 == path.stat().st_mode & 0o777
    reader, writer = await asyncio.open_unix_connection(str(path))
    writer.write(b"GET /x HTTP/1.1\r\nHost: any\r\nConnection: close\r\n\r\n")
    assert 200 == status_of(await reader.read())
    writer.close()
    await server.close()
    assert not path.exists()


async def test_path_that_is_no_socket_is_left_alone(server: HttpServer, tmp_path: Path) -> None:
    """A file is never taken for a socket, and a path that is too long is explained."""
    (tmp_path / "file").write_text("mine")
    with pytest.raises(UsageError, match="is not a socket"):
        await server.listen_unix(tmp_path / "file")
    with pytest.raises(UsageError, match="107"):
        await server.listen_unix(tmp_path / ("a" * 150))
    assert "mine" == (tmp_path / "file").read_text()


async def test_pair_may_be_silent_and_then_ask(server: HttpServer) -> None:
    """One end of a socket pair has no idle limit."""
    ours, theirs = socket.socketpair()
    await server.adopt(ours)
    (connection,) = server._connections
    assert connection._timer is None
    client = http.client.HTTPConnection("localhost", timeout=10)
    client.sock = theirs

    def ask() -> int:
        client.request("POST", "/x", b"abc")
        answer = client.getresponse()
        answer.read()
        return answer.status

    assert [200, 200] == [await asyncio.to_thread(ask) for _ in range(2)]
    await until(lambda: connection._timer is None)
    client.close()


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        ("/v2/models/a%2Fb/infer?x=/y", ("v2", "models", "a/b", "infer")),
        ("//v2///", ("v2",)),
        ("/", ()),
        ("*", ("*",)),
        ("http://localhost:1/v2?x", ("v2",)),
        ("/a?u=http://b", ("a",)),
        ("/%C3%A6", ("æ",)),
    ],
)
def test_path_is_decoded_part_by_part(target: str, expected: tuple[str, ...]) -> None:
    """A slash inside a name stays inside."""
    assert expected == segments_of(target)


@pytest.mark.parametrize(
    ("name", "local"),
    [("localhost", True), ("localhost:80", True), ("[::1]", True), ("[::1]:80", True), ("", False), ("::1", False)],
)
def test_names_of_this_machine(name: str, local: bool) -> None:  # noqa: FBT001  # a table
    """With and without a port."""
    assert local == is_local_name(name)
