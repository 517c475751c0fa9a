"""A fleet in memory that behaves as docs/protocol.md says its HTTP API does, as far as an operator can see.

``FakeFleet.answer`` is the whole API; :func:`transport` puts it behind httpx, :func:`served` behind a real socket.
"""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

import click
import httpx
import pytest

from edgeopt.cli import operate, operate_devices, operate_people, operate_watch
from edgeopt_contract.codec import decode
from edgeopt_contract.commands import run_command
from edgeopt_contract.manifest import Manifest
from edgeopt_contract.values import digest_of

KEY = "operator-key"
Run = Callable[..., tuple[int, str, str]]
Answer = tuple[int, Any]


def problem(status: int, detail: str) -> Answer:
    """An RFC 9457 problem."""
    return status, {"type": "about:blank", "title": "No", "status": status, "detail": detail}


def device_view(name: str, **tags: str) -> dict[str, Any]:
    """A device that has confirmed a bundle and served a little."""
    return {
        "id": name,
        "tags": tags,
        "online": True,
        "boot": 1,
        "running": "a" * 64,
        "agent_version": "0.1.0",
        "capabilities": {"arch": "aarch64", "features": ["neon"], "runtimes": {"onnxruntime": "1.22.0"}},
        "enrolled_at": 1_795_300_000,
        "last_seen": 1_795_300_100,
        "update": {
            "job": f"v1.{name}",
            "bundle": "a" * 64,
            "state": "confirmed",
            "result": "runs_new",
            "detail": "",
            "at": 1_795_300_050,
        },
        "telemetry": {"windows": 2, "rows": 240, "errors": 1},
    }


def rollout_view(state: str, *, waves: tuple[str, ...] = ("running", "waiting"), confirmed: int = 0) -> dict[str, Any]:
    """A rollout to two waves of one device each; ``waves`` are their states."""
    members = [
        {
            "device": f"cam-{index}",
            "wave": index,
            "state": "confirmed" if index < confirmed else ("downloading" if wave == "running" else "waiting"),
            "result": None,
            "detail": "",
            "running": None,
        }
        for index, wave in enumerate(waves)
    ]
    return {
        "name": "v2",
        "bundle": "b" * 64,
        "bundle_name": "digits 2",
        "cohort": "all",
        "state": state,
        "wave": waves.index("running") if "running" in waves else len(waves) - 1,
        "waves": [
            {
                "wave": f"{50 * (index + 1)}%",
                "members": 1,
                "devices": [f"cam-{index}"],
                "executed": int(index < confirmed),
                "confirmed": int(index < confirmed),
                "failed": int(wave == "failed"),
                "state": wave,
            }
            for index, wave in enumerate(waves)
        ],
        "members": members,
        "verdicts": [],
        "policy": {},
        "created_at": 1_795_300_000,
        "updated_at": 1_795_300_000,
    }


