"""The journal: a record and its report are saved together or not at all."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from edgeopt_agent.reports.spool import Spool
from edgeopt_agent.update.journal import Journal
from edgeopt_agent.update.lifecycle import Update
from edgeopt_contract.codec import decode
from edgeopt_contract.errors import StorageError
from edgeopt_contract.messages import DeviceState, Reported, Result
from tests.agent.conftest import Signer


@pytest.fixture
def spool(tmp_path: Path) -> Iterator[Spool]:
    """An empty spool."""
    spool = Spool.open(tmp_path / "agent.db", now_ms=1)
    yield spool
    spool.close()


def test_fresh_journal_is_idle(spool: Spool) -> None:
    """Before the first save there is nothing under way."""
    assert Update() == Journal(spool).load()


def test_record_comes_back_as_it_was_saved(spool: Spool, signer: Signer) -> None:
    """Every field survives, the offers included."""
    update = Update(
        state=DeviceState.BAKING,
        desired=signer.desired("ab" * 32, "job-1", deadline=7, extra={"hint": "x"}),
        pending=signer.desired("cd" * 32, "job-2"),
        committed="b",
        switched=True,
        result=Result.RUNS_NEW,
        detail="ä",
        entries=3,
        at=5.5,
    )
    Journal(spool).save(update)
    assert update == Journal(spool).load()
    assert 0 == spool.totals().last_number


def test_report_is_numbered_with_the_record(spool: Spool, signer: Signer) -> None:
    """What is reported is what is saved; a long detail is cut, not refused."""
    update = Update(state=DeviceState.FAILED, desired=signer.desired("ab" * 32), detail="x" * 50_000, at=9.9)
    Journal(spool).save_and_report(update, running=None)
    (message,) = spool.unacknowledged(10)
    report = decode(Reported, message.payload)
    assert ("job-1", DeviceState.FAILED, 9, None) == (report.job, report.state, report.at, report.running)
    assert 2000 == len(report.detail)
    assert update == Journal(spool).load()


def test_neither_record_nor_report_without_the_other(spool: Spool, signer: Signer) -> None:
    """A report that cannot be made leaves the old record standing."""
    journal = Journal(spool)
    journal.save(Update(committed="a"))
    with pytest.raises(ValueError, match="SHA-256"):
        journal.save_and_report(Update(desired=signer.desired("ab" * 32)), running="no digest")
    assert Update(committed="a") == journal.load()
    assert 0 == spool.totals().last_number


def test_unknown_record_is_a_clear_error(spool: Spool) -> None:
    """A record of another version is not guessed at."""
    spool.set_meta("update", b'{"state": "teleporting"}')
    with pytest.raises(StorageError, match="newer agent"):
        Journal(spool).load()


def test_boots_are_counted(spool: Spool) -> None:
    """Each start of the agent counts one."""
    assert [1, 2] == [Journal(spool).count_boot(), Journal(spool).count_boot()]


def test_detail_that_is_no_text_is_reported_all_the_same(spool: Spool, signer: Signer) -> None:
    """A lone surrogate, as a file name may hold one, does not stop a report."""
    Journal(spool).save_and_report(Update(desired=signer.desired("ab" * 32), detail="caf\udce9"), running=None)
    assert "caf?" == decode(Reported, spool.unacknowledged(1)[0].payload).detail
