"""What deploy/ promises: every file parses, and names only commands, options, settings, files and ports that exist."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import click
import pytest
import yaml

from edgeopt_fleet.cli import group
from edgeopt_fleet.config import ENVIRONMENT, FleetConfig, read_settings, write_config
from tests.project.conftest import ROOT
from tools import settings_table

DEPLOY = ROOT / "deploy"
COMPOSE = yaml.safe_load((DEPLOY / "compose.yaml").read_text(encoding="utf-8"))
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
FLEET = {name: service for name, service in SERVICES.items() if "edgeopt-fleet" in service["image"]}
UNITS = sorted((DEPLOY / "systemd").glob("*.service"))
VARIABLE = re.compile(r"\$\{(\w+):-([^}]*)\}")


def program(name: str, package: str) -> str:
    """Return a program, or skip with how to get it."""
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not installed (apt-get install {package})")
    return found


def filled(text: str) -> str:
    """Return a text of the compose file with the defaults of its variables."""
    return VARIABLE.sub(lambda match: match[2], text)


def parse(arguments: list[str]) -> click.Context:
    """Let click read the words of an ``edgeopt-fleet`` command: raises for a verb or option that there is not."""
    command = group.commands[arguments[0]]
    return command.make_context(arguments[0], list(arguments[1:]))


@pytest.mark.parametrize("name", FLEET)
def test_commands_of_the_compose_file_parse(name: str) -> None:
    """Verbs, options and their values; a node is one that init is told of."""
    context = parse([filled(word) for word in FLEET[name]["command"]])
    assert "/fleet/home" == str(context.params["directory"])
    if context.info_name == "broker":
        assert context.params["node"] in {node.partition("=")[0] for node in init().params["broker_nodes"]}


def init() -> click.Context:
    """Return the command that makes the fleet."""
    return parse([filled(word) for word in FLEET["init"]["command"]])


def settings() -> FleetConfig:
    """Return what init would write there."""
    context = init()
    names = {field.name for field in dataclasses.fields(FleetConfig)}
    return FleetConfig(**{name: value for name, value in context.params.items() if name in names})


@pytest.mark.parametrize("name", sorted(set(FLEET) - {"init"}))
def test_every_process_would_start_with_its_settings(name: str, tmp_path: Path) -> None:
    """What init writes, with the variables of each container in their place, are settings that are taken."""
    path = tmp_path / "fleet.toml"
    path.write_text(write_config(settings()))
    environment = {key: filled(value) for key, value in FLEET[name]["environment"].items()}
    config, sources = read_settings(path, environment)
    assert set(environment) == {source for source in sources.values() if source.startswith(ENVIRONMENT)}
    assert config.database == settings().database
    assert {address.rpartition(":")[0] for address in config.brokers} <= set(SERVICES)
    for node in config.broker_nodes:
        assert node.partition("=")[2].split(":")[0] in SERVICES


def test_images_are_variables_without_a_registry() -> None:
    """Whoever has a mirror names it; nobody is sent to a host that was chosen here."""
    for name, service in SERVICES.items():
        match = VARIABLE.fullmatch(service["image"])
        assert match, name
        first = match[2].split("/")[0]
        assert "." not in first.partition(":")[0], f"{name}: {match[2]} names a host"
    assert "FROM ${PYTHON_IMAGE}" in (DEPLOY / "Dockerfile").read_text()


def test_volumes_are_declared_and_files_are_there() -> None:
    """A mistyped path would be an empty directory in the container."""
    for name, service in SERVICES.items():
        for volume in service.get("volumes", ()):
            source = volume.split(":")[0]
            assert (DEPLOY / source).exists() if source.startswith(".") else source in COMPOSE["volumes"], (
                name,
                volume,
            )


def test_ports_are_those_that_processes_listen_on() -> None:
    """No two services take one port of the machine, and what is passed on is where somebody listens."""
    taken = [port.split(":")[0] for service in SERVICES.values() for port in service.get("ports", ())]
    assert len(set(taken)) == len(taken)
    config = settings()
    assert {str(config.http_port), str(config.mqtt_port)} <= set(taken)
    balanced = (DEPLOY / "haproxy" / "haproxy.cfg").read_text()
    servers = re.findall(r"^  server \S+ (\S+):(\d+) check", balanced, re.MULTILINE)
    expected = {(name, "8080") for name in SERVICES if name.startswith("api-")}
    expected |= {(f"node-{node}", "8883") for node in "abc"}
    assert expected == set(servers)
    scraped = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yml").read_text())["scrape_configs"]
    targets = {target for job in scraped for entry in job["static_configs"] for target in entry["targets"]}
    worker_port = FLEET["worker-1"]["environment"]["EDGEOPT_FLEET_WORKER_PORT"]
    processes = [name for name in FLEET if name.startswith(("api-", "worker-"))]
    assert {f"{n}:{'8080' if n.startswith('api') else worker_port}" for n in processes} == targets


def test_health_checks_ask_where_the_process_answers() -> None:
    """A check of another port or path would restart what is well."""
    for name, service in FLEET.items():
        if "healthcheck" not in service:
            continue
        port = "8080" if name.startswith("api") else service["environment"]["EDGEOPT_FLEET_WORKER_PORT"]
        assert f"http://127.0.0.1:{port}/readyz" in service["healthcheck"]["test"][-1]


@pytest.mark.parametrize("path", UNITS, ids=lambda path: path.name)
def test_systemd_finds_nothing_wrong(path: Path, tmp_path: Path) -> None:
    """Every key is one of systemd's, and the command is one of ours."""
    text = path.read_text()
    ordered = re.findall(r"^ExecStart=/opt/edgeopt/bin/edgeopt-fleet (.*)$", text, re.MULTILINE)
    for command in ordered:
        parse(command.replace("%i", "a").split())
    assert ordered or "mosquitto" in path.name
    name = path.name.replace("@.", "@a.")
    binary = tmp_path / "edgeopt-fleet"
    binary.write_text("#!/bin/sh\n")
    binary.chmod(0o755)
    here = re.sub(r"ExecStart=\S+", f"ExecStart={binary}", text)  # systemd looks whether it is there
    (tmp_path / name).write_text(here)
    order = [program("systemd-analyze", "systemd"), "verify", "--man=no", str(tmp_path / name)]
    done = subprocess.run(order, capture_output=True, text=True, check=False, timeout=60)
    assert [] == [line for line in done.stderr.splitlines() if name in line]