@dataclass
class FakeFleet:
    """The state of the fleet; tests set it and look at ``requests``."""

    devices: list[dict[str, Any]] = field(default_factory=list)
    cohorts: dict[str, dict[str, str]] = field(default_factory=lambda: {"all": {}})
    blocks: dict[str, bytes] = field(default_factory=dict)
    manifests: dict[str, bytes] = field(default_factory=dict)
    alerts: list[dict[str, Any]] = field(default_factory=list)
    script: list[Answer] = field(default_factory=list)  # what GET rollouts/v2 answers, one after the other
    planned: dict[str, Any] = field(default_factory=dict)  # what a dry run answers
    compared: dict[str, Any] = field(default_factory=dict)  # how two arms compare
    requests: list[tuple[str, str, Any]] = field(default_factory=list)
    page_size: int = 2
    down: int = 0  # how many requests are answered 503 first

    def answer(self, method: str, target: str, body: bytes, authorization: str | None) -> Answer:
        """Answer one request."""
        path = urlsplit(target).path.removeprefix("/api/v1/")
        query = parse_qsl(urlsplit(target).query)
        if self.down > 0:
            self.down -= 1
            return problem(503, "starting")
        if authorization != f"Bearer {KEY}":
            return problem(401, "the key is wrong")
        if path.startswith("blocks/"):
            return self._put_block(path.removeprefix("blocks/"), body)
        if method == "POST" and path == "bundles":
            return self._post_bundle(body)
        plain = json.loads(body) if body else None
        self.requests.append((method, target.removeprefix("/api/v1/"), plain))
        collection, _, rest = path.partition("/")
        handler = getattr(self, f"_{collection}", None)
        named = {**dict(query), "tags": ",".join(value for name, value in query if name == "tag")}
        return handler(method, unquote(rest), named, plain) if handler else problem(404, f"no {path}")

    def _put_block(self, digest: str, body: bytes) -> Answer:
        if digest_of(body) != digest:
            return problem(400, "the block's digest is another")
        self.blocks[digest] = body
        return 204, None

    def _post_bundle(self, body: bytes) -> Answer:
        manifest = decode(Manifest, body)
        digest = digest_of(body)
        wanted = dict.fromkeys(block.sha256 for entry in manifest.files for block in entry.blocks)
        missing = [block for block in wanted if block not in self.blocks]
        self.manifests[digest] = body
        return 200, {"digest": digest, "name": manifest.name, "version": manifest.version, "missing_blocks": missing}

    def _tuf(self, _method: str, rest: str, _query: dict[str, str], _plain: Any) -> Answer:
        return 200, {"role": rest, "version": 2, "signatures": 1, "threshold": 1, "in_force": True}

    def _tokens(self, _method: str, _rest: str, _query: dict[str, str], _plain: Any) -> Answer:
        return 201, {"token": "one-time", "expires_at": 1_795_400_000}

    def _devices(self, _method: str, rest: str, query: dict[str, str], plain: Any) -> Answer:
        if rest:
            name, _, order = rest.partition("/")
            found = [device for device in self.devices if device["id"] == name]
            if found and order == "tags":
                found[0]["tags"] = plain["tags"]
                return 200, plain
            if found and order in ("reports", "windows", "messages"):
                return 200, {"items": [{"at": 1_795_300_000, "job": "v1", "state": order, "session": 7}]}
            if found and order == "revoke":
                found[0] |= {"online": False, "revoked_at": 1_795_300_200}
            return (200, found[0]) if found else problem(404, f"there is no device {name}")
        wanted = dict(tag.split("=", 1) for tag in query["tags"].split(",") if tag)
        matching = [device for device in self.devices if wanted.items() <= device["tags"].items()]
        start = int(query.get("cursor", 0))
        end = start + self.page_size
        return 200, {"items": matching[start:end], "next": str(end) if end < len(matching) else None}

    def _cohorts(self, method: str, rest: str, _query: dict[str, str], plain: Any) -> Answer:
        if method == "PUT":
            self.cohorts[rest] = plain["tags"]
        views = {name: {"name": name, "tags": tags} for name, tags in self.cohorts.items()}
        if method == "DELETE":
            return (204, None) if self.cohorts.pop(rest, None) is not None else problem(404, f"no cohort {rest}")
        if not rest:
            return 200, {"items": list(views.values())}
        return (200, views[rest]) if rest in views else problem(404, f"there is no cohort {rest}")

    def _bundles(self, _method: str, rest: str, _query: dict[str, str], _plain: Any) -> Answer:
        posted = [self._post_bundle(body)[1] for body in self.manifests.values()]
        views = [
            {**{key: view[key] for key in ("digest", "name", "version")}, "created_at": 1_795_300_000}
            | {"complete": not view["missing_blocks"]}
            for view in posted
        ]
        if rest:
            found = [view for view in views if view["digest"].startswith(rest)]
            return (200, found[0]) if found else problem(404, f"there is no bundle {rest}")
        return 200, {"items": views}

    def _rollouts(self, method: str, rest: str, _query: dict[str, str], plain: Any) -> Answer:
        name, _, order = rest.partition("/")
        if rest == "dry-run":
            return 200, self.planned
        if order == "comparison":
            return 200, self.compared
        if order == "conclude":
            return 200, {"kept": plain["keep"], "rollout": None if plain["keep"] == "both" else rollout_view("running")}
        if order:
            return (
                (200, rollout_view("paused")) if order == "pause" else problem(409, f"cannot {order} a succeeded one")
            )
        if method == "POST":
            if plain["name"] == "taken":
                return problem(409, "there is a rollout 'taken' already")
            return 201, rollout_view("running" if plain["start"] else "draft")
        if not name:
            return 200, {"items": [rollout_view("running")]}
        if name != "v2":
            return problem(404, f"there is no rollout {name}")
        return self.script.pop(0) if len(self.script) > 1 else self.script[0]

    def _events(self, _method: str, _rest: str, _query: dict[str, str], _plain: Any) -> Answer:
        """Tell once of another rollout, then of this one; a client that has not seen enough comes again."""
        told = [("ready", {}), ("rollout", {"name": "v1"}), ("rollout", {"name": "v2"})]
        return 200, "".join(f"event: {name}\nid: 7\ndata: {json.dumps(data)}\n\n" for name, data in told)

    def _alerts(self, _method: str, rest: str, query: dict[str, str], _plain: Any) -> Answer:
        if rest:
            number, _, order = rest.partition("/")
            found = [alert for alert in self.alerts if str(alert["id"]) == number]
            return (200, found[0] | ({"state": "closed"} if order else {})) if found else problem(404, "no alert")
        return 200, {"items": [alert for alert in self.alerts if query.get("state") in (None, alert["state"])]}


