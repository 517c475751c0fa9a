"""The operations of the fleet's HTTP API, each a method that returns the fleet's answer as plain JSON values.

How a request travels and fails is ``fleet_http``'s part; a bundle is published by ``fleet_publishing``. It prints
nothing. Example::

    with FleetClient(load_access(Path("fleet/operator.json"))) as fleet:
        digest = publish_bundle(fleet, open_bundle(Path("digits-bundle")))
        fleet.create_rollout({"name": "v2", "bundle": digest, "cohort": "all", "waves": [20, 100]})
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Mapping, Sequence
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote

import httpx

from edgeopt.fleet_access import FleetAccess
from edgeopt.fleet_events import Event
from edgeopt.fleet_http import FleetHttp, Json
from edgeopt_contract.errors import UsageError

__all__ = ["FleetClient"]


class FleetClient:
    """Speaks ``/api/v1`` for an operator. Every method may raise what :class:`FleetHttp` raises."""

    def __init__(
        self,
        access: FleetAccess,
        transport: httpx.BaseTransport | None = None,
        wait: Callable[[float], None] = time.sleep,
    ) -> None:
        self._http = FleetHttp(access, transport, wait)

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
        return self._http.create("tokens", body)

    def tokens(self) -> list[Json]:
        """Return all tokens without their secrets, newest first."""
        return self._http.pages("tokens")

    def revoke_token(self, token: str) -> Json:
        """Make a token worthless, by its id."""
        return self._http.item("POST", f"tokens/{_segment(token)}/revoke")

    def me(self) -> Json:
        """Return whose key this is: ``{"name", "role", "prefix"}``."""
        return self._http.item("GET", "me")

    def users(self) -> list[Json]:
        """Return all users with their keys' beginnings."""
        return self._http.pages("users")

    def create_user(self, name: str, role: str, lifetime_seconds: int | None) -> Json:
        """Add a user and return the key, which cannot be read again."""
        return self._http.create("users", {"name": name, "role": role, "expires_in_seconds": lifetime_seconds})

    def change_role(self, name: str, role: str) -> Json:
        """Give a user another role."""
        return self._http.item("PUT", f"users/{_segment(name)}/role", json={"role": role})

    def rotate_key(self, name: str | None, overlap_seconds: int, lifetime_seconds: int | None) -> Json:
        """Return a new key of a user, or one's own; those before it end after the overlap."""
        body = {"overlap_seconds": overlap_seconds, "expires_in_seconds": lifetime_seconds}
        return self._http.create("me/rotate" if name is None else f"users/{_segment(name)}/rotate", body)

    def revoke_user(self, name: str, prefix: str = "") -> Json:
        """Take a user out, or one key."""
        return self._http.item("POST", f"users/{_segment(name)}/revoke", json={"prefix": prefix})

    def audit(self, *, actor: str, operation: str, subject: str, limit: int) -> list[Json]:
        """Return the newest entries of the audit log that fit; an empty filter fits all."""
        wanted = {"actor": actor, "operation": operation, "subject": subject}
        query = {name: value for name, value in wanted.items() if value} | {"limit": str(limit)}
        return list(self._http.item("GET", "audit", params=query).get("items") or [])

    def export_audit(self) -> bytes:
        """Return the whole audit log as lines of JSON."""
        return self._http.request("GET", "audit/export").content

    def devices(self, tags: Mapping[str, str] | None = None, wanted: Mapping[str, Any] | None = None) -> list[Json]:
        """Return all devices that carry all of ``tags`` and fit ``wanted``, from as many pages as there are."""
        query = [("tag", f"{key}={value}") for key, value in (tags or {}).items()]
        return self._http.pages("devices", [*query, *_query(wanted or {})])

    def device(self, device: str) -> Json:
        """Return one device."""
        return self._http.item("GET", f"devices/{_segment(device)}")

    def device_part(self, device: str, part: str, limit: int | None = None) -> list[Json]:
        """Return the newest ``reports``, ``windows`` or spools (``messages``) of a device."""
        query = {} if limit is None else {"limit": str(limit)}
        return list(self._http.item("GET", f"devices/{_segment(device)}/{part}", params=query).get("items") or [])

    def put_device_tags(self, device: str, tags: Mapping[str, str], if_match: str | None = None) -> Json:
        """Give a device these tags; with ``if_match`` only if nobody changed them since."""
        headers = {} if if_match is None else {"If-Match": if_match}
        return self._http.item("PUT", f"devices/{_segment(device)}/tags", json={"tags": dict(tags)}, headers=headers)

    def revoke_device(self, device: str) -> Json:
        """Take the identity of a device away, and return the device."""
        return self._http.item("POST", f"devices/{_segment(device)}/revoke")

    def save_cohort(
        self, name: str, tags: Mapping[str, str], wanted: Mapping[str, Any] | None = None, if_match: str | None = None
    ) -> Json:
        """Save a filter as the cohort ``name`` and return it; with ``if_match`` only if nobody changed it since."""
        headers = {} if if_match is None else {"If-Match": if_match}
        body = {"tags": dict(tags), **(wanted or {})}
        return self._http.item("PUT", f"cohorts/{_segment(name)}", json=body, headers=headers)

    def delete_cohort(self, name: str) -> None:
        """Forget a cohort that nobody uses."""
        self._http.request("DELETE", f"cohorts/{_segment(name)}")

    def cohorts(self) -> list[Json]:
        """Return all cohorts."""
        return self._http.pages("cohorts")

    def cohort(self, name: str) -> Json:
        """Return one cohort."""
        return self._http.item("GET", f"cohorts/{_segment(name)}")

    def put_block(self, sha256: str, data: bytes) -> None:
        """Store one block."""
        self._http.request(
            "PUT", f"blocks/{sha256}", content=data, headers={"Content-Type": "application/octet-stream"}
        )

    def offer_bundle(self, manifest: bytes) -> Json:
        """Announce a bundle by its exact manifest; return ``{"digest", "name", "version", "missing_blocks"}``."""
        return self._http.item("POST", "bundles", content=manifest, headers={"Content-Type": "application/json"})

    def bundles(self, **wanted: str | bool | None) -> list[Json]:
        """Return all bundles of this ``name``, ``version``, ``complete`` or not."""
        return self._http.pages("bundles", _query(wanted))

    def bundle(self, digest: str) -> Json:
        """Return the bundle whose digest begins so."""
        return self._http.item("GET", f"bundles/{_segment(digest)}")

    def metadata_to_sign(self) -> Json:
        """Return root and targets in force, and drafts of them that wait for signatures, each as text."""
        return self._http.item("GET", "tuf/signing")

    def put_metadata(self, role: str, text: str) -> Json:
        """Hand in signed root or targets metadata; return how far they have come."""
        return self._http.item("PUT", f"tuf/{_segment(role)}", content=text.encode())

    def create_rollout(self, body: Json) -> Json:
        """Create a rollout: ``{"name", "bundle", "cohort", "waves", "policy", "start"}``."""
        return self._http.create("rollouts", body)

    def plan_rollout(self, body: Json) -> Json:
        """Return what such a rollout would do; nothing is written."""
        return self._http.item("POST", "rollouts/dry-run", json=body)

    def rollouts(self) -> list[Json]:
        """Return all rollouts."""
        return self._http.pages("rollouts")

    def rollout(self, name: str) -> Json:
        """Return one rollout."""
        return self._http.item("GET", f"rollouts/{_segment(name)}")

    def order_rollout(self, name: str, order: str) -> Json:
        """Give an order: ``start``, ``pause``, ``resume``, ``cancel`` or ``roll-back``; return the rollout."""
        return self._http.item("POST", f"rollouts/{_segment(name)}/{order}")

    def explain_rollout(self, name: str, most: int) -> Json:
        """Return what the gate found at the newest ``most`` looks of a rollout."""
        return self._http.item("GET", f"rollouts/{_segment(name)}/explanation", params={"most": most})

    def replay_rollout(self, name: str, what_if: Sequence[str]) -> Json:
        """Let the fleet judge a rollout's looks again; ``what_if`` changes the policy, like ``count=3``."""
        return self._http.item("GET", f"rollouts/{_segment(name)}/replay", params={"what_if": list(what_if)})

    def compare_rollout(self, name: str) -> Json:
        """Return how the two arms of a rollout compare, or how far their observation is."""
        return self._http.item("GET", f"rollouts/{_segment(name)}/comparison")

    def conclude_rollout(self, name: str, body: Json) -> Json:
        """Decide between two arms: ``{"keep", "rollout"}``; return ``{"kept", "rollout"}``."""
        return self._http.create(f"rollouts/{_segment(name)}/conclude", body)

    def decide_rollout(self, name: str, decision: str, reason: str) -> Json:
        """``approve`` or ``deny`` a rollout that waits for it; return the rollout."""
        return self._http.item("POST", f"rollouts/{_segment(name)}/{decision}", json={"reason": reason})

    def create_shadow(self, body: Json) -> Json:
        """Create a shadow: ``{"name", "bundle", "cohort", "share", "until", "policy", "start"}``."""
        return self._http.create("shadows", body)

    def shadows(self) -> list[Json]:
        """Return all shadows without their members."""
        return self._http.pages("shadows")

    def shadow(self, name: str) -> Json:
        """Return one shadow."""
        return self._http.item("GET", f"shadows/{_segment(name)}")

    def shadow_agreement(self, name: str) -> Json:
        """Return how the challenger agrees, by device and by class."""
        return self._http.item("GET", f"shadows/{_segment(name)}/agreement")

    def replay_shadow(self, name: str, what_if: Sequence[str]) -> Json:
        """Let the fleet judge a shadow's looks again; ``what_if`` changes the policy, like ``minimum_rows=200``."""
        return self._http.item("GET", f"shadows/{_segment(name)}/looks", params={"what_if": list(what_if)})

    def order_shadow(self, name: str, order: str) -> Json:
        """``start`` or ``end`` a shadow; return it."""
        return self._http.item("POST", f"shadows/{_segment(name)}/{order}")

    def alerts(self, *, include_closed: bool = False, **wanted: str | None) -> list[Json]:
        """Return the open alerts, or all of them, of this ``kind`` and ``cohort``."""
        return self._http.pages("alerts", [*([] if include_closed else [("state", "open")]), *_query(wanted)])

    def alert(self, number: int) -> Json:
        """Return one alert."""
        return self._http.item("GET", f"alerts/{number}")

    def close_alert(self, number: int) -> Json:
        """Close an alarm, and return it."""
        return self._http.item("POST", f"alerts/{number}/close")

    def events(
        self, topic: str, seconds: int | None = None, lost: Callable[[str], None] | None = None
    ) -> Generator[Event | None]:
        """Return what changes of ``topic`` (devices, rollouts, shadows or alerts), for so long, or on and on.

        None says that nothing changed for a while. A connection that breaks is opened again, and nothing is missed;
        ``lost`` is told why it broke. After half a minute without the fleet :class:`UnreachableError` is raised.
        """
        return self._http.events(topic, seconds, lost)


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
