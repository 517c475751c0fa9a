from __future__ import annotations

import contextlib
import threading
from typing import Any

import pytest
from sqlalchemy import update
from sqlmodel import col, delete

from edgeopt_contract.audit import BrokenChainError, export_lines, verify_export
from edgeopt_fleet.acting import Actor, acting_as
from edgeopt_fleet.store.audit import AuditFilter, AuditLog, Change, append
from edgeopt_fleet.store.database import Database
from edgeopt_fleet.store.tables import AuditRow
from edgeopt_fleet.store.tokens import TokenGrant
from edgeopt_fleet.store.users import Users
from tests.fleet.conftest import Kit

pytestmark = pytest.mark.rights


def tell(database: Database, subject: str, lock: str = "some") -> None:
    """Append one entry in a transaction of its own."""
    with database.transaction(lock=lock) as session:
        append(session, Change(operation="thing.do", subject=subject, after={"n": 1}, detail={"why": "Å"}), 1.5)


def test_concurrent_appenders_make_one_chain(database: Database) -> None:
    """Eight threads whose transactions exclude each other nowhere else: no entry is lost, doubled or misplaced."""
    failures: list[BaseException] = []

    def work(name: str) -> None:
        try:
            for number in range(12):
                with acting_as(Actor(name=name, via="api")):
                    tell(database, f"thing/{number}", lock=name)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(f"user-{n}",)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [] == failures
    log = AuditLog(database)
    assert 96 == log.verify().entries
    assert 12 == len(log.page(AuditFilter(actor="user-3"), 1000))
    assert log.head() == verify_export(export_lines(log.entries()))


def test_an_entry_and_its_change_come_together_or_not_at_all(database: Database) -> None:
    """What is undone leaves no entry, and the chain goes on behind the last that counts."""
    tell(database, "thing/1")
    with contextlib.suppress(ZeroDivisionError), database.transaction() as session:
        append(session, Change(operation="thing.do", subject="thing/2"), 2.0)
        raise ZeroDivisionError
    tell(database, "thing/3")
    log = AuditLog(database)
    assert ["thing/3", "thing/1"] == [row.subject for row in log.page(AuditFilter(), 10)]
    assert 2 == log.verify().entries


@pytest.mark.parametrize(
    "change",
    [
        {"actor": "eve"}, {"via": "api"}, {"operation": "thing.undo"}, {"subject": "thing/9"}, {"at": 1501},
        {"before": "0" * 64}, {"after": ""}, {"detail": {"why": "A"}}, {"previous": "1" * 64}, {"sha256": "2" * 64},
        {"number": 77},
    ],
    ids=lambda change: next(iter(change)),
)  # fmt: skip
def test_a_changed_column_is_found(database: Database, change: dict[str, Any]) -> None:
    """Whichever column of whichever entry somebody changes behind the fleet's back."""
    for number in range(1, 5):
        tell(database, f"thing/{number}")
    log = AuditLog(database)
    assert 4 == log.verify().entries
    with database.transaction() as session:
        session.execute(update(AuditRow).where(col(AuditRow.number) == 3).values(**change))
    with pytest.raises(BrokenChainError, match=r"[34]"):
        log.verify()


@pytest.mark.parametrize("gone", [1, 2, 4])
def test_a_deleted_entry_is_found(database: Database, gone: int) -> None:
    """The first, one in between, the last."""
    for number in range(1, 5):
        tell(database, f"thing/{number}")
    with database.transaction() as session:
        session.execute(delete(AuditRow).where(col(AuditRow.number) == gone))
    with pytest.raises(BrokenChainError):
        AuditLog(database).verify()


def test_stores_name_who_acts_and_keep_no_secrets(kit: Kit) -> None:
    """Users, tokens, devices, bundles: who did what stands in the log; keys, tokens and their hashes do not."""
    with acting_as(Actor(name="alice", via="api")):
        key = Users(kit.database).create("bob", "operator", kit.now).key  # type: ignore[arg-type]
        token = kit.tokens.create(TokenGrant(uses=1, expires_at=2**31), kit.now)
        kit.identities.enrol(token, kit.enrolment("cam-1", bearer="bearer-secret"), int(kit.now))
        kit.identities.revoke("cam-1", int(kit.now))
        kit.publish("1")
    entries = kit.audit.page(AuditFilter(actor="alice"), 100)
    told = [entry.operation for entry in reversed(entries)]
    assert ["user.create", "token.create", "device.enrol", "device.revoke", "bundle.publish"] == told
    assert all(entry.after for entry in entries)
    text = b"".join(export_lines(kit.audit.entries())).decode()
    for secret in (key, token, "bearer-secret"):
        assert secret not in text
    assert kit.audit.verify() == verify_export(export_lines(kit.audit.entries()))
