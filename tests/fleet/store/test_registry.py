from __future__ import annotations

import pytest

from edgeopt_fleet.problems import InvalidError, NotFoundError
from edgeopt_fleet.store.registry import TokenGrant
from tests.fleet.conftest import Kit


@pytest.mark.parametrize("backend", ["sqlite"], indirect=True)  # the file is read
def test_secrets_are_stored_as_hashes_only(kit: Kit) -> None:
    """Neither keys nor tokens stand in the database file."""
    token = kit.registry.create_token(TokenGrant(uses=1, expires_at=100, tags={}))
    key = kit.registry.create_api_key("me", 0.0)
    files = b"".join(path.read_bytes() for path in kit.directory.glob("fleet.db*"))
    assert b"api_key" in files
    assert token.encode() not in files
    assert key.encode() not in files
    assert kit.registry.is_api_key(key)
    assert not kit.registry.is_api_key(key[:-1])
    assert not kit.registry.is_api_key("")


def test_pages_of_devices(kit: Kit) -> None:
    """Pages follow each other without loss or repetition; a tag filters."""
    kit.enrol("a", "b", "c", site="oslo")
    kit.enrol("d", site="lima")
    first = kit.registry.devices(limit=2)
    assert (["a", "b"], "b") == ([row.id for row in first.devices], first.next)
    second = kit.registry.devices(limit=2, cursor=first.next or "")
    assert (["c", "d"], None) == ([row.id for row in second.devices], second.next)
    assert ["d"] == [row.id for row in kit.registry.devices(("site", "lima")).devices]


def test_cohorts_follow_the_tags(kit: Kit) -> None:
    """A cohort is a filter, not a list: a device enrolled later belongs too. ``all`` always exists."""
    kit.put_cohort("oslo", site="oslo")
    kit.enrol("a", site="oslo")
    kit.enrol("b", site="lima")
    assert ("a",) == kit.members("oslo")
    assert ("a", "b") == kit.members("all")
    assert ["all", "oslo"] == [cohort.name for cohort in kit.registry.cohorts()]
    assert ("b",) == kit.registry.put_cohort("oslo", {"site": "lima"}).devices


def test_what_is_not_there_is_named(kit: Kit) -> None:
    """Unknown devices and cohorts; and everyone cannot be narrowed."""
    with pytest.raises(NotFoundError, match="'x'"):
        kit.registry.device("x")
    with pytest.raises(NotFoundError, match="edgeopt cohort create x"):
        kit.registry.cohort("x")
    with pytest.raises(InvalidError, match="always holds all devices"):
        kit.registry.put_cohort("all", {"site": "oslo"})
