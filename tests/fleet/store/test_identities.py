from __future__ import annotations

import pytest

from edgeopt_fleet.problems import ConflictError, ForbiddenError, NotFoundError
from edgeopt_fleet.store.bearers import Bearers
from edgeopt_fleet.store.identities import Enrolled, Secrets
from edgeopt_fleet.store.tokens import TokenGrant
from tests.fleet.conftest import Kit
from tests.identity import DeviceKey, issue

DAY = 86400


def token(kit: Kit, uses: int = 1, **tags: str) -> str:
    """Return the secret of a token that is good until 100,000 s."""
    return kit.tokens.create(TokenGrant(uses=uses, expires_at=100_000, tags=tags), kit.now)


def whose(kit: Kit, bearer: str, now: int) -> str | None:
    """Return the device whose bearer counts now."""
    found = Bearers(kit.database).whose(bearer, now)
    return found.device if found is not None and found.valid else None


def renew(kit: Kit, device: str, serial: str, key: DeviceKey, now: int) -> Enrolled:
    """Renew with a certificate of one day."""
    issued = issue(kit.authority, device, key, now=now)
    return kit.identities.renew(device, serial, issued, Secrets(bearer_sha256=f"bearer at {now}"), now)


def test_a_token_is_good_for_its_uses_until_it_expires(kit: Kit) -> None:
    """A used, an expired and an unknown token are told apart."""
    once = token(kit)
    assert 1 == kit.identities.enrol(once, kit.enrolment("a"), 99).devices
    with pytest.raises(ForbiddenError, match="used up"):
        kit.identities.enrol(once, kit.enrolment("b"), 99)
    late = token(kit)
    with pytest.raises(ForbiddenError, match="expired 0 s ago"):
        kit.identities.enrol(late, kit.enrolment("b"), 100_000)
    with pytest.raises(ForbiddenError, match="does not know the token"):
        kit.identities.enrol("guess", kit.enrolment("b"), 1)


def test_a_lost_answer_is_given_again_for_the_same_token_and_key(kit: Kit) -> None:
    """The same certificate, no second use; another device or another key with the same token is refused."""
    once, key = token(kit), DeviceKey()
    first = kit.identities.enrol(once, kit.enrolment("a", key), 1).certificate
    again = kit.identities.enrol(once, kit.enrolment("a", key, bearer="new"), 2).certificate
    assert first.serial == again.serial
    assert [("a", first.serial)] == [(user.device, user.serial) for user in kit.identities.users()]
    assert "a" == whose(kit, "new", 3)
    with pytest.raises(ForbiddenError, match="used up"):
        kit.identities.enrol(once, kit.enrolment("b", key), 3)
    with pytest.raises(ForbiddenError, match="used up"):
        kit.identities.enrol(once, kit.enrolment("a", DeviceKey()), 3)


def test_a_taken_id_or_key_does_not_spend_the_token(kit: Kit) -> None:
    """The transaction is undone as a whole."""
    several, key = token(kit, 2), DeviceKey()
    kit.identities.enrol(several, kit.enrolment("a", key), 1)
    with pytest.raises(ConflictError, match="'a' is taken"):
        kit.identities.enrol(several, kit.enrolment("a"), 1)
    with pytest.raises(ConflictError, match="must not be copied"):
        kit.identities.enrol(several, kit.enrolment("b", key), 1)
    with pytest.raises(NotFoundError):
        kit.registry.device("b")
    assert 2 == kit.identities.enrol(several, kit.enrolment("c"), 1).devices


def test_the_token_s_tags_win(kit: Kit) -> None:
    """A device cannot talk itself into another site than its token says."""
    kit.identities.enrol(token(kit, site="oslo"), kit.enrolment("a", site="lima", line="2"), 1)
    assert {"site": "oslo", "line": "2"} == kit.registry.device("a").tags


def test_a_renewal_adds_a_certificate_and_the_one_after_it_retires_the_first(kit: Kit) -> None:
    """Old and new connect until the device has shown, by renewing with it, that it has the new one."""
    first = kit.identities.enrol(token(kit), kit.enrolment("a"), 1000).certificate.serial
    second = renew(kit, "a", first, DeviceKey(), 2000).certificate.serial
    assert [first, second] == [user.serial for user in kit.identities.users()]
    third = renew(kit, "a", second, DeviceKey(), 3000).certificate.serial
    assert [second, third] == [user.serial for user in kit.identities.users()]
    assert [(first, 3000)] == kit.identities.revoked()
    with pytest.raises(ForbiddenError, match="was revoked"):
        kit.identities.renewing("a", first, 1)


