"""Enrolment, renewal and revocation between real processes: fleet over HTTPS, broker with mutual TLS, agents."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import aiomqtt
import pytest

from demo.system import System, wait_until
from edgeopt.fleet_access import FleetAccess
from edgeopt.fleet_client import FleetClient
from edgeopt_agent.credentials.enrolment import Order, enrol, renew
from edgeopt_agent.credentials.identity import Wallet, load_identity
from edgeopt_agent.mqtt.refusals import Refusal
from edgeopt_contract.enrolment import EnrolToken
from edgeopt_contract.errors import UnreachableError, UsageError
from edgeopt_contract.manifest import Capabilities
from tests.agent.mortal import dies
from tests.brokers import run_mosquitto
from tests.tiny import Recipe, tiny_bundle

pytestmark = pytest.mark.scenario

CAPABILITIES = Capabilities(arch="x86_64", features=(), runtimes={}, cores=1, memory_bytes=1)
ORDER_OPTIONS = ("--source", "tests.tiny:field", "--interval", "0.02", "--window", "1")


@pytest.fixture
def system(tmp_path: Path) -> Iterator[System]:
    """A fleet that speaks HTTPS, with its own broker."""
    with System(tmp_path) as system:
        system.start_fleet("--tls", "--tick-seconds", "0.2")
        yield system


def order(system: System, device: str = "cam-1", *, token: str | None = None) -> Order:
    """Return an enrolment at this fleet."""
    access = json.loads(system.operator_file.read_text())
    with FleetClient(FleetAccess(**access)) as client:
        text = token or client.create_token(1, 3600, {})["token"]
    return Order(server=access["url"], token=EnrolToken.parse(text), device=device, tags={}, capabilities=CAPABILITIES)


def let_in(wallet: Wallet) -> bool:
    """Connect to the broker with the wallet's next credentials, as the agent does; say whether it was let in."""

    async def connect() -> bool:
        credentials, refusal = wallet.choose(), Refusal()
        mqtt = credentials.mqtt
        client = aiomqtt.Client(
            mqtt.host,
            mqtt.port,
            identifier=credentials.identity.device,
            tls_context=credentials.tls,
            protocol=aiomqtt.ProtocolVersion.V311,
            logger=refusal.logger,
        )
        try:
            await refusal.or_done(client.__aenter__())
        except (UnreachableError, aiomqtt.MqttError):
            return False
        await client.__aexit__(None, None, None)
        wallet.accepted(credentials)
        return True

    return asyncio.run(connect())


def test_an_enrolment_killed_at_every_step_can_be_done_again(system: System, tmp_path: Path) -> None:
    """The same command gives an identity that the broker takes; the one-time token is used once, by one device."""
    points = 0
    for at in itertools.count():
        data, wanted = tmp_path / f"data-{at}", order(system, f"cam-{at}")
        killed = dies(partial(enrol, wanted, data), at)
        assert f"cam-{at}" == enrol(wanted, data).device
        assert let_in(Wallet(data))
        assert {0o600} == {stat.S_IMODE(path.stat().st_mode) for path in data.glob("*device*")}
        assert 3 == len(list(data.glob("*device*"))), "a key or a temporary file was left behind"
        if not killed:
            break
        points += 1
    with pytest.raises(UsageError, match="used up"):
        enrol(order(system, "thief", token=str(wanted.token)), tmp_path / "thief")
    print(f"enrolment: killed at {points} points")
    assert points > 15


def renew_and_take_over(data: Path) -> None:
    """Renew, and go on with the new key, as after the broker has let it in."""
    renew(data, now=time.time())
    wallet = Wallet(data)
    wallet.accepted(wallet.choose())


def test_a_renewal_killed_at_every_step_leaves_an_identity_that_works(system: System, tmp_path: Path) -> None:
    """Whenever it is killed, the device is let in before and after; done again, it comes to its end with a new key."""
    data = tmp_path / "data"
    enrol(order(system), data)
    points = 0
    for at in itertools.count():
        before = load_identity(data)
        killed = dies(partial(renew_and_take_over, data), at)
        wallet = Wallet(data)
        assert let_in(wallet), f"killed at step {at}, the device is locked out"
        if load_identity(data) == before:
            renew(data, now=time.time())
            assert let_in(wallet)
        after = load_identity(data)
        assert (before.key, before.access.serial) != (after.key, after.access.serial)
        assert 3 == len(list(data.glob("*device*"))), "the old key was left behind"
        assert not (data / "renewal.json").exists()
        if not killed:
            break
        points += 1
    print(f"renewal: killed at {points} points")
    assert points > 20


