from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from edgeopt_contract.messages import DeviceState
from edgeopt_contract.values import digest_of
from edgeopt_fleet.rights import OPERATIONS, Caller
from edgeopt_fleet.store.inbox import Incoming
from tests.fleet.conftest import Api, make_bundle, window

PUBLIC = {path for operation, least in OPERATIONS.items() if least is Caller.ANYONE for path in operation.split()[1:]}


async def publish(api: Api, version: str) -> str:
    """Publish a bundle the way the operator's command does."""
    bundle = make_bundle(api.kit.directory / f"b{version}", version)
    manifest = (bundle.directory / "manifest.json").read_bytes()
    posted = await api.call("POST", "bundles", 200, content=manifest)
    missing = set(posted["missing_blocks"])
    for entry in bundle.manifest.files:
        data, offset = bundle.path_of(entry).read_bytes(), 0
        for block in entry.blocks:
            if block.sha256 in missing:
                content = data[offset : offset + block.size]
                await api.call("PUT", f"blocks/{block.sha256}", 204, content=content)
            offset += block.size
    posted = await api.call("POST", "bundles", 200, content=manifest)
    assert [] == posted["missing_blocks"]
    assert bundle.digest == posted["digest"]
    return bundle.digest


async def test_health_needs_no_key(api: Api) -> None:
    """Anybody may ask whether the server is there."""
    answer = await api.client.get("/healthz", headers={"Authorization": ""})
    assert {"status": "ok", "broker": "connected"} == answer.json()


@pytest.mark.parametrize("header", ["", "Bearer", "Bearer wrong", "Basic a2V5", "Bearer \u00e9"])
async def test_every_route_but_the_public_ones_needs_the_key(api: Api, header: str) -> None:
    """401 with a problem and the challenge, on every route that the schema lists."""
    schema = (await api.client.get("/openapi.json")).json()
    routes = [(path, method) for path, methods in schema["paths"].items() for method in methods]
    assert len(routes) >= 18
    for path, method in routes:
        if path in PUBLIC:
            continue
        answer = await api.client.request(method, path, headers={"Authorization": header.encode()})
        assert (401, "Bearer") == (answer.status_code, answer.headers.get("www-authenticate")), path


async def test_the_schema_describes_problems_and_examples(api: Api) -> None:
    """Each operation says what it does and answers problems; each model of ours shows an example somewhere."""
    schema = (await api.client.get("/openapi.json")).json()
    for path, methods in schema["paths"].items():
        for method, operation in methods.items():
            assert operation["description"], (path, method)
            assert {"401", "403", "422", "429", "500", "503", "507"} <= set(operation["responses"]), (path, method)
            assert "default" not in operation["responses"], (path, method)
    assert "examples" in str(schema["components"]["schemas"]["RolloutView"])


async def test_pages_and_tags(api: Api) -> None:
    """The list can be paged and filtered by one tag."""
    api.kit.enrol("a", "b", "c", site="oslo")
    api.kit.enrol("d", site="lima")
    first = await api.call("GET", "devices?limit=3", 200)
    assert ["a", "b", "c"] == [item["id"] for item in first["items"]]
    rest = await api.call("GET", f"devices?limit=3&cursor={first['next']}", 200)
    assert (["d"], None) == ([item["id"] for item in rest["items"]], rest["next"])
    assert ["d"] == [item["id"] for item in (await api.call("GET", "devices?tag=site=lima", 200))["items"]]
    await api.call("GET", "devices?tag=site", 422)
    await api.call("GET", "devices?limit=0", 422)


async def test_publishing(api: Api) -> None:
    """Missing blocks are named, uploads checked, and the bundle found by a prefix."""
    digest = await publish(api, "1")
    view = await api.call("GET", f"bundles/{digest[:10]}", 200)
    assert (digest, "digits", "1", True) == (view["digest"], view["name"], view["version"], view["complete"])
    assert [digest] == [item["digest"] for item in (await api.call("GET", "bundles", 200))["items"]]
    await api.call("PUT", f"blocks/{digest_of(b'a')}", 422, content=b"b")
    await api.call("PUT", f"blocks/{digest_of(b'a')}", 413, content=b"b" * 200_000)
    await api.call("POST", "bundles", 413, content=b"b" * 1_100_000)
    await api.call("GET", "bundles/0000", 404)


