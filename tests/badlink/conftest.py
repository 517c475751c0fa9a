"""Devices behind bad networks, and the table of what each test measured."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from edgeopt_contract.bundle import Bundle
from tests.agent.conftest import (
    Broker,
    Device,
    FakeFleet,
    blocks_of,
    fleet,  # noqa: F401  # a fixture
    running_broker,
    write_identity,
)
from tests.badlink.relay import Relay

FIGURES = pytest.StashKey[list[str]]()
FIELD = ("--source", "tests.tiny:field")


@pytest.fixture
def figures(request: pytest.FixtureRequest) -> Callable[[str], None]:
    """Take a line for the table at the end of the run."""
    return request.config.stash.setdefault(FIGURES, []).append


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Print what was measured."""
    if lines := config.stash.get(FIGURES, []):
        terminalreporter.section("bad networks")
        for line in lines:
            terminalreporter.write_line(line)


@pytest.fixture(params=["mosquitto", "nats"])
def broker(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Broker]:
    """A running broker of each kind."""
    with running_broker(tmp_path / "broker", request.param) as broker:
        yield broker


@pytest.fixture
def make_device(fleet: FakeFleet, tmp_path: Path) -> Iterator[Callable[[Relay], Device]]:  # noqa: F811  # the fixture
    """Make the device behind a relay; its agent is ended with the test."""
    made: list[Device] = []

    def make(relay: Relay) -> Device:
        device = Device(tmp_path / "device", FIELD)
        write_identity(device.data, fleet.signer, relay.port)
        made.append(device)
        return device

    yield make
    for device in made:
        device.kill()


def needed_bytes(bundle: Bundle, metadata: bytes = b"") -> int:
    """Return how many bytes a device must fetch for a bundle of which it has nothing: its blocks, and ``metadata``."""
    return sum(len(data) for data in blocks_of(bundle).values()) + len(metadata)


def blocks_on_disk(device: Device) -> int:
    """Return how many blocks wait to become a bundle."""
    return len([path for path in (device.data / "incoming").glob("*") if not path.name.startswith(".")])
