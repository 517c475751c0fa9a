"""A real Prometheus scrapes a real server; every metric that dashboard and rules name is there."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from edgeopt_fleet.leash import leashed
from edgeopt_fleet.metrics import Metrics
from edgeopt_fleet.serial import Serial
from edgeopt_fleet.store.database import Database
from edgeopt_fleet.watch import Part, Watch
from edgeopt_fleet.web import free_port
from tests.fleet.conftest import eventually
from tests.project.conftest import ROOT

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(200)]

COMMAND = str(Path(sys.executable).with_name("edgeopt-fleet"))
RULES = ROOT / "deploy" / "prometheus" / "alerts.yml"
DASHBOARD = ROOT / "deploy" / "grafana" / "edgeopt-fleet.json"
NAME = re.compile(r"\b(?:edgeopt_fleet_\w+|process_\w+)\b")


def program(name: str) -> str:
    """Return a program of the Debian package prometheus, or skip."""
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not installed (Debian: apt-get install prometheus)")
    return found


@dataclass
class Served:
    """A fleet that is served, and its log."""

    url: str
    log: Path
    process: asyncio.subprocess.Process

    async def get(self, path: str) -> httpx.Response:
        """Ask without a key."""
        async with httpx.AsyncClient(timeout=30) as client:
            return await client.get(f"{self.url}/{path}")


@pytest.fixture
async def served(tmp_path: Path) -> AsyncIterator[Served]:
    """Serve a new fleet with logs as JSON."""
    home, port, log = tmp_path / "fleet", free_port("127.0.0.1"), tmp_path / "log"
    made = await asyncio.create_subprocess_exec(COMMAND, "init", str(home), "--http-port", str(port), stdout=-3)
    assert 0 == await made.wait()
    with log.open("wb") as output:
        command = leashed(COMMAND, "serve", str(home), "--log-format", "json", "--verbose")
        process = await asyncio.create_subprocess_exec(*command, stdout=output, stderr=output)
    served = Served(f"http://127.0.0.1:{port}", log, process)
    try:
        await eventually(lambda: is_at_work(served), "the server to hold all roles and hear the devices")
        yield served
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def is_at_work(served: Served) -> bool:
    """Say whether the server is ready; the first time that it says so it holds all roles and hears the devices."""
    answer = await served.get("readyz")
    if answer.status_code != httpx.codes.OK:
        assert not answer.json()["ready"]
        return False
    assert [] == [check for check in answer.json()["checks"] if not check["ok"]]
    assert "connected" == (await served.get("healthz")).json()["broker"]
    return True


def configured(directory: Path, target: str) -> Path:
    """Write what a Prometheus reads that scrapes ``target`` with the rules that are shipped."""
    directory.mkdir()
    (directory / "alerts.yml").write_text(RULES.read_text())
    (directory / "prometheus.yml").write_text(
        "global: {scrape_interval: 500ms, evaluation_interval: 500ms}\n"
        "rule_files: [alerts.yml]\n"
        f"scrape_configs: [{{job_name: edgeopt-fleet-api, static_configs: [{{targets: ['{target}']}}]}}]\n"
    )
    return directory


@contextlib.asynccontextmanager
async def prometheus(directory: Path) -> AsyncIterator[str]:
    """Run a Prometheus of its own."""
    port = free_port("127.0.0.1")
    command = [
        program("prometheus"),
        f"--config.file={directory / 'prometheus.yml'}",
        f"--storage.tsdb.path={directory / 'data'}",
        f"--web.listen-address=127.0.0.1:{port}",
    ]
    process = await asyncio.create_subprocess_exec(*leashed(*command), stdout=-3, stderr=-3)
    try:
        yield f"http://127.0.0.1:{port}/api/v1"
    finally:
        process.terminate()
        await process.wait()


async def query(url: str, expression: str) -> list[dict[str, Any]]:
    """Ask Prometheus; while it reads its store, before it is ready, there is nothing."""
    async with httpx.AsyncClient(timeout=30) as client:
        answer = await client.get(f"{url}/query", params={"query": expression})
    if answer.status_code == httpx.codes.SERVICE_UNAVAILABLE:
        return []
    found: list[dict[str, Any]] = answer.json()["data"]["result"]
    return found


async def test_a_real_prometheus_scrapes_the_server(served: Served, tmp_path: Path) -> None:
    """The target is up, its series arrive, all rules are evaluated without an error, and every panel's query parses."""
    async with prometheus(configured(tmp_path / "prometheus", served.url.removeprefix("http://"))) as url:
        await eventually(lambda: query(url, "up == 1"), "the server to be scraped")
        assert "1" == (await query(url, 'edgeopt_fleet_lease_held{role="ingest"}'))[0]["value"][1]
        assert "0" == (await query(url, 'max(edgeopt_fleet_role_vacant{role!="retention"})'))[0]["value"][1]

        async def evaluated() -> bool:
            async with httpx.AsyncClient(timeout=30) as client:
                groups = (await client.get(f"{url}/rules")).json()["data"]["groups"]
            rules = [rule for group in groups for rule in group["rules"]]
            assert not [rule["lastError"] for rule in rules if rule.get("lastError")]
            return bool(rules) and all(rule["health"] == "ok" for rule in rules)

        await eventually(evaluated, "the rules to be evaluated")
        for panel in json.loads(DASHBOARD.read_text())["panels"]:
            for target in panel["targets"]:
                await query(url, target["expr"])


