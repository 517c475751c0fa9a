"""The operations of the fleet's API: what each asks for, and what comes back."""

from __future__ import annotations

from collections.abc import Callable

import httpx
import pytest

from edgeopt.fleet_access import FleetAccess
from edgeopt.fleet_client import FleetClient
from edgeopt_contract.errors import UsageError
from tests.optimizer.operate_fake import KEY, FakeFleet, device_view, transport

ACCESS = FleetAccess("http://fleet.test:8080", KEY)


def client(fleet: FakeFleet) -> FleetClient:
    """A client of a fleet in memory."""
    return FleetClient(ACCESS, transport(fleet))


class TestAnswers:
    """What is asked for and what comes back."""

    def test_all_pages_are_read(self) -> None:
        """Three devices on pages of two are three devices."""
        fleet = FakeFleet(devices=[device_view(f"cam-{n}") for n in range(3)])
        assert ["cam-0", "cam-1", "cam-2"] == [device["id"] for device in client(fleet).devices()]

    def test_tags_filter(self) -> None:
        """The filter is the server's work: it travels in the query of every page."""
        fleet = FakeFleet(devices=[device_view("a", site="oslo"), device_view("b", site="bergen")], page_size=1)
        assert ["a"] == [device["id"] for device in client(fleet).devices({"site": "oslo"})]
        assert "devices?tag=site%3Doslo&limit=1000" == fleet.requests[0][1]

    def test_several_tags_must_all_match(self) -> None:
        """The fleet looks at one of them; nobody is shown who lacks another."""
        fleet = FakeFleet(devices=[device_view("a", site="oslo"), device_view("b", site="oslo", line="2")])
        assert ["b"] == [device["id"] for device in client(fleet).devices({"site": "oslo", "line": "2"})]

    def test_names_stay_one_segment_of_the_path(self) -> None:
        """A name with slashes or dots reaches no other resource."""
        fleet = FakeFleet()
        with pytest.raises(UsageError, match=r"there is no cohort \.\./tokens"):
            client(fleet).cohort("../tokens")
        assert ("GET", "cohorts/..%2Ftokens", None) == fleet.requests[-1]

    @pytest.mark.parametrize("name", ["", ".", ".."])
    def test_names_that_are_no_segment_are_refused(self, name: str) -> None:
        """Dots alone would be resolved away on the wire."""
        with pytest.raises(UsageError, match="expected a name"):
            client(FakeFleet()).device(name)

    def test_orders_go_to_their_own_addresses(self) -> None:
        """The order is the last level of the address."""
        fleet = FakeFleet()
        assert "paused" == client(fleet).order_rollout("v2", "pause")["state"]
        assert ("POST", "rollouts/v2/pause", None) == fleet.requests[-1]

    def test_only_open_alerts_unless_all_are_wanted(self) -> None:
        """Closed alerts are history."""
        fleet = FakeFleet(alerts=[{"id": 1, "state": "open"}, {"id": 2, "state": "closed"}])
        assert [1] == [alert["id"] for alert in client(fleet).alerts()]
        assert [1, 2] == [alert["id"] for alert in client(fleet).alerts(include_closed=True)]


class TestOnce:
    """What is made once, however often its request is sent."""

    @pytest.mark.parametrize(
        ("path", "create"),
        [
            ("tokens", lambda fleet: fleet.create_token(1, 3600, {})),
            ("users", lambda fleet: fleet.create_user("alice", "viewer", None)),
            ("users/alice/rotate", lambda fleet: fleet.rotate_key("alice", 0, None)),
            ("me/rotate", lambda fleet: fleet.rotate_key(None, 0, None)),
            ("rollouts", lambda fleet: fleet.create_rollout({"name": "v2"})),
        ],
        ids=["token", "user", "key", "own-key", "rollout"],
    )
    def test_what_creates_something_has_an_idempotency_key(
        self, path: str, create: Callable[[FleetClient], object]
    ) -> None:
        """Each method that makes something asks for it by a request that the fleet carries out once."""
        seen: list[httpx.Request] = []

        def answer(request: httpx.Request) -> httpx.Response:
            seen.append(request)
            return httpx.Response(201, json={})

        create(FleetClient(ACCESS, httpx.MockTransport(answer)))
        assert [("POST", f"/api/v1/{path}", True)] == [
            (request.method, request.url.path, "Idempotency-Key" in request.headers) for request in seen
        ]

    def test_a_bundle_is_offered_anew_each_time(self) -> None:
        """What it still lacks changes from one offer to the next: an answer that was kept would be wrong."""
        seen: list[httpx.Request] = []

        def answer(request: httpx.Request) -> httpx.Response:
            seen.append(request)
            return httpx.Response(200, json={"missing_blocks": []})

        FleetClient(ACCESS, httpx.MockTransport(answer)).offer_bundle(b"{}")
        assert [False] == ["Idempotency-Key" in request.headers for request in seen]
