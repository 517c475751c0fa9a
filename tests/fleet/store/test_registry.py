from __future__ import annotations

import pytest

from edgeopt_fleet.problems import ConflictError, ForbiddenError, InvalidError, NotFoundError
from edgeopt_fleet.store.registry import Enrolment, TokenGrant
from tests.fleet.conftest import CAPABILITIES, Kit


def enrolment(device: str, **tags: str) -> Enrolment:
    """Return a device that wants in."""
    return Enrolment(device=device, tags=tags, capabilities=CAPABILITIES, password_hash="x")


def test_a_token_is_good_for_its_uses_until_it_expires(kit: Kit) -> None:
    """The second use of a one-time token and any use at its expiry are refused."""
    once = kit.registry.create_token(TokenGrant(uses=1, expires_at=100, tags={}))
    assert 1 == kit.registry.enrol(once, enrolment("a"), now=99)
    with pytest.raises(ForbiddenError):
        kit.registry.enrol(once, enrolment("b"), now=99)
    late = kit.registry.create_token(TokenGrant(uses=1, expires_at=100, tags={}))
    with pytest.raises(ForbiddenError):
        kit.registry.enrol(late, enrolment("b"), now=100)
    with pytest.raises(ForbiddenError):
        kit.registry.enrol("guess", enrolment("b"), now=1)


def test_a_taken_id_does_not_spend_the_token(kit: Kit) -> None:
    """The transaction is undone as a whole."""
    token = kit.registry.create_token(TokenGrant(uses=2, expires_at=100, tags={}))
    kit.registry.enrol(token, enrolment("a"), now=1)
    with pytest.raises(ConflictError, match="'a' is taken"):
        kit.registry.enrol(token, enrolment("a"), now=1)
    assert 2 == kit.registry.enrol(token, enrolment("b"), now=1)


def test_the_token_s_tags_win(kit: Kit) -> None:
    """A device cannot talk itself into another site than its token says."""
    token = kit.registry.create_token(TokenGrant(uses=1, expires_at=100, tags={"site": "oslo"}))
    kit.registry.enrol(token, enrolment("a", site="lima", line="2"), now=1)
    assert {"site": "oslo", "line": "2"} == kit.registry.device("a").tags


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
    kit.registry.put_cohort("oslo", {"site": "oslo"})
    kit.enrol("a", site="oslo")
    kit.enrol("b", site="lima")
    assert ("a",) == kit.registry.cohort("oslo").devices
    assert ("a", "b") == kit.registry.cohort("all").devices
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
