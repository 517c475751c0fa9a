"""What the routes use, handed to them by the application."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from fastapi import Request

from edgeopt_contract.messages import PublicKey
from edgeopt_fleet.serial import Serial
from edgeopt_fleet.store.alerts import Alerts
from edgeopt_fleet.store.bundles import Bundles
from edgeopt_fleet.store.registry import Registry
from edgeopt_fleet.store.rollouts import Rollouts
from edgeopt_fleet.worker import Worker

__all__ = ["Services", "services_of"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Services:
    """All that the routes use; wired together in :mod:`edgeopt_fleet.server`."""

    serial: Serial
    registry: Registry
    bundles: Bundles
    rollouts: Rollouts
    alerts: Alerts
    worker: Worker
    is_connected: Callable[[], bool]
    reload_broker: Callable[[], Awaitable[None]]
    public_key: PublicKey
    mqtt_port: int
    clock: Callable[[], float]


def services_of(request: Request) -> Services:
    """Return the services of the application that answers ``request``."""
    services = request.app.state.services
    assert isinstance(services, Services)
    return services
