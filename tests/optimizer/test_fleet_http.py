"""HTTP with a fleet: waiting, creating once, and which error each way of failing becomes."""

from __future__ import annotations

import socket
from collections.abc import Callable
from contextlib import closing

import httpx
import pytest

from edgeopt.fleet_access import FleetAccess
from edgeopt.fleet_http import FleetHttp
from edgeopt_contract.errors import EdgeoptError, ExitCode, MessageError, UnreachableError, UsageError
from tests.optimizer.operate_fake import KEY, FakeFleet, served

ACCESS = FleetAccess("http://fleet.test:8080", KEY)


def http_that_gets(answer: Callable[[httpx.Request], httpx.Response] | httpx.Response) -> FleetHttp:
    """Requests that are all answered the same."""
    return FleetHttp(ACCESS, httpx.MockTransport(answer if callable(answer) else lambda _request: answer))


class TestCreate:
    """Creating something once."""

    def test_a_repeated_request_keeps_its_key(self) -> None:
        """Whoever had the request before it was to come again makes no second token of it."""
        answers = iter([httpx.Response(429), httpx.Response(429), httpx.Response(201, json={"token": "one-time"})])
        keys: list[str | None] = []

        def answer(request: httpx.Request) -> httpx.Response:
            keys.append(request.headers.get("Idempotency-Key"))
            return next(answers)

        http = FleetHttp(ACCESS, httpx.MockTransport(answer), lambda _seconds: None)
        assert {"token": "one-time"} == http.create("tokens", {"uses": 1})
        assert 3 == len(keys)
        assert 1 == len(set(keys))
        assert keys[0]

    def test_every_command_has_a_key_of_its_own(self) -> None:
        """Two tokens that are asked for in the same words are two tokens."""
        keys: list[str] = []

        def answer(request: httpx.Request) -> httpx.Response:
            keys.append(request.headers["Idempotency-Key"])
            return httpx.Response(201, json={})

        http = http_that_gets(answer)
        for _ in range(2):
            http.create("tokens", {"uses": 1})
        assert 2 == len(set(keys))


