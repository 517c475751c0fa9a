"""The spool: numbers, acknowledgements, totals, and what a crash may not do."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeopt_agent.reports.spool import AHEAD, Spool, SpoolTotals
from edgeopt_contract.codec import decode
from edgeopt_contract.errors import MessageError, StorageError
from edgeopt_contract.messages import Ack, DeviceState, Reported, Telemetry
from edgeopt_contract.topics import Channel

BUNDLE = "ab" * 32


def telemetry(rows: int = 3, errors: int = 1, **fields: object):  # noqa: ANN201  # a builder for append
    """A builder of a window."""

    def build(session: int, number: int) -> Telemetry:
        values: dict = {
            "bundle": BUNDLE, "variant": "v", "start": 1, "end": 2, "rows": rows, "errors": errors,
            "cells": {}, "latency": (),
        }  # fmt: skip
        return Telemetry(session=session, number=number, **(values | fields))

    return build


def report(session: int, number: int) -> Reported:
    """A report."""
    return Reported(
        session=session, number=number, at=1, job="j", bundle=BUNDLE, state=DeviceState.OFFERED, running=None
    )


def append(spool: Spool, *builders: object) -> list[int]:
    """Append each in its own transaction; return the numbers that were given out meanwhile."""
    before = spool.totals().last_number
    for build in builders:
        with spool.transaction():
            channel = Channel.REPORTED if build is report else Channel.TELEMETRY
            spool.append(channel, build)  # type: ignore[arg-type]  # a builder
    return list(range(before + 1, spool.totals().last_number + 1))


def totals(**fields: int) -> SpoolTotals:
    """Totals, zero where nothing is said."""
    zero = {"last_number": 0, "unacknowledged": 0, "acknowledged_at": 0, "rows": 0, "errors": 0}
    return SpoolTotals(**{"session": 1} | zero | fields)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the spool is."""
    return tmp_path / "agent.db"


def test_numbers_run_over_both_kinds_and_go_on_after_a_restart(path: Path) -> None:
    """1, 2, 3 … over reports and telemetry; a restart keeps the session and the count, even if all was acknowledged."""
    spool = Spool.open(path, now_ms=1000)
    assert [1, 2, 3] == append(spool, telemetry(), report, telemetry())
    assert 3 == spool.acknowledge(Ack(session=1000, upto=3), now=55.5)
    spool.close()

    again = Spool.open(path, now_ms=2000)
    assert [4] == append(again, telemetry())
    expected = totals(session=1000, last_number=4, unacknowledged=1, acknowledged_at=55, rows=9, errors=3)
    assert expected == again.totals()
    again.close()


def test_new_file_begins_a_new_session(tmp_path: Path) -> None:
    """The session is the moment at which the file was made."""
    first, second = Spool.open(tmp_path / "1", now_ms=5), Spool.open(tmp_path / "2", now_ms=6)
    assert [5, 6] == [first.totals().session, second.totals().session]
    first.close()
    second.close()


def test_message_carries_its_session_and_number(path: Path) -> None:
    """What is spooled decodes to the message with the numbers it was given."""
    spool = Spool.open(path, now_ms=7)
    append(spool, telemetry(), report)
    first, second = spool.unacknowledged(10)
    assert (7, 1, 3) == (decode(Telemetry, first.payload).session, first.number, decode(Telemetry, first.payload).rows)
    assert (Channel.REPORTED, 2) == (second.channel, decode(Reported, second.payload).number)
    spool.close()


@given(
    issued=st.integers(0, 12),
    upto=st.integers(0, 15),
    beyond=st.lists(st.integers(1, 15), max_size=5),
    foreign=st.booleans(),
)
def test_acknowledgement_forgets_what_it_covers_and_nothing_else(
    tmp_path_factory: pytest.TempPathFactory,
    issued: int,
    upto: int,
    beyond: list[int],
    foreign: bool,  # noqa: FBT001
) -> None:
    """``Ack.covers`` is the law; an ack of another session changes nothing."""
    spool = Spool.open(tmp_path_factory.mktemp("spool") / "db", now_ms=9)
    append(spool, *[telemetry()] * issued)
    ack = Ack(session=8 if foreign else 9, upto=upto, beyond=tuple(beyond))

    spool.acknowledge(ack)

    expected = [n for n in range(1, issued + 1) if foreign or not ack.covers(n)]
    assert expected == [message.number for message in spool.unacknowledged(100)]
    assert issued == spool.totals().last_number
    spool.close()


def test_interrupted_transaction_leaves_no_trace(path: Path) -> None:
    """What fails halfway uses no number and keeps no message."""
    spool = Spool.open(path, now_ms=1)

    def break_halfway() -> None:
        with spool.transaction():
            spool.append(Channel.TELEMETRY, telemetry())
            raise RuntimeError

    with pytest.raises(RuntimeError):
        break_halfway()
    assert totals() == spool.totals()
    spool.close()


