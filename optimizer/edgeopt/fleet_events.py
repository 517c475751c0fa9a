"""The client's side of server-sent events: reads a stream, and opens it again where it broke off.

Example::

    for event in Stream(http, "rollouts", time.monotonic, time.sleep).events(seconds=60):
        if event is not None:
            print(event.name, event.data)
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import httpx
import msgspec

from edgeopt.fleet_problems import detail, refusal
from edgeopt_contract.errors import MessageError

__all__ = ["Event", "Stream"]

_PATIENCE_SECONDS = 30.0  # since the connection broke
_RETRY_SECONDS = 1.0
_SILENCE_SECONDS = 40.0  # the fleet says something every 15
_LONGEST_SECONDS = 900  # that the fleet streams at once


@dataclass(frozen=True, slots=True)
class Event:
    """One event: its name, its id, and what it tells."""

    name: str
    id: str
    data: dict[str, Any]


class Stream:
    """A stream of one topic that outlives its connections."""

    def __init__(
        self,
        http: httpx.Client,
        topic: str,
        clock: Callable[[], float],
        wait: Callable[[float], None],
        lost: Callable[[str], None] | None = None,
    ) -> None:
        self._http = http
        self._topic = topic
        self._clock = clock
        self._wait = wait
        self._lost = lost  # is told why a connection broke, once until it stands again
        self._last = ""  # id of the newest event that was seen

    def events(self, seconds: int | None) -> Iterator[Event | None]:
        """Yield events, and None where the fleet only says that it is there. Raises ``httpx.TransportError``."""
        began = self._clock()
        broken: float | None = None  # since when
        while True:
            heard = False
            left = _LONGEST_SECONDS if seconds is None else max(0, round(seconds - (self._clock() - began)))
            try:
                for event in self._connection(min(left, _LONGEST_SECONDS)):
                    heard, broken = True, None
                    yield event
            except httpx.TransportError as error:
                if broken is None:
                    broken = self._clock()
                    if self._lost is not None:
                        self._lost(str(error) or type(error).__name__)
                if self._clock() - broken > _PATIENCE_SECONDS:
                    raise
            if seconds is not None and self._clock() - began >= seconds:
                return
            if broken is not None or not heard:
                self._wait(_RETRY_SECONDS)

    def _connection(self, seconds: int) -> Iterator[Event | None]:
        """Yield what one connection brings."""
        headers = {"Last-Event-ID": self._last} if self._last else {}
        query = {"topic": self._topic, "seconds": str(seconds)}
        with self._http.stream("GET", "events", params=query, headers=headers, timeout=_SILENCE_SECONDS) as answer:
            if answer.status_code >= httpx.codes.INTERNAL_SERVER_ERROR:
                answer.read()
                raise httpx.ReadError(detail(answer))
            if answer.status_code != httpx.codes.OK:
                answer.read()
                raise refusal(answer)
            lines: dict[str, str] = {}
            for line in answer.iter_lines():
                if line.startswith(":"):
                    yield None
                elif line:
                    name, _, value = line.partition(":")
                    lines[name] = value.removeprefix(" ")
                elif "event" in lines:
                    self._last = lines.get("id", self._last)
                    yield Event(lines["event"], self._last, _decoded(lines.get("data", "{}")))
                    lines = {}


def _decoded(data: str) -> dict[str, Any]:
    try:
        return msgspec.json.decode(data, type=dict[str, Any])
    except msgspec.MsgspecError as error:
        raise MessageError(f"events: not a JSON object: {error}; update the older program") from error
