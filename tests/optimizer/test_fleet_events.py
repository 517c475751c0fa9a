"""The client's side of server-sent events: what it reads, and how it goes on after a connection broke."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest

from edgeopt.fleet_access import FleetAccess
from edgeopt.fleet_client import FleetClient
from edgeopt.fleet_events import Event, Stream
from edgeopt_contract.errors import MessageError, UnreachableError, UsageError

READY = b"retry: 2000\nevent: ready\nid: 7\ndata: {}\n\n"


def event(number: int, name: str = "rollout") -> bytes:
    """Return one event as it travels."""
    return f'event: {name}\nid: {number}\ndata: {{"n": {number}}}\n\n'.encode()


class Broken(httpx.SyncByteStream):
    """A body that breaks off after what it says."""

    def __init__(self, said: bytes) -> None:
        self.said = said

    def __iter__(self) -> Iterator[bytes]:
        yield self.said
        raise httpx.ReadError("cut")


@dataclass
class Fleet:
    """Answers one connection after the other, and notes what was asked; its clock moves when somebody waits."""

    answers: list[httpx.Response]
    asked: list[tuple[dict[str, str], str | None]] = field(default_factory=list)
    told: list[str] = field(default_factory=list)  # why connections broke
    now: float = 0.0
    each: float = 0.0  # seconds that a connection lasts

    def handle(self, request: httpx.Request) -> httpx.Response:
        """Answer."""
        self.now += self.each
        self.asked.append((dict(request.url.params), request.headers.get("Last-Event-ID")))
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]

    def wait(self, seconds: float) -> None:
        """Let time pass."""
        self.now += seconds

    def events(self, seconds: int | None = None) -> Iterator[Event | None]:
        """Read the stream."""
        http = httpx.Client(base_url="http://fleet.test", transport=httpx.MockTransport(self.handle))
        return Stream(http, "rollouts", lambda: self.now, self.wait, self.told.append).events(seconds)


def ok(body: bytes | Broken) -> httpx.Response:
    """Return a stream that was opened."""
    if isinstance(body, Broken):
        return httpx.Response(200, stream=body)
    return httpx.Response(200, content=body)


def test_events_are_read_with_their_ids_and_silence_is_told() -> None:
    """A comment is None; what belongs to no event is passed over."""
    fleet = Fleet([ok(READY + b": still here\n\n" + event(8) + b"data: {}\n\n")], each=60.0)
    found = list(fleet.events(60))
    assert [Event("ready", "7", {}), None, Event("rollout", "8", {"n": 8})] == found
    assert [({"topic": "rollouts", "seconds": "60"}, None)] == fleet.asked


def test_a_connection_that_breaks_is_opened_again_after_the_last_event() -> None:
    """Nothing is missed and nothing told twice: the id of the newest event goes along."""
    fleet = Fleet([ok(Broken(READY + event(8) + b"event: rollout\nid: 9\n")), ok(event(9) + event(10))], each=1.0)
    stream = fleet.events(None)
    found = [next(stream) for _ in range(4)]
    assert ["7", "8", "9", "10"] == [one.id for one in found if one is not None]
    assert [None, "8"] == [last for _, last in fleet.asked]
    assert ["cut"] == fleet.told


def test_an_orderly_end_goes_on_after_the_last_event() -> None:
    """The fleet ends a stream after a quarter of an hour; watching does not end with it."""
    fleet = Fleet([ok(READY + event(8)), ok(event(9))])
    stream = fleet.events(None)
    assert ["7", "8", "9"] == [one.id for one in (next(stream) for _ in range(3)) if one is not None]
    assert ["900", "900"] == [query["seconds"] for query, _ in fleet.asked]
    assert ([], 0.0) == (fleet.told, fleet.now), "nothing broke, nothing to wait for"


def test_a_fleet_that_restarts_is_waited_for_but_not_for_ever() -> None:
    """503 and a refused connection are tried again for half a minute since the last word."""
    back = Fleet([httpx.Response(503)] * 20 + [ok(event(8))])
    found = next(back.events(None))
    assert (Event("rollout", "8", {"n": 8}), 20.0) == (found, back.now)
    gone = Fleet([httpx.Response(503)])
    with pytest.raises(httpx.TransportError, match="503"):
        next(gone.events(None))
    assert 30.0 < gone.now <= 32.0


def test_who_watches_is_told_once_why_and_a_long_silence_leaves_time_to_come_back() -> None:
    """Half a minute counts from when the connection broke, not from the last word before it."""
    busy = httpx.Response(503, json={"detail": "100 streams are open already"})
    fleet = Fleet([ok(Broken(READY)), *[busy] * 5, ok(event(8))], each=5.0)
    stream = fleet.events(None)
    assert "7" == getattr(next(stream), "id", None)
    fleet.now += 1000.0
    assert "8" == getattr(next(stream), "id", None)
    assert ["cut"] == fleet.told
    with pytest.raises(httpx.TransportError, match="100 streams are open already"):
        next(Fleet([busy], each=5.0).events(None))


def test_connections_that_bring_nothing_are_not_opened_in_a_hurry() -> None:
    """Something between that ends every stream at once costs one request a second."""
    fleet = Fleet([ok(b"")] * 7 + [ok(event(8))])
    assert "8" == getattr(next(fleet.events(None)), "id", None)
    assert (7.0, 8) == (fleet.now, len(fleet.asked))


def test_watching_ends_after_its_time() -> None:
    """What is left of it is asked of each next connection; a broken one does not make it longer."""
    fleet = Fleet([ok(event(8))], each=20.0)
    assert 3 == len(list(fleet.events(50)))
    assert ["50", "30", "10"] == [query["seconds"] for query, _ in fleet.asked]
    assert [] == list(Fleet([ok(b"")]).events(0)), "0: only what there is now"


@pytest.mark.parametrize("status", [401, 403, 404, 422, 429])
def test_a_refusal_is_not_tried_again(status: int) -> None:
    """In the fleet's words."""
    fleet = Fleet([httpx.Response(status, json={"detail": "no such topic"})])
    with pytest.raises(UsageError, match="no such topic"):
        next(fleet.events(None))
    assert 1 == len(fleet.asked)


@pytest.mark.parametrize("data", ["[1]", "nonsense", "{"])
def test_what_is_no_event_of_a_fleet_is_named(data: str) -> None:
    """Something else answers at this address."""
    with pytest.raises(MessageError, match="not a JSON object"):
        next(Fleet([ok(f"event: rollout\nid: 1\ndata: {data}\n\n".encode())]).events(None))


def test_the_client_says_which_fleet_does_not_answer() -> None:
    """After half a minute, as an error of its own kind."""
    waited: list[float] = []
    refuse: Callable[[httpx.Request], Any] = _refuse
    access = FleetAccess(url="http://fleet.test", key="k")
    clock = iter(range(0, 10_000, 10))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("edgeopt.fleet_http.time.monotonic", lambda: float(next(clock)))
        client = FleetClient(access, httpx.MockTransport(refuse), waited.append)
        with pytest.raises(UnreachableError, match=r"http://fleet\.test does not answer"):
            list(client.events("rollouts"))
    assert waited


def _refuse(_request: httpx.Request) -> httpx.Response:
    raise httpx.ConnectError("refused")