async def test_cohorts(api: Api) -> None:
    """A saved filter; ``all`` is always there; its devices are a list of devices."""
    api.kit.enrol("a", site="oslo")
    api.kit.enrol("b")
    saved = await api.call("PUT", "cohorts/oslo", 200, json={"tags": {"site": "oslo"}})
    await api.call("PUT", "cohorts/lima", 200, json={"tags": {"site": "lima"}, "health": "ok"})
    assert ["all", "lima", "oslo"] == [c["name"] for c in (await api.call("GET", "cohorts", 200))["items"]]
    assert saved == await api.call("GET", "cohorts/oslo", 200)
    assert ("oslo", {"site": "oslo"}, None) == tuple(saved[name] for name in ("name", "tags", "health"))
    assert ["a"] == [item["id"] for item in (await api.call("GET", "devices?cohort=oslo", 200))["items"]]
    await api.call("GET", "cohorts/mars", 404)
    await api.call("GET", "devices?cohort=mars", 404)
    await api.call("PUT", "cohorts/all", 422, json={"tags": {"site": "oslo"}})
    await api.call("PUT", "cohorts/-x", 422, json={})
    await api.call("PUT", "cohorts/x", 422, json={"tags": {"a\u0000": "b"}})
    await api.call("DELETE", "cohorts/lima", 204)
    await api.call("DELETE", "cohorts/lima", 404)


async def test_a_rollout_with_a_window(api: Api) -> None:
    """Window and earliest time are taken, shown again, and refused when they are none."""
    api.kit.enrol("cam-0")
    digest = await publish(api, "1")
    window = {"start": "22:00", "end": "04:00", "days": ["sat"]}
    body = {"name": "v1", "bundle": digest, "policy": {"window": window, "not_before": 2000}}
    view = await api.call("POST", "rollouts", 201, json=body)
    assert (window, 2000) == (view["policy"]["window"], view["policy"]["not_before"])
    for wrong in ({"window": {"start": "22", "end": "04:00"}}, {"window": {"start": "22:00"}}, {"not_before": -1}):
        await api.call("POST", "rollouts", 422, json={**body, "name": "v2", "policy": wrong})


async def test_a_device_shows_gauges_and_last_reports(api: Api) -> None:
    """The gauges are those of the newest window, in whatever order windows arrive; the reports are the last ten."""
    api.kit.enrol("cam-0")
    assert ({}, None, []) == _shown(await api.call("GET", "devices/cam-0", 200))
    for number, temperature in ((20, 60.0), (19, 50.0)):
        record = replace(window("0" * 64, number), infrastructure={"temperature_celsius": temperature})
        api.kit.inbox.store([Incoming(device="cam-0", record=record)], api.kit.now)
    for number in range(12):
        api.kit.report("cam-0", DeviceState.DOWNLOADING, None, job=f"job-{number}")
    gauges, at, reports = _shown(await api.call("GET", "devices/cam-0", 200))
    assert ({"temperature_celsius": 60.0}, 121) == (gauges, at)
    assert [f"job-{number}" for number in range(11, 1, -1)] == [report["job"] for report in reports]
    assert [] == (await api.call("GET", "devices", 200))["items"][0]["reports"]


def _shown(view: Any) -> tuple[Any, Any, Any]:
    return view["gauges"], view["gauges_at"], view["reports"]


async def test_a_rollout_from_draft_to_rolled_back(api: Api) -> None:
    """Create, start, pause, resume and roll back over the API; what does not fit the state is a 409."""
    api.kit.enrol(*(f"cam-{n}" for n in range(5)))
    digest = await publish(api, "1")
    body = {"name": "v1", "bundle": digest[:8], "waves": [20, 100], "start": False, "policy": {"bake_seconds": 1}}

    view = await api.call("POST", "rollouts", 201, json=body)
    assert ("draft", digest, "digits 1", "all", 0) == tuple(
        view[name] for name in ("state", "bundle", "bundle_name", "cohort", "wave")
    )
    assert ["waiting", "waiting"] == [wave["state"] for wave in view["waves"]]
    await api.call("POST", "rollouts/v1/pause", 409)
    await api.call("POST", "rollouts", 409, json=body)
    await api.call("POST", "rollouts", 409, json={**body, "name": "v2"})

    view = await api.call("POST", "rollouts/v1/start", 200)
    (canary,) = view["waves"][0]["devices"]
    assert [{canary}] == api.announced
    assert ["running", "waiting"] == [wave["state"] for wave in view["waves"]]
    assert {"offered": 1, "waiting": 4} == _count(member["state"] for member in view["members"])
    assert "paused" == (await api.call("POST", "rollouts/v1/pause", 200))["state"]
    assert "running" == (await api.call("POST", "rollouts/v1/resume", 200))["state"]
    api.kit.report(canary, DeviceState.CONFIRMED, digest)
    await api.worker.tick()
    view = await api.call("GET", "rollouts/v1", 200)
    assert (1, 1, 0) == tuple(view["waves"][0][name] for name in ("executed", "confirmed", "failed"))

    view = await api.call("POST", "rollouts/v1/roll-back", 200)
    assert ("rolled_back", "failed") == (view["state"], view["waves"][0]["state"]), "it ran nothing before"
    await api.call("POST", "rollouts/v1/cancel", 409)
    assert ["v1"] == [item["name"] for item in (await api.call("GET", "rollouts", 200))["items"]]
    await api.call("GET", "rollouts/v9", 404)
    await api.call("POST", "rollouts/v1/destroy", 404)