async def test_promtool_finds_nothing_wrong_with_the_metrics(served: Served) -> None:
    """Names, units, help texts and types follow Prometheus' conventions."""
    text = (await served.get("metrics")).content
    command = [program("promtool"), "check", "metrics"]
    done = await asyncio.to_thread(subprocess.run, command, input=text, capture_output=True, check=False)
    assert (0, b"") == (done.returncode, done.stdout + done.stderr)


def test_promtool_finds_nothing_wrong_with_the_rules() -> None:
    """Every expression parses, every template, too."""
    done = subprocess.run([program("promtool"), "check", "rules", str(RULES)], capture_output=True, check=False)
    assert 0 == done.returncode, done.stderr


def test_every_metric_of_dashboard_and_rules_exists(tmp_path: Path) -> None:
    """A name that is mistyped, or renamed in the code, would be an alert that never fires."""
    database, serial, metrics = Database.create(tmp_path / "fleet.db"), Serial(), Metrics()
    watch = Watch(database, serial, metrics, Part(hears=lambda: True))
    asyncio.run(watch.look())
    serial.close()
    database.close()
    there = set()
    for family in metrics.registry.collect():
        endings = {"counter": ("_total",), "histogram": ("_bucket", "_sum", "_count")}.get(family.type, ("",))
        there |= {family.name + ending for ending in endings}
    dashboard = json.loads(DASHBOARD.read_text())
    queries = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    queries += re.findall(r"expr: (?:>-\n)?(.*?)(?=\n +(?:for|labels):)", RULES.read_text(), re.DOTALL)
    named = {name for text in queries for name in NAME.findall(text)}
    assert len(named) > 20
    assert set() == named - there
    ours = {name.removesuffix("_bucket") for name in there if name.startswith("edgeopt_fleet_")}
    unused = {name for name in ours if not name.endswith(("_sum", "_count")) and not any(name in n for n in named)}
    assert set() == unused, "measured, but nobody looks at it"


async def test_sigterm_hands_the_roles_back(served: Served) -> None:
    """The process ends in order, with exit code 0, and its log says which roles it gave up; each line is JSON."""
    served.process.send_signal(signal.SIGTERM)
    assert 0 == await asyncio.wait_for(served.process.wait(), 60)
    lines = [line for line in served.log.read_text().splitlines() if not line.startswith("fleet is ready")]
    events = [json.loads(line) for line in lines]
    assert {"ingest", "rollouts", "drift", "tuf"} <= {one["role"] for one in events if one["event"] == "role.released"}
    assert all({"time", "level", "logger", "event", "message"} <= set(one) for one in events)


async def test_a_request_s_id_is_answered_and_logged(served: Served) -> None:
    """One that came is kept when it is harmless, and stands in the lines that the request caused."""
    async with httpx.AsyncClient(timeout=30) as client:
        answer = await client.post(f"{served.url}/api/v1/tokens", headers={"X-Request-ID": "from-the-proxy.1"})
        assert "from-the-proxy.1" == answer.headers["x-request-id"]
        hostile = await client.get(f"{served.url}/healthz", headers={"X-Request-ID": 'a"b{}'})
        assert 32 == len(hostile.headers["x-request-id"])
    events = [json.loads(line) for line in served.log.read_text().splitlines() if line.startswith("{")]
    (answered,) = [one for one in events if one.get("request_id") == "from-the-proxy.1"]
    assert ("http.answered", "/api/v1/tokens", 401) == (answered["event"], answered["route"], answered["status"])


async def test_readiness_names_what_is_there_and_who_holds_what(served: Served) -> None:
    """Database, broker and every role, each with words."""
    found = (await served.get("readyz")).json()
    names = [check["name"] for check in found["checks"]]
    assert ["database", "broker", "role ingest", "role rollouts", "role drift", "role tuf", "role retention"] == names
    assert found["ready"]
    assert "held by serve@" in next(c["detail"] for c in found["checks"] if c["name"] == "role ingest")
    assert "connected" == (await served.get("healthz")).json()["broker"]