def test_alert_rules_say_what_they_should_when_they_should() -> None:
    """Unit tests of promtool: what raises each alert, what does not, and what it says."""
    order = [program("promtool", "prometheus"), "test", "rules", str(DEPLOY / "prometheus" / "alerts_test.yml")]
    done = subprocess.run(order, capture_output=True, text=True, check=False, timeout=120)
    assert 0 == done.returncode, done.stdout + done.stderr


def test_the_balancer_s_file_parses() -> None:
    """As HAProxy itself says."""
    order = [program("haproxy", "haproxy"), "-c", "-f", str(DEPLOY / "haproxy" / "haproxy.cfg")]
    done = subprocess.run(order, capture_output=True, text=True, check=False, timeout=60)
    assert 0 == done.returncode, done.stdout + done.stderr


def test_panels_of_the_dashboard_are_whole() -> None:
    """What Grafana refuses or draws over each other: ids, places, units, and queries without a source."""
    dashboard = json.loads((DEPLOY / "grafana" / "edgeopt-fleet.json").read_text())
    panels = dashboard["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    assert len({panel["title"] for panel in panels}) == len(panels)
    cells: set[tuple[int, int]] = set()
    (variable,) = dashboard["templating"]["list"]
    for panel in panels:
        place = panel["gridPos"]
        assert 0 <= place["x"] <= place["x"] + place["w"] <= 24, panel["title"]
        mine = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & mine, panel["title"]
        cells |= mine
        assert {"type": "prometheus", "uid": f"${{{variable['name']}}}"} == panel["datasource"]
        assert panel["fieldConfig"]["defaults"]["unit"]
        references = [target["refId"] for target in panel["targets"]]
        assert references
        assert len(set(references)) == len(references)
        assert all(target["expr"].strip() for target in panel["targets"])
    provided = yaml.safe_load((DEPLOY / "grafana" / "provisioning" / "dashboards" / "edgeopt.yml").read_text())
    mounted = {volume.split(":")[1] for volume in SERVICES["grafana"]["volumes"]}
    assert f"{provided['providers'][0]['options']['path']}/edgeopt-fleet.json" in mounted


def test_the_guide_lists_every_setting() -> None:
    """The table was generated from the settings as they are now."""
    assert settings_table.page() == settings_table.PAGE.read_text("utf-8"), "run python -m tools.settings_table"


def test_the_guide_names_what_is_there() -> None:
    """Every file of deploy/ that people copy."""
    guide = settings_table.PAGE.read_text("utf-8")
    for path in (*UNITS, DEPLOY / "compose.yaml", DEPLOY / "haproxy" / "haproxy.cfg"):
        assert path.name in guide, path.name
