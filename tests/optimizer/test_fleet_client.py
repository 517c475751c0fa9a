"""The one HTTP client: what it sends, and which error each way of failing becomes."""

from __future__ import annotations

import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from edgeopt.fleet_client import FleetAccess, FleetClient, load_access, publish_bundle
from edgeopt_contract.bundle import Bundle, BundleContents, write_bundle
from edgeopt_contract.errors import (
    BundleError,
    EdgeoptError,
    ExitCode,
    MessageError,
    UnreachableError,
    UsageError,
)
from edgeopt_contract.values import digest_of
from tests.contract.conftest import contents  # noqa: F401  # the fixture
from tests.optimizer.operate_fake import KEY, FakeFleet, device_view, served, transport

ACCESS = FleetAccess("http://fleet.test:8080", KEY)


def client(fleet: FakeFleet) -> FleetClient:
    """A client of a fleet in memory."""
    return FleetClient(ACCESS, transport(fleet))


def client_that_gets(answer: Callable[[httpx.Request], httpx.Response] | httpx.Response) -> FleetClient:
    """A client whose every request is answered the same."""
    return FleetClient(ACCESS, httpx.MockTransport(answer if callable(answer) else lambda _request: answer))


@pytest.fixture
def bundle(tmp_path: Path, contents: BundleContents) -> Bundle:  # noqa: F811  # the fixture
    """A bundle on disk."""
    return write_bundle(tmp_path / "bundle", contents)


class TestAccess:
    """Reading operator.json."""

    def test_url_and_key_are_read(self, tmp_path: Path) -> None:
        """What 'edgeopt-fleet init' writes opens the API."""
        (tmp_path / "operator.json").write_text('{"url": "http://127.0.0.1:9", "key": "secret"}')
        assert FleetAccess("http://127.0.0.1:9", "secret") == load_access(tmp_path / "operator.json")

    def test_key_is_never_shown(self) -> None:
        """A key in a log or an error message is a key lost."""
        assert KEY not in repr(ACCESS)

    @pytest.mark.parametrize(
        "text",
        [
            "",
            "[]",
            '{"url": "http://x"}',
            '{"url": "https://x", "key": "k", "ca": "no certificate"}',
            '{"url": 5, "key": "k"}',
            '{"url": "fleet.example", "key": "k"}',
            '{"url": "ftp://x", "key": "k"}',
            '{"url": "http://", "key": "k"}',
            '{"url": "http://x:notaport", "key": "k"}',
            '{"url": "http://x", "key": "two\\nlines"}',
        ],
    )
    def test_another_file_is_told_apart(self, tmp_path: Path, text: str) -> None:
        """The error names the file and says which one is meant."""
        (tmp_path / "wrong.json").write_text(text)
        with pytest.raises(UsageError, match=r"wrong\.json.*operator\.json that 'edgeopt-fleet init' wrote"):
            load_access(tmp_path / "wrong.json")

    def test_a_missing_file_is_named(self, tmp_path: Path) -> None:
        """So is one that is not there."""
        with pytest.raises(UsageError, match=r"cannot read .*nothing\.json \(No such file"):
            load_access(tmp_path / "nothing.json")


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
        assert "devices?tag=site%3Doslo" == fleet.requests[0][1]

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


