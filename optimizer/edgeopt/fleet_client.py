"""The one client of the fleet's HTTP API, and publishing a bundle through it.

It turns whatever can go wrong into edgeopt's errors, and returns the fleet's answers as plain JSON values. It prints
nothing, and retries only what the fleet asks to come again for (429); the rest is its callers' business. Example::

    access = load_access(Path("fleet/operator.json"))
    with FleetClient(access) as fleet:
        digest = publish_bundle(fleet, open_bundle(Path("digits-bundle")))
        fleet.create_rollout({"name": "v2", "bundle": digest, "cohort": "all", "waves": [20, 100]})
"""

from __future__ import annotations

import ssl
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote

import httpx
import msgspec

from edgeopt.fleet_events import Event, Stream
from edgeopt_contract.bundle import MANIFEST_NAME, Bundle
from edgeopt_contract.errors import BundleError, EdgeoptError, MessageError, UnreachableError, UsageError
from edgeopt_contract.values import digest_of

__all__ = ["FleetAccess", "FleetClient", "Json", "load_access", "publish_bundle"]

Json = dict[str, Any]
_TIMEOUT_SECONDS = 30.0  # a server that commits to a slow disk may take a while; one that is gone refuses at once
_MOST_WAITS = 10
_LONGEST_WAIT_SECONDS = 60.0
_ROUNDS = 3  # a block that another publisher's clean-up removed meanwhile is sent once more


@dataclass(frozen=True, slots=True)
class FleetAccess:
    """Where the fleet is, and the key that opens its API; the key is never shown.

    ``ca`` (PEM) is the only authority that the fleet's certificate may be of; empty: those of the system.
    """

    url: str
    key: str = field(repr=False)
    ca: str = field(default="", repr=False)

    def __post_init__(self) -> None:
        try:
            host = httpx.URL(self.url).host
        except httpx.InvalidURL as error:
            raise ValueError(f"expected an address like http://127.0.0.1:8080, got {self.url!r}") from error
        if not self.url.startswith(("http://", "https://")) or not host:
            raise ValueError(f"expected an address like http://127.0.0.1:8080, got {self.url!r}")
        if not self.key.isascii() or not self.key.isprintable():
            raise ValueError("expected a key of printable ASCII characters")
        try:
            self.trusted()
        except (ssl.SSLError, ValueError) as error:
            raise ValueError(f"expected ca to be a certificate in PEM: {error}") from error

    def trusted(self) -> ssl.SSLContext | bool:
        """Return whom to believe over HTTPS, as httpx takes it; true: the system's authorities."""
        return ssl.create_default_context(cadata=self.ca) if self.ca else True


