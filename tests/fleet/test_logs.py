from __future__ import annotations

import asyncio
import io
import json
import logging
from collections.abc import Iterator
from datetime import datetime

import pytest

from edgeopt_fleet.logs import configure, request_id, with_request_id

OURS = logging.getLogger("edgeopt_fleet.test_logs")
OTHERS = logging.getLogger("somebody.else")


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    """Leave logging as it was."""
    root, ours = logging.getLogger(), logging.getLogger("edgeopt_fleet")
    before = root.handlers[:], root.level, ours.level
    yield
    root.handlers[:], _, _ = before
    root.setLevel(before[1])
    ours.setLevel(before[2])


def lines(style: str, level: int = logging.WARNING) -> io.StringIO:
    """Log in a style into what is returned."""
    stream = io.StringIO()
    configure(style, level, stream)
    return stream


def test_a_line_of_json_holds_what_programs_look_for() -> None:
    """Time in UTC, level, logger, event, message, and every extra field; one line, whatever the message holds."""
    stream = lines("json")
    OURS.info("took the role\n%s", "ingest ü", extra={"event": "role.taken", "role": "ingest", "at": object})
    (line,) = stream.getvalue().splitlines()
    found = json.loads(line)
    assert ("info", "edgeopt_fleet.test_logs", "role.taken", "took the role\ningest ü", "ingest") == (
        found["level"], found["logger"], found["event"], found["message"], found["role"]
    )  # fmt: skip
    assert 0 == datetime.fromisoformat(found["time"]).utcoffset().total_seconds()  # type: ignore[union-attr]
    assert "ü" in line
    assert "request_id" not in found


def test_an_extra_field_does_not_take_the_place_of_a_line_s_own() -> None:
    """Whatever a caller names its fields, time and level are the line's."""
    stream = lines("json")
    OURS.warning("careful", extra={"level": "none", "time": "never", "logger": "nobody"})
    found = json.loads(stream.getvalue())
    assert ("warning", "edgeopt_fleet.test_logs", "log") == (found["level"], found["logger"], found["event"])
    assert found["time"] != "never"


def test_an_exception_stands_in_its_line() -> None:
    """A traceback has many lines; a program that reads one object a line must not lose it."""
    stream = lines("json")
    try:
        raise ArithmeticError("no work today")
    except ArithmeticError:
        OURS.exception("the work ended")
    found = json.loads(stream.getvalue())
    assert "error" == found["level"]
    assert "ArithmeticError: no work today" in found["exception"]
    assert "Traceback" in found["exception"]


def test_our_lines_are_shown_from_info_on_and_others_from_what_was_asked() -> None:
    """A library that talks would bury what happened."""
    stream = lines("text")
    OURS.debug("too much")
    OTHERS.info("chatter")
    OURS.info("took the role")
    OTHERS.warning("beware")
    shown = stream.getvalue().splitlines()
    assert ["took the role", "beware"] == [line.rpartition(": ")[2] for line in shown]
    verbose = lines("text", logging.DEBUG)
    OURS.debug("much")
    OTHERS.info("chatter")
    assert 2 == len(verbose.getvalue().splitlines())


@pytest.mark.parametrize("style", ["text", "json"])
async def test_each_request_s_lines_carry_its_own_id(style: str) -> None:
    """Also when several are answered at once, and in tasks that a request begins; none afterwards."""
    stream = lines(style)

    async def answer(given: str) -> None:
        with with_request_id(given):
            await asyncio.sleep(0)
            OURS.info("from %s", given)
            await asyncio.create_task(begun(given))
            assert given == request_id()

    async def begun(given: str) -> None:
        OURS.info("from %s", given)

    await asyncio.gather(answer("one"), answer("two"))
    assert "" == request_id()
    OURS.info("from nobody")
    for line in stream.getvalue().splitlines():
        if style == "json":
            found = json.loads(line)
            assert found["message"] == f"from {found.get('request_id', 'nobody')}"
        elif "nobody" in line:
            assert line.endswith("from nobody")
        else:
            assert line.endswith(("from one [one]", "from two [two]"))


def test_configuring_again_does_not_write_lines_twice() -> None:
    """Whoever configures anew means another stream, not one more."""
    first, second = lines("text"), lines("text")
    OURS.info("once")
    assert "" == first.getvalue()
    assert 1 == len(second.getvalue().splitlines())