class TestFailures:
    """Each way of failing is blamed on the right party."""

    @pytest.mark.parametrize("status", [400, 404, 409, 422])
    def test_a_refusal_is_given_in_the_fleets_words(self, status: int) -> None:
        """The problem's detail is what the operator reads."""
        answer = httpx.Response(status, json={"title": "t", "detail": "wave 3 is smaller than wave 2"})
        with pytest.raises(UsageError, match=r"the fleet refuses: wave 3 is smaller than wave 2$"):
            http_that_gets(answer).item("GET", "rollouts/v2")

    def test_a_wrong_key_says_where_the_right_one_is(self) -> None:
        """The advice names operator.json, the message does not show the key."""
        with pytest.raises(UsageError, match=r"operator\.json") as caught:
            http_that_gets(httpx.Response(401)).pages("devices")
        assert KEY not in str(caught.value)

    def test_too_low_a_role_is_given_in_the_fleets_words(self) -> None:
        """Another file would not help: the fleet says which role is needed."""
        answer = httpx.Response(403, json={"detail": "this needs the role operator or higher"})
        with pytest.raises(UsageError, match=r"needs the role operator or higher$"):
            http_that_gets(answer).pages("devices")

    def test_who_asks_too_often_waits_as_told(self) -> None:
        """429 is waited out by Retry-After, so a long upload goes through; a fleet that never has time is refused."""
        answers = [httpx.Response(429, headers={"Retry-After": wait}) for wait in ("3", "7", "soon", "86400")]
        left = iter([*answers, httpx.Response(200, json={"name": "alice", "role": "viewer", "prefix": "eok_"})])
        waits: list[float] = []
        transport = httpx.MockTransport(lambda _request: next(left))
        assert "alice" == FleetHttp(ACCESS, transport, waits.append).item("GET", "me")["name"]
        assert [3.0, 7.0, 1.0, 60.0] == waits
        transport = httpx.MockTransport(lambda _request: httpx.Response(429, json={"detail": "too many requests"}))
        with pytest.raises(UsageError, match="too many requests"):
            FleetHttp(ACCESS, transport, waits.append).item("GET", "me")

    def test_a_problem_without_words_gives_its_status(self) -> None:
        """A proxy's error page is not printed."""
        answer = httpx.Response(404, text="<html>gone</html>")
        with pytest.raises(UsageError, match=r"the fleet refuses: HTTP 404 Not Found$"):
            http_that_gets(answer).pages("rollouts")

    def test_nobody_there_is_unreachable(self) -> None:
        """Exit code 5, with the address and what to look at."""
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))  # bound but not listening: connecting is refused
            url = f"http://127.0.0.1:{taken.getsockname()[1]}"
            with pytest.raises(UnreachableError, match=rf"{url} does not answer .*'edgeopt-fleet serve'") as caught:
                FleetHttp(FleetAccess(url, KEY)).pages("devices")
        assert ExitCode.UNREACHABLE == caught.value.exit_code

    @pytest.mark.parametrize(
        "error", [httpx.ReadTimeout("slow"), httpx.RemoteProtocolError("cut"), httpx.ReadError("")]
    )
    def test_a_broken_connection_is_unreachable(self, error: httpx.TransportError) -> None:
        """Whatever breaks on the wire is the world's fault."""

        def fail(_request: httpx.Request) -> httpx.Response:
            raise error

        with pytest.raises(UnreachableError, match=str(error) or "ReadError"):
            http_that_gets(fail).pages("devices")

    @pytest.mark.parametrize("status", [502, 503, 504])
    def test_a_fleet_that_starts_is_unreachable(self, status: int) -> None:
        """A gateway without a server behind it is waited for as one that is gone."""
        with pytest.raises(UnreachableError, match="try again in a moment"):
            http_that_gets(httpx.Response(status)).pages("devices")

    def test_a_fleet_that_fails_points_to_its_log(self) -> None:
        """HTTP 500 is neither the user's fault nor the network's."""
        with pytest.raises(EdgeoptError, match=r"failed \(disk full\); its log says more") as caught:
            http_that_gets(httpx.Response(500, json={"detail": "disk full"})).pages("devices")
        assert ExitCode.UNEXPECTED == caught.value.exit_code

    @pytest.mark.parametrize(
        "answer",
        [
            httpx.Response(200, text="<html>hello</html>"),
            httpx.Response(200, json=[1]),
            httpx.Response(200, json={"things": []}),
            httpx.Response(200, json={"items": [1]}),
            httpx.Response(200, json={"items": [], "next": "same"}),
            httpx.Response(301, headers={"Location": "http://elsewhere.test/"}),
            httpx.Response(200, content=b"[" * 100_000),
        ],
    )
    def test_another_server_is_told_apart(self, answer: httpx.Response) -> None:
        """Something that answers but is no fleet is not misread, and no redirect takes the key elsewhere."""
        with pytest.raises(MessageError, match=r"http://fleet\.test:8080 is not a fleet of this version"):
            http_that_gets(answer).pages("devices")

    def test_a_wrong_key_is_refused_over_a_real_socket(self) -> None:
        """Client and server agree about the header, not only in memory."""
        with (
            served(FakeFleet()) as url,
            closing(FleetHttp(FleetAccess(url, "other"))) as http,
            pytest.raises(UsageError, match="the key is wrong"),
        ):
            http.pages("devices")

    def test_a_proxy_of_the_environment_is_not_used(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """HTTP_PROXY is meant for the internet; the key must not go there."""
        monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
        monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:1")
        with served(FakeFleet()) as url, closing(FleetHttp(FleetAccess(url, KEY))) as http:
            assert [] == http.pages("devices")