def load_access(path: Path) -> FleetAccess:
    """Read the ``operator.json`` that ``edgeopt-fleet init`` wrote. Raises :class:`UsageError`."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=FleetAccess)
    except OSError as error:
        raise UsageError(
            f"cannot read {path} ({error.strerror}); give the operator.json that 'edgeopt-fleet init' wrote"
        ) from error
    except (msgspec.MsgspecError, ValueError) as error:
        raise UsageError(
            f"{path} does not hold the access to a fleet ({error}); give the operator.json that "
            "'edgeopt-fleet init' wrote"
        ) from error


class FleetClient:
    """Speaks ``/api/v1`` for an operator. Every method may raise these.

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

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._http.close()

    def create_token(self, uses: int, expires_in_seconds: int, tags: Mapping[str, str], cohort: str = "") -> Json:
        """Return a new enrolment token: ``{"id", "token", "expires_at"}``.

        Devices that use it get ``tags``, and those of ``cohort``.
        """
        body: Json = {"uses": uses, "expires_in_seconds": expires_in_seconds, "tags": dict(tags)}
        body |= {"cohort": cohort} if cohort else {}
        return self._object("POST", "tokens", json=body)

    def tokens(self) -> list[Json]:
        """Return all tokens without their secrets, newest first."""
        return self._pages("tokens")

    def revoke_token(self, token: str) -> Json:
        """Make a token worthless, by its id."""
        return self._object("POST", f"tokens/{_segment(token)}/revoke")

    def me(self) -> Json:
        """Return whose key this is: ``{"name", "role", "prefix"}``."""
        return self._object("GET", "me")

    def users(self) -> list[Json]:
        """Return all users with their keys' beginnings."""
        return self._pages("users")

    def create_user(self, name: str, role: str, lifetime_seconds: int | None) -> Json:
        """Add a user and return the key, which cannot be read again."""
        return self._object("POST", "users", json={"name": name, "role": role, "expires_in_seconds": lifetime_seconds})

    def change_role(self, name: str, role: str) -> Json:
        """Give a user another role."""
        return self._object("PUT", f"users/{_segment(name)}/role", json={"role": role})

    def rotate_key(self, name: str | None, overlap_seconds: int, lifetime_seconds: int | None) -> Json:
        """Return a new key of a user, or one's own; those before it end after the overlap."""
        body = {"overlap_seconds": overlap_seconds, "expires_in_seconds": lifetime_seconds}
        return self._object("POST", "me/rotate" if name is None else f"users/{_segment(name)}/rotate", json=body)

    def revoke_user(self, name: str, prefix: str = "") -> Json:
        """Take a user out, or one key."""
        return self._object("POST", f"users/{_segment(name)}/revoke", json={"prefix": prefix})

    def audit(self, *, actor: str, operation: str, subject: str, limit: int) -> list[Json]:
        """Return the newest entries of the audit log that fit; an empty filter fits all."""
        wanted = {"actor": actor, "operation": operation, "subject": subject}
        query = {name: value for name, value in wanted.items() if value} | {"limit": str(limit)}
        return list(self._object("GET", "audit", params=query).get("items") or [])

    def export_audit(self) -> bytes:
        """Return the whole audit log as lines of JSON."""
        return self._request("GET", "audit/export").content

    def devices(self, tags: Mapping[str, str] | None = None, wanted: Mapping[str, Any] | None = None) -> list[Json]:
        """Return all devices that carry all of ``tags`` and fit ``wanted``, from as many pages as there are."""
        query = [("tag", f"{key}={value}") for key, value in (tags or {}).items()]
        return self._pages("devices", [*query, *_query(wanted or {})])

    def device(self, device: str) -> Json:
        """Return one device."""
        return self._object("GET", f"devices/{_segment(device)}")

    def device_part(self, device: str, part: str, limit: int | None = None) -> list[Json]:
        """Return the newest ``reports``, ``windows`` or spools (``messages``) of a device."""
        query = {} if limit is None else {"limit": str(limit)}
        return list(self._object("GET", f"devices/{_segment(device)}/{part}", params=query).get("items") or [])

    def put_device_tags(self, device: str, tags: Mapping[str, str], if_match: str | None = None) -> Json:
        """Give a device these tags; with ``if_match`` only if nobody changed them since."""
        headers = {} if if_match is None else {"If-Match": if_match}
        return self._object("PUT", f"devices/{_segment(device)}/tags", json={"tags": dict(tags)}, headers=headers)

    def revoke_device(self, device: str) -> Json:
        """Take the identity of a device away, and return the device."""
        return self._object("POST", f"devices/{_segment(device)}/revoke")

    def save_cohort(
        self, name: str, tags: Mapping[str, str], wanted: Mapping[str, Any] | None = None, if_match: str | None = None
    ) -> Json:
        """Save a filter as the cohort ``name`` and return it; with ``if_match`` only if nobody changed it since."""
        headers = {} if if_match is None else {"If-Match": if_match}
        body = {"tags": dict(tags), **(wanted or {})}
        return self._object("PUT", f"cohorts/{_segment(name)}", json=body, headers=headers)

    def delete_cohort(self, name: str) -> None:
        """Forget a cohort that nobody uses."""
        self._request("DELETE", f"cohorts/{_segment(name)}")

    def cohorts(self) -> list[Json]:
        """Return all cohorts."""
        return self._pages("cohorts")

    def cohort(self, name: str) -> Json:
        """Return one cohort."""
        return self._object("GET", f"cohorts/{_segment(name)}")

    def put_block(self, sha256: str, data: bytes) -> None:
        """Store one block."""
        self._request("PUT", f"blocks/{sha256}", content=data, headers={"Content-Type": "application/octet-stream"})

    def offer_bundle(self, manifest: bytes) -> Json:
        """Announce a bundle by its exact manifest; return ``{"digest", "name", "version", "missing_blocks"}``."""
        return self._object("POST", "bundles", content=manifest, headers={"Content-Type": "application/json"})

    def bundles(self, **wanted: str | bool | None) -> list[Json]:
        """Return all bundles of this ``name``, ``version``, ``complete`` or not."""
        return self._pages("bundles", _query(wanted))

    def bundle(self, digest: str) -> Json:
        """Return the bundle whose digest begins so."""
        return self._object("GET", f"bundles/{_segment(digest)}")

    def metadata_to_sign(self) -> Json:
        """Return root and targets in force, and drafts of them that wait for signatures, each as text."""
        return self._object("GET", "tuf/signing")

    def put_metadata(self, role: str, text: str) -> Json:
        """Hand in signed root or targets metadata; return how far they have come."""
        return self._object("PUT", f"tuf/{_segment(role)}", content=text.encode())

    def create_rollout(self, body: Json) -> Json:
        """Create a rollout: ``{"name", "bundle", "cohort", "waves", "policy", "start"}``."""
        return self._object("POST", "rollouts", json=body)

    def plan_rollout(self, body: Json) -> Json:
        """Return what such a rollout would do; nothing is written."""
        return self._object("POST", "rollouts/dry-run", json=body)

    def rollouts(self) -> list[Json]:
        """Return all rollouts."""
        return self._pages("rollouts")

    def rollout(self, name: str) -> Json:
        """Return one rollout."""
        return self._object("GET", f"rollouts/{_segment(name)}")

    def order_rollout(self, name: str, order: str) -> Json:
        """Give an order: ``start``, ``pause``, ``resume``, ``cancel`` or ``roll-back``; return the rollout."""
        return self._object("POST", f"rollouts/{_segment(name)}/{order}")

    def explain_rollout(self, name: str, most: int) -> Json:
        """Return what the gate found at the newest ``most`` looks of a rollout."""
        return self._object("GET", f"rollouts/{_segment(name)}/explanation", params={"most": most})

    def replay_rollout(self, name: str, what_if: Sequence[str]) -> Json:
        """Let the fleet judge a rollout's looks again; ``what_if`` changes the policy, like ``count=3``."""
        return self._object("GET", f"rollouts/{_segment(name)}/replay", params={"what_if": list(what_if)})

    def decide_rollout(self, name: str, decision: str, reason: str) -> Json:
        """``approve`` or ``deny`` a rollout that waits for it; return the rollout."""
        return self._object("POST", f"rollouts/{_segment(name)}/{decision}", json={"reason": reason})

    def alerts(self, *, include_closed: bool = False, **wanted: str | None) -> list[Json]:
        """Return the open alerts, or all of them, of this ``kind`` and ``cohort``."""
        return self._pages("alerts", [*([] if include_closed else [("state", "open")]), *_query(wanted)])

    def alert(self, number: int) -> Json:
        """Return one alert."""
        return self._object("GET", f"alerts/{number}")

    def close_alert(self, number: int) -> Json:
        """Close an alarm, and return it."""
        return self._object("POST", f"alerts/{number}/close")

    def events(self, topic: str, seconds: int | None = None) -> Iterator[Event | None]:
        """Yield what changes of ``topic`` (devices, rollouts or alerts), for so long, or on and on.

        None says that nothing changed for a while. A connection that breaks is opened again, and nothing is missed;
        after half a minute without the fleet :class:`UnreachableError` is raised.
        """
        stream = Stream(self._http, topic, time.monotonic, self._wait)
        try:
            yield from stream.events(seconds)
        except httpx.TransportError as error:
            raise self._unreachable(error) from error

    def _pages(self, path: str, query: list[tuple[str, str]] | None = None) -> list[Json]:
        items: list[Json] = []
        cursor: list[tuple[str, str]] = []
        while True:
            page = self._object("GET", path, params=[*(query or []), *cursor])
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

    def _object(self, method: str, path: str, **arguments: Any) -> Json:
        response = self._request(method, path, **arguments)
        try:
            answer = msgspec.json.decode(response.content)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise self._not_a_fleet(f"{path}: not JSON") from error
        if not isinstance(answer, dict):
            raise self._not_a_fleet(f"{path}: not a JSON object")
        return answer

    def _request(self, method: str, path: str, **arguments: Any) -> httpx.Response:
        try:
            response = self._http.request(method, path, **arguments)
            for _ in range(_MOST_WAITS):
                if response.status_code != httpx.codes.TOO_MANY_REQUESTS:
                    break
                self._wait(_seconds_to_wait(response))
                response = self._http.request(method, path, **arguments)
        except httpx.TransportError as error:
            raise UnreachableError(
                f"the fleet at {self._access.url} does not answer ({str(error) or type(error).__name__}); "
                "see that 'edgeopt-fleet serve' runs and that the address is right"
            ) from error
        if response.is_success:
            return response
        if response.status_code in (502, 503, 504):
            raise UnreachableError(
                f"the fleet at {self._access.url} is not ready ({_detail(response)}); try again in a moment"
            )
        if response.is_server_error:
            raise EdgeoptError(f"the fleet at {self._access.url} failed ({_detail(response)}); its log says more")
        if response.is_client_error:
            raise UsageError(f"the fleet refuses: {_detail(response)}{_advice(response.status_code)}")
        raise self._not_a_fleet(f"{path}: HTTP {response.status_code}")

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


