"""HTTP with a fleet: what is sent, what may come back, and which of edgeopt's errors each failure is.

It knows ``/api/v1`` but none of its operations, which are ``fleet_client``'s. It prints nothing, and repeats only what
the fleet asks to come again for (429). Example::

    http = FleetHttp(load_access(Path("fleet/operator.json")))
    devices = http.pages("devices", [("tag", "site=oslo")])
    http.close()
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Generator
from typing import Any

import httpx
import msgspec

from edgeopt.fleet_access import FleetAccess
from edgeopt.fleet_events import Event, Stream
from edgeopt.fleet_problems import detail, refusal
from edgeopt_contract.errors import EdgeoptError, MessageError, UnreachableError

__all__ = ["FleetHttp", "Json"]

Json = dict[str, Any]
_TIMEOUT_SECONDS = 30.0  # a server that commits to a slow disk may take a while; one that is gone refuses at once
_MOST_WAITS = 10
_LONGEST_WAIT_SECONDS = 60.0
_LARGEST_PAGE = ("limit", "1000")  # fifteen requests for 15,000 devices, not a hundred and fifty


class FleetHttp:
    """Requests to one fleet. Every method may raise these.

    :class:`UnreachableError` when nothing answers, :class:`UsageError` when the fleet refuses (its own words),
    :class:`MessageError` when the answer is not a fleet's, :class:`EdgeoptError` when the fleet itself failed.
    """

    def __init__(
        self,
        access: FleetAccess,
        transport: httpx.BaseTransport | None = None,
        wait: Callable[[float], None] = time.sleep,
    ) -> None:
        self._access = access
        self._wait = wait
        self._http = httpx.Client(
            base_url=access.url.rstrip("/") + "/api/v1/",
            headers={"Authorization": f"Bearer {access.key}"},
            timeout=_TIMEOUT_SECONDS,
            transport=transport,
            verify=access.trusted(),
            trust_env=False,  # a proxy meant for the internet does not lead to a fleet in the same room
        )

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def create(self, path: str, body: Json) -> Json:
        """Make something by POST and return it.

        The request has an Idempotency-Key of its own, the same when it is sent again, so it is carried out once.
        """
        return self.item("POST", path, json=body, headers={"Idempotency-Key": str(uuid.uuid4())})

    def item(self, method: str, path: str, **arguments: Any) -> Json:
        """Return the JSON object that is the answer; ``arguments`` are those of ``httpx.Client.request``."""
        response = self.request(method, path, **arguments)
        try:
            answer = msgspec.json.decode(response.content)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise self._not_a_fleet(f"{path}: not JSON") from error
        if not isinstance(answer, dict):
            raise self._not_a_fleet(f"{path}: not a JSON object")
        return answer

    def pages(self, path: str, query: list[tuple[str, str]] | None = None) -> list[Json]:
        """Return all items of a list, from as many pages as there are."""
        items: list[Json] = []
        cursor: list[tuple[str, str]] = []
        while True:
            page = self.item("GET", path, params=[*(query or []), _LARGEST_PAGE, *cursor])
            found = page.get("items")
            if not isinstance(found, list) or not all(isinstance(item, dict) for item in found):
                raise self._not_a_fleet(f"{path}: no list of items")
            items.extend(found)
            following = page.get("next")
            if following is None:
                return items
            if cursor == [("cursor", str(following))]:
                raise self._not_a_fleet(f"{path}: the same page again and again")
            cursor = [("cursor", str(following))]

    def request(self, method: str, path: str, **arguments: Any) -> httpx.Response:
        """Return the answer that tells of success; ``arguments`` are those of ``httpx.Client.request``."""
        try:
            response = self._http.request(method, path, **arguments)
            for _ in range(_MOST_WAITS):
                if response.status_code != httpx.codes.TOO_MANY_REQUESTS:
                    break
                self._wait(_seconds_to_wait(response))
                response = self._http.request(method, path, **arguments)
        except httpx.TransportError as error:
            raise self._unreachable(error) from error
        if response.is_success:
            return response
        if response.status_code in (502, 503, 504):
            raise UnreachableError(
                f"the fleet at {self._access.url} is not ready ({detail(response)}); try again in a moment"
            )
        if response.is_server_error:
            raise EdgeoptError(f"the fleet at {self._access.url} failed ({detail(response)}); its log says more")
        if response.is_client_error:
            raise refusal(response)
        raise self._not_a_fleet(f"{path}: HTTP {response.status_code}")

    def events(
        self, topic: str, seconds: int | None, lost: Callable[[str], None] | None = None
    ) -> Generator[Event | None]:
        """Yield what changes of ``topic``, for so long or on and on; None where nothing did for a while.

        ``lost`` is told why a connection broke, before it is opened again.
        """
        stream = Stream(self._http, topic, time.monotonic, self._wait, lost)
        try:
            yield from stream.events(seconds)
        except httpx.TransportError as error:
            raise self._unreachable(error) from error

    def _unreachable(self, error: Exception) -> UnreachableError:
        return UnreachableError(
            f"the fleet at {self._access.url} does not answer ({str(error) or type(error).__name__}); "
            "see that 'edgeopt-fleet serve' runs and that the address is right"
        )

    def _not_a_fleet(self, what: str) -> MessageError:
        return MessageError(
            f"what answers at {self._access.url} is not a fleet of this version ({what}); check the address, "
            "or update the older program"
        )


def _seconds_to_wait(response: httpx.Response) -> float:
    """Return what Retry-After says, within reason."""
    text = response.headers.get("retry-after", "1")
    return min(float(text), _LONGEST_WAIT_SECONDS) if text.isdecimal() else 1.0