def _count(states: Any) -> dict[str, int]:
    counts: dict[str, int] = {}
    for state in states:
        counts[state] = counts.get(state, 0) + 1
    return counts


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"waves": [50, 20]}, "cumulative"),
        ({"waves": []}, "waves"),
        ({"waves": [0, 100]}, "waves"),
        ({"policy": {"failure_threshold": 2}}, "failure_threshold"),
        ({"policy": {"failure_treshold": 0.2}}, "failure_treshold"),
        ({"policy": {"bake_seconds": "soon"}}, "bake_seconds"),
        ({"policy": {"max_confidence_drop": 0}}, "max_confidence_drop"),
        ({"name": "../x"}, "name"),
        ({"name": "x" * 49}, "name"),
        ({"colour": "red"}, "colour"),
        ({"bundle": "%"}, "hex digits"),
    ],
)
async def test_a_rollout_that_cannot_be_meant(api: Api, change: dict[str, Any], words: str) -> None:
    """Impossible waves and policies and misspelt fields: 422, and the problem names the field."""
    api.kit.enrol("cam-1")
    digest = api.kit.publish("1")
    problem = await api.call("POST", "rollouts", 422, json={"name": "v1", "bundle": digest, **change})
    assert words in problem["detail"]


async def test_the_worker_carries_a_rollout_on(api: Api) -> None:
    """From the first wave to success by ticks, announcing each wave's devices once."""
    api.kit.enrol(*(f"cam-{n}" for n in range(4)))
    digest = api.kit.publish("1")
    await api.call(
        "POST",
        "rollouts",
        201,
        json={"name": "v1", "bundle": digest, "waves": [25, 100], "policy": {"minimum_rows": 50}},
    )
    for _ in range(2):
        view = await api.call("GET", "rollouts/v1", 200)
        for device in view["waves"][view["wave"]]["devices"]:
            api.kit.report(device, DeviceState.CONFIRMED, digest)
            api.kit.serve(device, digest)
        await api.worker.tick()
        await api.worker.tick()
    view = await api.call("GET", "rollouts/v1", 200)
    assert "succeeded" == view["state"]
    assert [1, 3] == [len(devices) for devices in api.announced]
    assert ["passed", "passed"] == [wave["state"] for wave in view["waves"]]
    messages = await api.call("GET", "devices/cam-0/messages", 200)
    assert [{"session": 1, "stored": 2, "upto": 2, "rows": 60, "errors": 0}] == messages["items"]


async def test_alerts(api: Api) -> None:
    """An alert is listed with what the CLI shows."""
    digest = api.kit.publish("1")
    api.kit.enrol("a")
    api.kit.status("a", running=digest, boot=2)
    api.kit.alerts.look(api.kit.now)
    for _ in range(2):
        for _ in range(4):
            api.kit.serve("a", digest, brightness=0.9)
        api.kit.alerts.look(api.kit.now)
    (alert,) = (await api.call("GET", "alerts?state=open", 200))["items"]
    assert ("drift", "all", "brightness", "input", "open") == tuple(
        alert[name] for name in ("kind", "cohort", "feature", "source", "state")
    )
    assert [] == (await api.call("GET", "alerts?state=closed", 200))["items"]
    await api.call("GET", "alerts?state=loud", 422)


async def test_unknown_paths_and_methods_are_problems(api: Api) -> None:
    """Also what the framework refuses by itself."""
    await api.call("GET", "nothing", 404)
    await api.call("DELETE", "devices", 405)


async def test_a_bundle_s_page_says_what_it_is_and_where_it_runs(api: Api) -> None:
    """Variants with what they need and weigh, who signed it, the devices that run it, the rollouts that bring it."""
    first, second = api.kit.publish("1"), api.kit.publish("2")
    api.kit.enrol("a", "b")
    api.kit.status("a", running=second, boot=2)
    await api.call("POST", "rollouts", 201, json={"name": "v2", "bundle": second, "start": False, "no_recall": True})
    page = await api.call("GET", f"bundles/{second[:12]}", 200)
    (variant,) = page["variants"]
    assert ("int8", 200_000, "onnxruntime 1.20", []) == tuple(
        variant[key] for key in ("name", "size", "runtime", "arch")
    )
    assert 200_000 + 100 < variant["download"] < page["size"], "golden inputs and profile, and no evidence"
    assert (500, ["brightness", "confidence"]) == (page["profile_rows"], page["profile_features"])
    assert {"in_force": True, "signatures": 1, "threshold": 1, "counter": 2, "rollback": [first]} == page["signature"]
    assert (1, ["report.html"]) == (page["running_on"], page["evidence"])
    assert [{"name": "v2", "state": "draft", "cohort": "all"}] == page["rollouts"]
    assert 0 == (await api.call("GET", f"bundles/{first[:12]}", 200))["running_on"]
