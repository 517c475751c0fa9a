"""What the fleet answers, as records. Fields that are not shown are passed over. No input, no output.

Example::

    view = read(RolloutView, fleet.rollout("v2"))
    view.state in FINAL_STATES
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

import msgspec

from edgeopt_contract.errors import MessageError

__all__ = [
    "FINAL_STATES",
    "AlertView",
    "ArmView",
    "BundlePageView",
    "BundleView",
    "CapabilitiesView",
    "CohortView",
    "CountsView",
    "DeviceView",
    "MemberView",
    "ReportView",
    "RolloutView",
    "SignatureView",
    "TensorView",
    "UpdateView",
    "UseView",
    "VariantView",
    "VerdictView",
    "WaveView",
    "read",
]

T = TypeVar("T")
FINAL_STATES = frozenset({"succeeded", "rolled_back", "cancelled"})


@dataclass(frozen=True, slots=True, kw_only=True)
class UpdateView:
    """A device's newest update."""

    job: str
    bundle: str
    state: str
    result: str | None = None
    detail: str | None = None
    at: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CountsView:
    """What a device has reported: profile windows, answered inferences, failed ones."""

    windows: int = 0
    rows: int = 0
    errors: int = 0
    malformed: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportView:
    """One report of a device, as it came."""

    at: float
    job: str
    state: str
    result: str | None = None
    detail: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class CapabilitiesView:
    """What a device can run."""

    arch: str
    features: tuple[str, ...]
    runtimes: dict[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceView:
    """One device."""

    id: str
    tags: dict[str, str]
    online: bool
    health: str = ""
    hardware: str = ""
    machine: dict[str, str] = field(default_factory=dict)
    running: str | None = None
    agent_version: str | None = None
    capabilities: CapabilitiesView | None = None
    enrolled_at: float | None = None
    revoked_at: float | None = None
    last_seen: float | None = None
    update: UpdateView | None = None
    telemetry: CountsView = field(default_factory=CountsView)
    gauges: dict[str, float] = field(default_factory=dict)
    gauges_at: float | None = None
    reports: tuple[ReportView, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class CohortView:
    """A saved filter."""

    name: str
    tags: dict[str, str]
    hardware: tuple[str, ...] = ()
    running: str | None = None
    agent_version: str | None = None
    state: str | None = None
    online: bool | None = None
    health: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class BundleView:
    """A bundle that the fleet knows."""

    digest: str
    name: str
    version: str
    complete: bool
    created_at: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ArmView:
    """One of two arms."""

    arm: str
    bundle: str
    percent: int
    members: int
    confirmed: int
    failed: int
    returned: int = 0
    bundle_name: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class VariantView:
    """One form of a model, and what a device must have to run it."""

    name: str
    size: int
    download: int
    runtime: str
    arch: tuple[str, ...]
    features: tuple[str, ...]
    certified_for: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class SignatureView:
    """What the targets keys say of a bundle."""

    in_force: bool
    signatures: int
    threshold: int
    counter: int | None
    rollback: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorView:
    """One input or output of a model."""

    name: str
    dtype: str
    shape: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class UseView:
    """A rollout of a bundle."""

    name: str
    state: str
    cohort: str


@dataclass(frozen=True, slots=True, kw_only=True)
class BundlePageView(BundleView):
    """All that the fleet knows about one bundle."""

    size: int
    blocks: int
    inputs: tuple[TensorView, ...]
    outputs: tuple[TensorView, ...]
    variants: tuple[VariantView, ...]
    profile_rows: int | None
    profile_features: tuple[str, ...]
    evidence: tuple[str, ...]
    signature: SignatureView
    running_on: int
    rollouts: tuple[UseView, ...]
    labels: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class WaveView:
    """One wave, in words like ``20%`` or ``tag:ring=canary``: how many devices it has, and how far they came.

    ``devices`` names them; lists of rollouts leave the names out.
    """

    wave: str
    members: int
    devices: tuple[str, ...]
    executed: int
    confirmed: int
    failed: int
    state: str
    returned: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class MemberView:
    """One device of a rollout."""

    device: str
    wave: int
    state: str
    arm: str = ""
    result: str | None = None
    detail: str | None = None
    failure: str = ""
    running: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class VerdictView:
    """What the gate decided about a wave, and why."""

    at: float
    wave: int
    verdict: str
    reasons: tuple[str, ...]
    arm: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class RolloutView:
    """A rollout."""

    name: str
    bundle: str
    cohort: str
    state: str
    wave: int
    waves: tuple[WaveView, ...]
    members: tuple[MemberView, ...]
    verdicts: tuple[VerdictView, ...] = ()
    bundle_name: str | None = None
    arms: tuple[ArmView, ...] = ()
    fault: str = ""
    kept: str = ""
    reason: str = ""
    policy: dict[str, Any] = field(default_factory=dict)
    created_at: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class AlertView:
    """Something that changed in the world of a cohort."""

    id: int | str
    kind: str
    cohort: str
    feature: str
    source: str
    bundle: str
    state: str
    opened_at: float
    message: str
    psi: float | None = None
    p_value: float | None = None
    rows: int | None = None
    last_seen: float | None = None


def read(kind: type[T], answer: Mapping[str, Any]) -> T:
    """Read one of the fleet's objects; fields that are not shown are passed over. Raises :class:`MessageError`."""
    try:
        return msgspec.convert(answer, kind, strict=True)
    except msgspec.ValidationError as error:
        raise MessageError(f"the fleet's answer is not a {kind.__name__}: {error}; update the older program") from error