def publish_bundle(
    fleet: FleetClient, bundle: Bundle, on_progress: Callable[[int, int], None] = lambda _sent, _total: None
) -> str:
    """Upload what the fleet lacks of ``bundle`` (already verified) and return its digest.

    ``on_progress(sent, total)`` hears of bytes. An interrupted upload goes on where it stopped when called again.
    Raises :class:`BundleError` when a file changed meanwhile.
    """
    manifest = (bundle.directory / MANIFEST_NAME).read_bytes()
    if digest_of(manifest) != bundle.digest:
        raise BundleError(f"{bundle.directory}: the manifest changed while it was being published; try again")
    places = _block_places(bundle)
    sent = total = 0
    for _ in range(_ROUNDS):
        missing = _missing_blocks(fleet.offer_bundle(manifest), places)
        if not missing:
            return bundle.digest
        total += sum(places[digest].size for digest in missing)
        on_progress(sent, total)
        for digest in missing:
            fleet.put_block(digest, _read_block(digest, places[digest]))
            sent += places[digest].size
            on_progress(sent, total)
    if not _missing_blocks(fleet.offer_bundle(manifest), places):
        return bundle.digest
    raise MessageError("the fleet still lacks blocks that it accepted; its log says more; try again")


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a block lies: ``size`` bytes of ``path`` from ``offset``."""

    path: Path
    offset: int
    size: int


def _block_places(bundle: Bundle) -> dict[str, _Place]:
    places: dict[str, _Place] = {}
    for entry in bundle.manifest.files:
        offset = 0
        for block in entry.blocks:
            places[block.sha256] = _Place(bundle.path_of(entry), offset, block.size)
            offset += block.size
    return places


def _missing_blocks(answer: Json, places: Mapping[str, _Place]) -> list[str]:
    missing = answer.get("missing_blocks")
    if not isinstance(missing, list):
        raise MessageError("the fleet did not say which blocks it lacks; update the older program")
    unknown = [digest for digest in missing if digest not in places]
    if unknown:
        raise MessageError(f"the fleet asks for a block that the bundle does not have: {str(unknown[0])[:80]!r}")
    return list(dict.fromkeys(missing))


def _read_block(digest: str, place: _Place) -> bytes:
    try:
        with place.path.open("rb") as file:
            file.seek(place.offset)
            data = file.read(place.size)
    except OSError as error:
        raise BundleError(f"{place.path} cannot be read any more ({error.strerror})") from error
    if digest_of(data) != digest:
        raise BundleError(
            f"{place.path}: bytes {place.offset}-{place.offset + place.size} are not the block that the manifest "
            "lists; build the bundle again"
        )
    return data


def _query(wanted: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return query parameters; what is None or empty is not asked for."""
    found = []
    for name, value in wanted.items():
        several = value if isinstance(value, list | tuple) else [value]
        found += [(name, str(one).lower() if isinstance(one, bool) else str(one)) for one in several if one is not None]
    return found


def _segment(name: str) -> str:
    """Quote ``name`` so that it stays one segment of the path, whatever it holds."""
    if name in ("", ".", ".."):
        raise UsageError(f"expected a name, got {name!r}")
    return quote(name, safe="")


def _detail(response: httpx.Response) -> str:
    """Return a problem's own words (RFC 9457), or the status when it has none."""
    try:
        problem = msgspec.json.decode(response.content)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        problem = None
    if isinstance(problem, dict):
        for member in ("detail", "title"):
            if isinstance(problem.get(member), str) and problem[member]:
                return str(problem[member])
    return f"HTTP {response.status_code} {response.reason_phrase}".strip()


def _advice(status: int) -> str:
    """Return what to do about a refusal whose words may not say it."""
    if status == httpx.codes.UNAUTHORIZED:
        return "; use the operator.json that 'edgeopt-fleet init' wrote for this fleet"
    return ""


def _seconds_to_wait(response: httpx.Response) -> float:
    """Return what Retry-After says, within reason."""
    text = response.headers.get("retry-after", "1")
    return min(float(text), _LONGEST_WAIT_SECONDS) if text.isdecimal() else 1.0
