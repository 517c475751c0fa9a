"""The real server behind a bad network: its database is the judge."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from demo.system import System
from edgeopt_agent.credentials.identity import Identity, load_identity
from edgeopt_contract.blocks import MIN_BLOCK_BYTES
from edgeopt_contract.bundle import Bundle, open_bundle
from edgeopt_contract.codec import encode
from tests.agent.conftest import wait_until
from tests.badlink.conftest import needed_bytes
from tests.badlink.relay import Meddler, Relay
from tests.tiny import Recipe, tiny_bundle

pytestmark = pytest.mark.badlink

Figures = Callable[[str], None]
DEVICE = "cam-1"
_OPTIONS = ("--source", "tests.tiny:field", "--interval", "0.01", "--window", "0.3")
_IMPATIENT = ("--resend", "1", "--refresh", "1", "--block-timeout", "1")
_LIFE_SECONDS = 0.2


@pytest.fixture
def system(tmp_path: Path) -> Iterator[System]:
    """A fleet with one enrolled device, whose messages are not encrypted so that a relay can meddle with them."""
    with System(tmp_path / "system") as system:
        system.start_fleet("--tick-seconds", "0.2", "--plain")
        system.enrol({DEVICE: {"site": "test"}})
        yield system


def detour(system: System, change: Callable[[Identity], Identity]) -> Identity:
    """Let the device reach its fleet by another way; returns how it was."""
    home = system.home_of(DEVICE)
    identity = load_identity(home)
    (home / "device.json").write_bytes(encode(change(identity)))
    return identity


def roll_out(system: System, bundle: Bundle) -> None:
    """Offer ``bundle`` to the device."""
    system.edgeopt("publish", str(bundle.directory), "--json")
    system.edgeopt(
        "rollout", "create", "first", "--bundle", bundle.digest, "--cohort", "all", "--waves", "100%",
        "--bake", "0.5s", "--minimum-rows", "30", "--json",
    )  # fmt: skip


def is_installed(system: System, bundle: Bundle) -> bool:
    """Say whether what serves is the bundle, byte for byte."""
    current = system.home_of(DEVICE) / "slots" / "current"
    entries = bundle.manifest.files_for(bundle.manifest.variants[0])
    installed = open_bundle(current, only=[entry.path for entry in entries])
    return all((current / e.path).read_bytes() == bundle.path_of(e).read_bytes() for e in entries) and (
        installed.digest == bundle.digest
    )


def agrees(system: System) -> bool:
    """Say whether the server has stored what the device has numbered, each once and nothing else."""
    spool = system.agent_status(DEVICE)["spool"]
    stored = system.get(f"devices/{DEVICE}/messages")["items"]
    numbered = [(spool["session"], spool["last_number"], spool["last_number"], spool["rows"])]
    return numbered == [(row["session"], row["upto"], row["stored"], row["rows"]) for row in stored]


def test_messages_dropped_doubled_and_exchanged(system: System, tmp_path: Path, figures: Figures) -> None:
    """10 % each, both ways: the device gets identical bytes, the server every report and every count exactly once."""
    bundle = tiny_bundle(tmp_path / "bundle", Recipe(padding_bytes=3_000_000))
    meddler = Meddler(0.1, seed=4)
    with Relay(load_identity(system.home_of(DEVICE)).access.mqtt.port, meddler=meddler) as relay:

        def by_the_relay(identity: Identity) -> Identity:
            return replace(
                identity, access=replace(identity.access, mqtt=replace(identity.access.mqtt, port=relay.port))
            )

        detour(system, by_the_relay)
        system.start_agent(DEVICE, *_OPTIONS, *_IMPATIENT)
        roll_out(system, bundle)
        system.wait_for_rollout("first", "succeeded", seconds=60)
        assert is_installed(system, bundle)
        system.agents[DEVICE].kill()  # nothing new is numbered while the rest is delivered
        system.start_agent(DEVICE, "--window", "3600", *_IMPATIENT)
        wait_until("the counts to agree", lambda: agrees(system))
    figures(f"messages: {dict(meddler.counts)}; {sum(relay.blocks.values())} blocks sent for {len(relay.blocks)}")
    assert min(meddler.counts[fate] for fate in ("dropped", "doubled", "exchanged")) >= 5


def test_http_goes_on_where_each_kill_stopped_it(system: System, tmp_path: Path, figures: Figures) -> None:
    """Killed every 200 ms on a link of 16 Mbit/s: each kill costs what was received and not yet read, not a block.

    How much that is depends on how busy the machine is, so it is looked up while the agent is held still.
    """
    bundle = tiny_bundle(tmp_path / "bundle", Recipe(padding_bytes=1_000_000))
    port = urlsplit(load_identity(system.home_of(DEVICE)).server).port
    assert port is not None
    with Relay(port, bytes_per_second=2_000_000, speaks_mqtt=False, only=b"GET /api/v1/b") as relay:
        detour(system, lambda identity: replace(identity, server=f"http://127.0.0.1:{relay.port}"))
        roll_out(system, bundle)
        needed, kills, arrived, unread = needed_bytes(bundle), 0, 0, 0
        while arrived < needed:
            system.start_agent(DEVICE, *_IMPATIENT, "--delivery", "http")
            wait_until("bytes", lambda arrived=arrived: relay.down_bytes > arrived)
            time.sleep(_LIFE_SECONDS)  # the experiment: this long it may download
            os.kill(system.agents[DEVICE].pid, signal.SIGSTOP)
            with relay.holding_still():
                unread += relay.unread_bytes()
                system.agents[DEVICE].kill()
            kills += 1
            arrived = relay.down_bytes
        system.start_agent(DEVICE, *_IMPATIENT, "--delivery", "http")
        wait_until("the bundle", lambda: is_confirmed(system))
        assert is_installed(system, bundle)
        got = relay.down_bytes
    waste = f"needed {needed} bytes, got {got}, waste {got / needed - 1:.2%}"
    figures(f"HTTP at 16 Mbit/s, killed every 200 ms ({kills} kills): {waste}, {unread} bytes unread")
    assert kills >= 2
    assert got - needed <= unread + kills * MIN_BLOCK_BYTES + 0.01 * needed


def is_confirmed(system: System) -> bool:
    """Say whether the device's update is at its good end."""
    update = system.agent_status(DEVICE)["update"]
    return bool(update) and update["state"] == "confirmed"