def transport(fleet: FakeFleet) -> httpx.MockTransport:
    """Put ``fleet`` behind httpx without a socket."""

    def handle(request: httpx.Request) -> httpx.Response:
        status, answer = fleet.answer(
            request.method, request.url.raw_path.decode(), request.content, request.headers.get("Authorization")
        )
        return httpx.Response(status, content=_body(answer))

    return httpx.MockTransport(handle)


def _body(answer: Any) -> bytes:
    """Return an answer as it travels: text as it is, nothing as nothing, all else as JSON."""
    if answer is None:
        return b""
    return (answer if isinstance(answer, str) else json.dumps(answer)).encode()


@contextlib.contextmanager
def served(fleet: FakeFleet) -> Iterator[str]:
    """Serve ``fleet`` on a free port of the loopback interface and give its address."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def handle_any(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            status, answer = fleet.answer(self.command, self.path, body, self.headers.get("Authorization"))
            data = _body(answer)
            self.send_response(status)
            if status != 204:
                self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        do_GET = do_POST = do_PUT = do_DELETE = handle_any  # noqa: N815  # http.server's names

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  # http.server's name
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


ALERT = {
    "id": 1,
    "kind": "drift",
    "cohort": "oslo",
    "feature": "image.mean",
    "source": "input",
    "bundle": "a" * 64,
    "state": "open",
    "opened_at": 1_795_300_000,
    "last_seen": 1_795_300_000,
    "psi": 1.25,
    "p_value": 1e-12,
    "rows": 400,
    "message": "image.mean moved",
}


@pytest.fixture
def fleet() -> FakeFleet:
    """A fleet with three devices at two sites and one open alert."""
    return FakeFleet(
        devices=[
            device_view("cam-1", site="oslo"),
            device_view("cam-2", site="oslo", line="2"),
            device_view("cam-3", site="bergen"),
        ],
        alerts=[dict(ALERT), {**ALERT, "id": 2, "state": "closed", "cohort": "bergen"}],
    )


@pytest.fixture
def run(
    fleet: FakeFleet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Iterator[Run]:
    """Run a command line against the fleet; return exit code, standard output and standard error."""
    monkeypatch.setattr(operate_watch, "_RETRY_SECONDS", 0.001)
    commands = {
        name: getattr(module, name) for module in (operate, operate_devices, operate_people) for name in module.__all__
    }
    group = click.Group("edgeopt", commands=commands)
    with served(fleet) as url:
        access = tmp_path / "operator.json"
        access.write_text(json.dumps({"url": url, "key": KEY}))
        monkeypatch.setenv("EDGEOPT_FLEET", str(access))

        def invoke(*arguments: str) -> tuple[int, str, str]:
            capfd.readouterr()
            code = run_command(lambda: group.main([*arguments], "edgeopt", standalone_mode=False))
            out, err = capfd.readouterr()
            return code, out, err

        yield invoke
