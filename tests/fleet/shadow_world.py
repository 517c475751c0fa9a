"""Devices that shadow a challenger, without an agent: their windows and reports as they come over the wire."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from edgeopt_contract.agreement import (
    AGREED,
    AGREEMENT,
    AGREEMENT_CELLS,
    CHAMPION_LATENCY,
    CLASS_AGREED,
    CLASS_DISAGREED,
    DIFFERENCES,
    DISAGREED,
    INCOMPARABLE,
)
from edgeopt_contract.codec import decode, encode
from edgeopt_contract.features import LATENCY_EDGES_US
from edgeopt_contract.messages import DeviceState, Reported, Telemetry
from edgeopt_contract.topics import Topics
from edgeopt_fleet.decoding import Incoming, decode_incoming
from edgeopt_fleet.gate.shadow_evidence import ShadowPolicy
from edgeopt_fleet.store.shadow_looks import ShadowLooks
from edgeopt_fleet.store.shadow_outbox import ShadowOutbox
from edgeopt_fleet.store.shadows import ShadowPlan, Shadows
from tests.fleet.conftest import Kit, window

LATENCY_CELLS = len(LATENCY_EDGES_US) + 1
CHAMPION_CELL, CHALLENGER_CELL = 20, 22  # a quarter of a decade apart: 1.78 times


def shadow_window(  # one argument a count
    bundle: str,
    number: int,
    job: Any,
    *,
    agreed: int = 50,
    disagreed: int = 0,
    incomparable: int = 0,
    errors: int = 0,
    classes: tuple[tuple[int, ...], tuple[int, ...]] | None = None,
) -> Telemetry:
    """Return a window of a challenger that agreed so often."""
    cells = [0] * AGREEMENT_CELLS
    cells[AGREED], cells[DISAGREED], cells[INCOMPARABLE] = agreed, disagreed, incomparable
    cells[DIFFERENCES] = agreed + disagreed
    rows = agreed + disagreed + incomparable
    own: dict[str, tuple[int, ...]] = {AGREEMENT: tuple(cells), CHAMPION_LATENCY: _at(CHAMPION_CELL, rows)}
    if classes is not None:
        own |= {CLASS_AGREED: classes[0], CLASS_DISAGREED: classes[1]}
    made = window(bundle, number, rows=rows)
    return replace(
        made, errors=errors, cells=made.cells | own, latency=_at(CHALLENGER_CELL, rows), extra={"shadow": job}
    )  # fmt: skip


def _at(cell: int, rows: int) -> tuple[int, ...]:
    return tuple(rows if place == cell else 0 for place in range(LATENCY_CELLS))


@dataclass
class World:
    """A kit with shadows over it."""

    kit: Kit
    shadows: Shadows = field(init=False)
    outbox: ShadowOutbox = field(init=False)
    looks: ShadowLooks = field(init=False)

    def __post_init__(self) -> None:
        self.shadows = Shadows(self.kit.database)
        self.outbox = ShadowOutbox(self.kit.database)
        self.looks = ShadowLooks(self.kit.database)

    def champion(self, *devices: str) -> str:
        """Publish a bundle, let devices run it, and return it."""
        bundle = self.kit.publish("champion")
        for device in devices:
            self.kit.status(device, running=bundle, boot=2)
        return bundle

    def create(self, name: str = "next", *, start: bool = True, policy: ShadowPolicy | None = None, **plan: Any) -> str:
        """Publish a challenger, shadow it, and return its digest."""
        bundle = self.kit.publish(plan.pop("version", "challenger"))
        wanted: dict[str, Any] = {"cohort": "all", "share": 0.5, "until": int(self.kit.now) + 3600} | plan
        self.shadows.create(
            ShadowPlan(name=name, bundle=bundle, policy=policy or ShadowPolicy(), **wanted), self.kit.now
        )
        if start:
            self.shadows.start(name, self.kit.now)
        return bundle

    def say(self, device: str, state: DeviceState, job: str = "next", **values: Any) -> Reported:
        """Store a report about a shadow."""
        said = Reported(
            session=1,
            number=self.kit.next_number(device),
            at=int(self.kit.now),
            job=job,
            bundle=values.pop("bundle", "0" * 64),
            state=state,
            running=None,
            extra={"shadow": True},
            **values,
        )
        self.store(device, said)
        return said

    def compare(self, device: str, bundle: str, job: Any = "next", **counts: Any) -> Telemetry:
        """Store one window of a challenger; a device may name its ``job`` by anything."""
        made = shadow_window(bundle, self.kit.next_number(device), job, **counts)
        self.store(device, made)
        return made

    def store(self, device: str, *records: Reported | Telemetry) -> None:
        """Store what came over the wire, in one batch."""
        batch: list[Incoming] = []
        for record in records:
            topic = Topics.reported(device) if isinstance(record, Reported) else Topics.telemetry(device)
            batch.append(decode_incoming(topic, encode(record)))
            assert record == decode(type(record), encode(record))
        self.kit.inbox.store(batch, self.kit.now)

    def advance(self, name: str = "next", seconds: float = 5.0) -> set[str]:
        """Let some seconds pass and look once."""
        self.kit.now += seconds
        return self.shadows.advance(name, self.kit.now)

    def states(self, name: str = "next") -> dict[str, str | None]:
        """Return what the members said last."""
        return {member.device: member.state for member in self.shadows.report(name).members}

    def running(self) -> set[str]:
        """Return the devices that are to run a challenger now."""
        return {device for device, order in self.outbox.orders().items() if order is not None}
