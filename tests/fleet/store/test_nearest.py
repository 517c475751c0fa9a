from __future__ import annotations

import pytest
from sqlmodel import col

from edgeopt_fleet.problems import NotFoundError
from edgeopt_fleet.rights import Role
from edgeopt_fleet.store.nearest import did_you_mean
from edgeopt_fleet.store.tables import DeviceRow
from tests.fleet.conftest import Kit


def test_what_is_like_it_is_named_and_nothing_else(kit: Kit) -> None:
    """A digit too many, letters that changed places, a wrong end; what is like nothing is told without advice."""
    kit.enrol("cam-7", "cam-70", "oslo-gate-1", "rotterdam-gate-1")
    with kit.database.reading() as session:
        said = {wrong: did_you_mean(session, col(DeviceRow.id), wrong) for wrong in ("oslo-gaet-1", "cam-77", "x%")}
        assert "; did you mean 'oslo-gate-1'?" == said["oslo-gaet-1"]
        assert {"'cam-7'", "'cam-70'"} == {word.strip("?") for word in said["cam-77"].split() if word.startswith("'")}
        assert "" == said["x%"] == did_you_mean(session, col(DeviceRow.id), "q" * 4000)


def test_devices_cohorts_users_and_rollouts_are_looked_for(kit: Kit) -> None:
    """Whoever mistypes a name reads the right one in the refusal."""
    kit.enrol("cam-7", site="oslo")
    kit.put_cohort("oslo-pi", site="oslo")
    kit.users.create("kari", Role.VIEWER, kit.now)
    for wrong, ask in {
        "cam-8": kit.registry.device,
        "oslo-pie": kit.cohorts.get,
        "karl": kit.users.one,
    }.items():
        with pytest.raises(NotFoundError, match=r"did you mean '(cam-7|oslo-pi|kari)'"):
            ask(wrong)
    with pytest.raises(NotFoundError, match="did you mean 'cam-7'"):
        kit.identities.revoke("cam-17", int(kit.now))