class TestFailures:
    """Each way of failing is blamed on the right party."""

    @pytest.mark.parametrize("status", [400, 404, 409, 422])
    def test_a_refusal_is_given_in_the_fleets_words(self, status: int) -> None:
        """The problem's detail is what the operator reads."""
        answer = httpx.Response(status, json={"title": "t", "detail": "wave 3 is smaller than wave 2"})
        with pytest.raises(UsageError, match=r"the fleet refuses: wave 3 is smaller than wave 2$"):
            client_that_gets(answer).rollout("v2")

    def test_a_wrong_key_says_where_the_right_one_is(self) -> None:
        """The advice names operator.json, the message does not show the key."""
        with pytest.raises(UsageError, match=r"operator\.json") as caught:
            client_that_gets(httpx.Response(401)).devices()
        assert KEY not in str(caught.value)

    def test_too_low_a_role_is_given_in_the_fleets_words(self) -> None:
        """Another file would not help: the fleet says which role is needed."""
        answer = httpx.Response(403, json={"detail": "this needs the role operator or higher"})
        with pytest.raises(UsageError, match=r"needs the role operator or higher$"):
            client_that_gets(answer).devices()

    def test_who_asks_too_often_waits_as_told(self) -> None:
        """429 is waited out by Retry-After, so a long upload goes through; a fleet that never has time is refused."""
        answers = [httpx.Response(429, headers={"Retry-After": wait}) for wait in ("3", "7", "soon", "86400")]
        left = iter([*answers, httpx.Response(200, json={"name": "alice", "role": "viewer", "prefix": "eok_"})])
        waits: list[float] = []
        transport = httpx.MockTransport(lambda _request: next(left))
        with FleetClient(FleetAccess("http://fleet.test", KEY), transport, waits.append) as patient:
            assert "alice" == patient.me()["name"]
        assert [3.0, 7.0, 1.0, 60.0] == waits
        transport = httpx.MockTransport(lambda _request: httpx.Response(429, json={"detail": "too many requests"}))
        with (
            FleetClient(FleetAccess("http://fleet.test", KEY), transport, waits.append) as patient,
            pytest.raises(UsageError, match="too many requests"),
        ):
            patient.me()

    def test_a_problem_without_words_gives_its_status(self) -> None:
        """A proxy's error page is not printed."""
        answer = httpx.Response(404, text="<html>gone</html>")
        with pytest.raises(UsageError, match=r"the fleet refuses: HTTP 404 Not Found$"):
            client_that_gets(answer).rollouts()

    def test_nobody_there_is_unreachable(self) -> None:
        """Exit code 5, with the address and what to look at."""
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))  # bound but not listening: connecting is refused
            url = f"http://127.0.0.1:{taken.getsockname()[1]}"
            with pytest.raises(UnreachableError, match=rf"{url} does not answer .*'edgeopt-fleet serve'") as caught:
                FleetClient(FleetAccess(url, KEY)).devices()
        assert ExitCode.UNREACHABLE == caught.value.exit_code

    @pytest.mark.parametrize(
        "error", [httpx.ReadTimeout("slow"), httpx.RemoteProtocolError("cut"), httpx.ReadError("")]
    )
    def test_a_broken_connection_is_unreachable(self, error: httpx.TransportError) -> None:
        """Whatever breaks on the wire is the world's fault."""

        def fail(_request: httpx.Request) -> httpx.Response:
            raise error

        with pytest.raises(UnreachableError, match=str(error) or "ReadError"):
            client_that_gets(fail).devices()

    @pytest.mark.parametrize("status", [502, 503, 504])
    def test_a_fleet_that_starts_is_unreachable(self, status: int) -> None:
        """A gateway without a server behind it is waited for as one that is gone."""
        with pytest.raises(UnreachableError, match="try again in a moment"):
            client_that_gets(httpx.Response(status)).devices()

    def test_a_fleet_that_fails_points_to_its_log(self) -> None:
        """HTTP 500 is neither the user's fault nor the network's."""
        with pytest.raises(EdgeoptError, match=r"failed \(disk full\); its log says more") as caught:
            client_that_gets(httpx.Response(500, json={"detail": "disk full"})).devices()
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
            client_that_gets(answer).devices()

    def test_a_wrong_key_is_refused_over_a_real_socket(self) -> None:
        """Client and server agree about the header, not only in memory."""
        with (
            served(FakeFleet()) as url,
            FleetClient(FleetAccess(url, "other")) as fleet,
            pytest.raises(UsageError, match="the key is wrong"),
        ):
            fleet.devices()

    def test_a_proxy_of_the_environment_is_not_used(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """HTTP_PROXY is meant for the internet; the key must not go there."""
        monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
        monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:1")
        with served(FakeFleet()) as url, FleetClient(FleetAccess(url, KEY)) as fleet:
            assert [] == fleet.devices()


class TestPublish:
    """Uploading a bundle."""

    def test_every_block_arrives(self, bundle: Bundle) -> None:
        """The fleet can put every file together again, and the digest is that of the manifest."""
        fleet = FakeFleet()
        assert bundle.digest == publish_bundle(client(fleet), bundle)
        assert {bundle.digest} == set(fleet.manifests)
        for entry in bundle.manifest.files:
            data = b"".join(fleet.blocks[block.sha256] for block in entry.blocks)
            assert entry.sha256 == digest_of(data)

    def test_only_missing_blocks_are_sent(self, bundle: Bundle) -> None:
        """What an older version brought, or an interrupted upload, is not sent again."""
        fleet = FakeFleet()
        publish_bundle(client(fleet), bundle)
        lost = next(iter(fleet.blocks))
        size = len(fleet.blocks.pop(lost))
        seen: list[tuple[int, int]] = []
        publish_bundle(client(fleet), bundle, lambda sent, total: seen.append((sent, total)))
        assert [(0, size), (size, size)] == seen
        seen.clear()
        publish_bundle(client(fleet), bundle, lambda sent, total: seen.append((sent, total)))
        assert [] == seen

    def test_a_block_lost_meanwhile_is_sent_once_more(self, bundle: Bundle) -> None:
        """The bundle is published when the fleet says that nothing is missing, not when all was sent."""
        fleet = FakeFleet()
        lossy = client(fleet)
        first = bundle.manifest.files[0].blocks[0].sha256
        real, seen = lossy.put_block, []

        def put(sha256: str, data: bytes) -> None:
            seen.append(sha256)
            real(sha256, data)
            if seen.count(first) == 1:
                fleet.blocks.pop(first, None)

        lossy.put_block = put  # type: ignore[method-assign]  # a fault, injected
        assert bundle.digest == publish_bundle(lossy, bundle)
        assert 2 == seen.count(first)

    def test_a_fleet_that_never_keeps_a_block_is_given_up(self, bundle: Bundle) -> None:
        """There is no endless loop."""
        fleet = FakeFleet()
        useless = client(fleet)
        useless.put_block = lambda *_: None  # type: ignore[method-assign, assignment]  # a fault, injected
        with pytest.raises(MessageError, match="still lacks blocks that it accepted"):
            publish_bundle(useless, bundle)

    def test_a_file_changed_after_it_was_verified_is_found(self, bundle: Bundle) -> None:
        """Every block is checked as it is read: what is sent is what the manifest lists."""
        path = bundle.directory / "fp32.onnx"
        path.write_bytes(b"X" + path.read_bytes()[1:])
        with pytest.raises(BundleError, match=r"fp32\.onnx: bytes 0-\d+ are not the block"):
            publish_bundle(client(FakeFleet()), bundle)

    def test_a_file_removed_meanwhile_is_found(self, bundle: Bundle) -> None:
        """So is one that is gone."""
        (bundle.directory / "fp32.onnx").unlink()
        with pytest.raises(BundleError, match=r"fp32\.onnx cannot be read any more"):
            publish_bundle(client(FakeFleet()), bundle)

    def test_a_manifest_changed_meanwhile_is_found(self, bundle: Bundle) -> None:
        """The digest that is printed is the digest that was published."""
        path = bundle.directory / "manifest.json"
        path.write_bytes(path.read_bytes() + b" ")
        with pytest.raises(BundleError, match="the manifest changed while it was being published"):
            publish_bundle(client(FakeFleet()), bundle)

    @pytest.mark.parametrize("missing", [None, ["0" * 64], [7], "all"])
    def test_a_fleet_that_asks_for_nonsense_is_refused(self, bundle: Bundle, missing: Any) -> None:
        """Only blocks of the bundle are read and sent."""
        answer = {"digest": bundle.digest, "missing_blocks": missing}
        with pytest.raises(MessageError, match=r"which blocks it lacks|does not have"):
            publish_bundle(client_that_gets(httpx.Response(200, json=answer)), bundle)
