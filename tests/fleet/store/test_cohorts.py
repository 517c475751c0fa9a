from __future__ import annotations

import pytest

from edgeopt_contract.messages import DeviceState
from edgeopt_fleet.filters import DeviceFilter, Health
from edgeopt_fleet.problems import ConflictError, InvalidError, NotFoundError
from edgeopt_fleet.store.cohorts import SavedFilter
from edgeopt_fleet.store.tokens import TokenGrant
from tests.fleet.conftest import Kit


def ignore(_present: SavedFilter | None) -> None:
    """Check nothing."""


def test_cohorts_follow_their_devices(kit: Kit) -> None:
    """A cohort is a filter, not a list: a device enrolled later belongs too, one that fails drops out."""
    kit.put_cohort("oslo", site="oslo")
    kit.cohorts.put("well", DeviceFilter(tags={"site": "oslo"}, health=Health.OK), 1.0, ignore)
    kit.enrol("a", "c", site="oslo")
    kit.enrol("b", site="lima")
    kit.report("c", DeviceState.FAILED, None)
    assert (("a", "c"), ("a",), ("a", "b", "c")) == tuple(map(kit.members, ("oslo", "well", "all")))
    kit.put_cohort("oslo", site="lima")
    assert ("b",) == kit.members("oslo")
    kit.identities.revoke("b", 1000)
    assert () == kit.members("oslo")


def test_what_was_saved_is_read(kit: Kit) -> None:
    """Every part of a filter comes back; the list begins with everyone, and goes on by name."""
    wanted = DeviceFilter(
        tags={"a": "b"}, hardware=("x", "y"), running="none", agent_version="1", state="failed", online=False,
        health=Health.OFFLINE,
    )  # fmt: skip
    assert SavedFilter("full", wanted) == kit.cohorts.put("full", wanted, 1.0, ignore) == kit.cohorts.get("full")
    kit.put_cohort("b")
    assert ["all", "b", "full"] == [saved.name for saved in kit.cohorts.list(None, 9)]
    assert ["b"] == [saved.name for saved in kit.cohorts.list("all", 1)]
    assert ["full"] == [saved.name for saved in kit.cohorts.list("b", 9)]


def test_only_what_nobody_uses_is_deleted(kit: Kit) -> None:
    """A rollout that has not ended, or a token, keeps a cohort; the check sees what would go."""
    kit.put_cohort("oslo", site="oslo")
    kit.put_cohort("lima")
    kit.tokens.create(TokenGrant(uses=1, expires_at=2**31, cohort="oslo"), 1.0)
    with pytest.raises(ConflictError, match="token"):
        kit.cohorts.delete("oslo", 1.0, ignore)
    seen: list[SavedFilter | None] = []
    kit.cohorts.delete("lima", 1.0, seen.append)
    assert [SavedFilter("lima", DeviceFilter())] == seen
    assert ["all", "oslo"] == [saved.name for saved in kit.cohorts.list(None, 9)]


def test_what_is_not_there_or_always_there(kit: Kit) -> None:
    """Unknown cohorts are named with what to do; everyone can be neither narrowed nor deleted."""
    with pytest.raises(NotFoundError, match="edgeopt cohorts create x"):
        kit.cohorts.get("x")
    with pytest.raises(NotFoundError, match="'x'"):
        kit.cohorts.delete("x", 1.0, ignore)
    with pytest.raises(InvalidError, match="always holds all devices"):
        kit.cohorts.put("all", DeviceFilter(), 1.0, ignore)
    with pytest.raises(InvalidError, match="always exists"):
        kit.cohorts.delete("all", 1.0, ignore)