def test_a_revoked_device_is_out_within_seconds_and_a_new_token_lets_it_back_in(system: System) -> None:
    """Its agent is cut off and says why; renewal is refused; with --replace it comes back. No secret is in any log."""
    system.enrol({"cam-1": {}, "cam-2": {}})
    for device in ("cam-1", "cam-2"):
        system.start_agent(device, *ORDER_OPTIONS)
    wait_until("both online", lambda: all(d["online"] for d in system.get("devices")["items"]))
    identity = load_identity(system.home_of("cam-1"))
    keys = [path.read_text() for path in system.directory.rglob("*.key") if "PRIVATE" in path.read_text()]
    assert "revoked" in system.edgeopt("devices", "revoke", "cam-1")
    log = system.directory / "cam-1.log"
    wait_until("the agent to notice", lambda: '"event":"link_lost"' in log.read_text(), 60)
    wait_until("the agent to be refused", lambda: "Not authorized" in log.read_text(), 60)
    assert "revoked" in _error(system, "renew", "--data", str(system.home_of("cam-1")))
    assert system.get("devices/cam-2")["online"]
    assert not system.get("devices/cam-1")["online"]

    system.agents["cam-1"].stop()
    token = json.loads(system.edgeopt("token", "create", "--json"))["token"]
    server = ("--server", identity.server, "--token", token)
    system.command(
        "edgeopt-agent", "enroll", "--replace", *server, "--device", "cam-1", "--data", str(system.home_of("cam-1"))
    )
    system.start_agent("cam-1", *ORDER_OPTIONS)
    wait_until("cam-1 to be back", lambda: system.get("devices/cam-1")["online"], 30)

    logs = "".join(path.read_text() for path in system.directory.glob("*.log"))
    operator = json.loads(system.operator_file.read_text())["key"]
    body = [line for key in keys for line in key.splitlines() if "-----" not in line]
    assert len(body) >= 4
    for secret in (identity.access.bearer, EnrolToken.parse(token).secret, operator, *body):
        assert secret not in logs


def test_an_agent_renews_by_itself_and_a_device_that_was_off_comes_back(tmp_path: Path) -> None:
    """A certificate of seconds is renewed while the agent runs; an expired one is renewed by its old key."""
    with System(tmp_path) as system:
        system.start_fleet("--tls", "--certificate-days", "0.0002")
        system.enrol({"cam-1": {}})
        data = system.home_of("cam-1")
        first = load_identity(data)
        wait_until("the certificate to expire", lambda: time.time() > first.access.valid_until + 1, 40, every=0.5)
        system.start_agent("cam-1", *ORDER_OPTIONS)
        log = system.directory / "cam-1.log"
        wait_until("two renewals", lambda: log.read_text().count('"event":"identity_renewed"') >= 2, 60)
        assert load_identity(data).key != first.key
        assert load_identity(data).access.root == first.access.root
        wait_until("the device to be online", lambda: system.get("devices/cam-1")["online"], 30)


def test_mosquitto_serves_a_fleet_with_certificates(tmp_path: Path) -> None:
    """The files that init writes start a real Mosquitto; an update arrives through it; a revoked device is cut off."""
    with System(tmp_path) as system, contextlib.ExitStack() as stack:
        home = tmp_path / "fleet"
        reload = f"pkill -HUP -F {home}/broker/mosquitto.pid"
        options = ("--broker", "mosquitto", "--broker-reload", reload, "--tick-seconds", "0.2")
        assert "mosquitto -c" in system.command("edgeopt-fleet", "init", str(home), *options)
        stack.enter_context(run_mosquitto(home / "broker" / "mosquitto.conf", tmp_path / "mosquitto.log"))
        system.start_fleet()
        system.enrol({"cam-1": {}})
        system.start_agent("cam-1", *ORDER_OPTIONS)
        wait_until("the agent online", lambda: system.get("devices/cam-1")["online"])
        tiny_bundle(tmp_path / "bundle", Recipe(version="1"))
        digest = json.loads(system.edgeopt("publish", str(tmp_path / "bundle"), "--json"))["digest"]
        system.edgeopt(
            "rollout", "create", "v1", "--bundle", digest, "--waves", "100%", "--bake", "0.2s", "--minimum-rows", "5"
        )
        system.wait_for_rollout("v1", "succeeded")
        system.edgeopt("devices", "revoke", "cam-1")
        log = tmp_path / "cam-1.log"
        wait_until("the agent to be refused", lambda: "was revoked" in log.read_text(), 30)


def _error(system: System, *arguments: str) -> str:
    """Return what ``edgeopt-agent`` says when it fails with exit code 2."""
    executable = str(Path(sys.executable).with_name("edgeopt-agent"))
    done = subprocess.run([executable, *arguments], capture_output=True, text=True, check=False)
    assert 2 == done.returncode, done.stderr
    return done.stderr
