"""What the routes use, handed to them by the application."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from fastapi import Request

from edgeopt_fleet.api.watchers import Watchers
from edgeopt_fleet.ca import DeviceAuthority
from edgeopt_fleet.rates import Limits
from edgeopt_fleet.serial import Serial
from edgeopt_fleet.store.alert_book import AlertBook
from edgeopt_fleet.store.audit import AuditLog
from edgeopt_fleet.store.bearers import Bearers
from edgeopt_fleet.store.bundles import Bundles
from edgeopt_fleet.store.cohorts import Cohorts
from edgeopt_fleet.store.downloads import Downloads
from edgeopt_fleet.store.feed import Feed
from edgeopt_fleet.store.idempotency import AnswerBook
from edgeopt_fleet.store.identities import Identities
from edgeopt_fleet.store.looks import Looks
from edgeopt_fleet.store.registry import Registry
from edgeopt_fleet.store.rollouts import Rollouts
from edgeopt_fleet.store.shadow_looks import ShadowLooks
from edgeopt_fleet.store.shadows import Shadows
from edgeopt_fleet.store.tokens import Tokens
from edgeopt_fleet.store.users import Users
from edgeopt_fleet.tuf.repository import Repository
from edgeopt_fleet.worker import Worker

__all__ = ["BrokerControl", "Reach", "Services", "services_of"]


class BrokerControl(Protocol):
    """What the API asks of the broker when the devices change."""

    async def reload(self) -> None:
        """Return when a device that was just enrolled can connect."""
        ...

    async def cut_off(self, device: str) -> None:
        """Return when a device that was just revoked is out."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Reach:
    """How devices reach the broker (``mqtt_host`` empty: as they reach the API), and how long certificates last."""

    mqtt_host: str
    mqtt_port: int
    mqtt_tls: bool
    certificate_seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Services:
    """All that the routes use; wired together in :mod:`edgeopt_fleet.server`."""

    serial: Serial
    registry: Registry
    cohorts: Cohorts
    identities: Identities
    bearers: Bearers
    bundles: Bundles
    downloads: Downloads
    rollouts: Rollouts
    looks: Looks
    shadows: Shadows
    shadow_looks: ShadowLooks
    alert_book: AlertBook
    answers: AnswerBook
    feed: Feed
    watchers: Watchers
    users: Users
    tokens: Tokens
    audit: AuditLog
    limits: Limits
    four_eyes: bool
    worker: Worker
    is_connected: Callable[[], bool]
    broker: BrokerControl
    authority: DeviceAuthority
    reach: Reach
    metadata: Repository
    clock: Callable[[], float]


def services_of(request: Request) -> Services:
    """Return the services of the application that answers ``request``."""
    services = request.app.state.services
    assert isinstance(services, Services)
    return services