def test_a_renewal_asked_for_again_gives_the_same_certificate(kit: Kit) -> None:
    """A device killed before it kept the answer asks again with the key it has kept."""
    first, key = kit.identities.enrol(token(kit), kit.enrolment("a"), 1000).certificate.serial, DeviceKey()
    assert renew(kit, "a", first, key, 2000).certificate.serial == renew(kit, "a", first, key, 2001).certificate.serial
    with pytest.raises(ConflictError, match="copied, or restored from a backup"):
        renew(kit, "a", first, DeviceKey(), 2002)


def test_an_expired_certificate_can_be_renewed_a_revoked_one_cannot(kit: Kit) -> None:
    """A device that was off for months comes back by its old key; also when it went off in the middle of a renewal."""
    first, key = kit.identities.enrol(token(kit), kit.enrolment("a"), 1000).certificate.serial, DeviceKey()
    lost = renew(kit, "a", first, key, 2000).certificate.serial
    months_later = 200 * DAY
    assert first == kit.identities.renewing("a", first, 1).serial
    second = renew(kit, "a", first, key, months_later).certificate
    assert (True, True) == (second.serial != lost, second.valid_until > months_later)
    kit.identities.revoke("a", months_later + 1)
    with pytest.raises(ForbiddenError, match="was revoked"):
        renew(kit, "a", first, key, months_later + 2)
    with pytest.raises(ForbiddenError, match="was revoked"):
        kit.identities.renewing("a", second.serial, 1)


def test_a_certificate_renews_its_own_device_only(kit: Kit) -> None:
    """The serial of another device is as good as none."""
    kit.enrol("b")
    (other,) = kit.identities.users()
    with pytest.raises(ForbiddenError, match="gave a no certificate"):
        kit.identities.renewing("a", other.serial, 1)


def test_a_revoked_device_loses_everything_until_a_new_token(kit: Kit) -> None:
    """Broker, bearer and cohorts forget it; revoking twice is revoking once; its id can be enrolled again."""
    serial = kit.identities.enrol(token(kit), kit.enrolment("a", bearer="b", line="1"), 1000).certificate.serial
    assert "a" == whose(kit, "b", 1001)
    kit.identities.revoke("a", 2000)
    kit.identities.revoke("a", 3000)
    assert [] == kit.identities.users()
    assert [(serial, 2000)] == kit.identities.revoked()
    assert whose(kit, "b", 2001) is None
    assert ((), 2000) == (kit.members("all"), kit.registry.device("a").revoked_at)
    back = kit.identities.enrol(token(kit), kit.enrolment("a", line="2"), 4000)
    assert [back.certificate.serial] == [user.serial for user in kit.identities.users()]
    assert (("a",), {"line": "2"}) == (kit.members("all"), kit.registry.device("a").tags)
    with pytest.raises(NotFoundError, match="no device 'x'"):
        kit.identities.revoke("x", 1)


def test_a_bearer_ends_with_its_certificate(kit: Kit) -> None:
    """Neither a guess nor an expired bearer names a device."""
    kit.identities.enrol(token(kit), kit.enrolment("a", bearer="b"), 1000)
    assert "a" == whose(kit, "b", 1000 + DAY - 1)
    assert whose(kit, "b", 1000 + DAY) is None
    assert whose(kit, "", 1001) is None


@pytest.mark.parametrize("backend", ["sqlite"], indirect=True)  # the file is read
def test_no_secret_stands_in_the_database(kit: Kit) -> None:
    """Bearers and tokens are hashes in the file, keys are public."""
    secret = token(kit)
    kit.identities.enrol(secret, kit.enrolment("a", bearer="canary-bearer"), 1000)
    files = b"".join(path.read_bytes() for path in kit.directory.glob("fleet.db*"))
    assert b"BEGIN CERTIFICATE" in files
    assert not any(word in files for word in (secret.encode(), b"canary-bearer", b"PRIVATE KEY"))