def test_message_beyond_the_contract_uses_no_number(path: Path) -> None:
    """A window too large to send is refused, and the next one takes its number."""
    spool = Spool.open(path, now_ms=1)
    with pytest.raises(MessageError, match="at most 65536 bytes"):
        append(spool, telemetry(cells={"x": tuple(range(20_000))}))
    assert [1] == append(spool, telemetry())
    spool.close()


def test_full_spool_says_so_and_still_takes_reports(path: Path) -> None:
    """Where no windows can be put together telemetry waits in its window; a state change is never refused."""
    spool = Spool.open(path, now_ms=1)
    spool._limit_bytes = spool._used_bytes()
    assert not spool.is_full
    append(spool, *(telemetry(cells={f"x{i}": tuple(range(500))}) for i in range(AHEAD + 4)))
    assert spool.is_full
    assert [AHEAD + 1] == append(spool, report)
    spool._limit_bytes = spool._used_bytes() - 1
    spool.acknowledge(Ack(session=1, upto=AHEAD))
    assert not spool.is_full
    spool.close()


def test_windows_beyond_those_under_way_get_their_numbers_when_it_is_their_turn(path: Path) -> None:
    """What may have been sent has a number; the rest waits without, in order, and reports go before it."""
    spool = Spool.open(path, now_ms=1)
    builders = [telemetry(rows=rows) for rows in range(AHEAD + 3)]
    assert list(range(1, AHEAD + 1)) == append(spool, *builders)
    assert [AHEAD + 1] == append(spool, report)
    assert AHEAD + 4 == spool.totals().unacknowledged

    spool.acknowledge(Ack(session=1, upto=2, beyond=(5,)))

    sent = [decode(Telemetry, m.payload) for m in spool.unacknowledged(100) if m.channel is Channel.TELEMETRY]
    assert [AHEAD + 2, AHEAD + 3] == [window.number for window in sent[-2:]]
    assert [2, 3, *range(5, AHEAD + 2)] == [window.rows for window in sent]  # one waits still: the report is under way
    assert AHEAD + 1 == spool.totals().unacknowledged
    spool.close()


def test_number_and_bytes_stay_what_they_were(path: Path) -> None:
    """What may be on its way is the same after any number of windows that are put together behind it."""
    spool = Spool.open(path, now_ms=1)
    append(spool, report, *(telemetry(start=60 * i, end=60 * i + 60) for i in range(AHEAD)))
    before = spool.unacknowledged(100)
    spool._limit_bytes = 0
    append(spool, *(telemetry(start=6000 + 600 * i, end=6600 + 600 * i) for i in range(20)))
    assert before == spool.unacknowledged(100)
    assert 1 == len(spool._waiting)
    assert 3 * (AHEAD + 20) == spool.totals().rows
    spool.close()


def test_file_shrinks_when_the_fleet_has_everything(path: Path) -> None:
    """A month's windows do not take their place on the disk for ever."""
    spool = Spool.open(path, now_ms=1)
    for start in range(150):
        append(spool, telemetry(start=start, end=start, cells={"x": tuple(os.urandom(4000))}))
    spool._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    large = path.stat().st_size
    while waiting := spool.unacknowledged(100):
        spool.acknowledge(Ack(session=1, upto=waiting[-1].number))
    spool._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    assert 500_000 < large
    assert path.stat().st_size < 100_000
    spool.close()


def test_damaged_file_is_a_storage_error(path: Path) -> None:
    """A file that is no database gives one clear error."""
    path.write_bytes(b"this was a database once" * 100)
    with pytest.raises(StorageError, match=r"agent\.db"):
        Spool.open(path, now_ms=1)


def test_looking_does_not_create_or_change(path: Path) -> None:
    """``status`` reads beside a running agent, after it, and before it ever ran."""
    assert Spool.look_into(path) is None
    path.touch()
    assert Spool.look_into(path) is None
    spool = Spool.open(path, now_ms=1)
    append(spool, telemetry())
    beside = Spool.look_into(path)
    assert beside is not None
    assert 1 == beside.totals().last_number
    beside.close()
    spool.close()
    after = Spool.look_into(path)
    assert after is not None
    assert 1 == after.totals().unacknowledged
    with pytest.raises(StorageError, match="readonly"):
        after.set_meta("rows", 0)
    after.close()


def test_window_for_reconnects_is_kept(tmp_path: Path) -> None:
    """What an acknowledgement says of it holds until another one says something else, also after a restart."""
    path = tmp_path / "agent.db"
    with contextlib.closing(Spool.open(path, now_ms=1)) as spool:
        assert spool.reconnect_window_seconds is None
        spool.acknowledge(Ack(session=1, upto=0, reconnect_window_seconds=76.9))
        spool.acknowledge(Ack(session=1, upto=0))
        spool.acknowledge(Ack(session=2, upto=0, reconnect_window_seconds=5.0))  # of another session
    with contextlib.closing(Spool.open(path, now_ms=2)) as spool:
        assert 76.9 == spool.reconnect_window_seconds
