"""One line of JSON an event, whatever is in it; nothing secret, and nothing over and over."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgeopt_agent.log import configure_logging, log_event
from edgeopt_agent.repetition import Repetition
from edgeopt_contract.errors import StorageError


@pytest.fixture
def lines(tmp_path: Path) -> Iterator[Path]:
    """The log in a file, configured as ``run`` does; what the test's runner had configured comes back."""
    root, agent = logging.getLogger(), logging.getLogger("edgeopt_agent")
    before = root.handlers[:], root.level, agent.level, logging.raiseExceptions
    root.handlers.clear()
    configure_logging(tmp_path / "agent.log")
    yield tmp_path / "agent.log"
    for handler in root.handlers:
        handler.close()
    root.handlers[:], level, agent.level, logging.raiseExceptions = before
    root.setLevel(level)
    agent.setLevel(before[2])


def test_event_is_one_object_with_its_time_and_level(lines: Path) -> None:
    """Numbers stay numbers, what is None is left out."""
    log_event("fetched", level=logging.WARNING, blocks=3, seconds=0.25, detail="two words", nothing=None, ok=True)
    (line,) = lines.read_text().splitlines()
    logged = json.loads(line)
    assert logged.pop("at").endswith("Z")
    expected = {"level": "warning", "event": "fetched", "blocks": 3, "seconds": 0.25, "detail": "two words", "ok": True}
    assert expected == logged


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text(max_size=2000))
def test_no_text_breaks_the_line(caplog: pytest.LogCaptureFixture, text: str) -> None:
    """What a broker or a bundle sends cannot forge a second line, nor flood the log."""
    caplog.clear()
    with caplog.at_level(logging.INFO, "edgeopt_agent"):
        log_event("refused", reason=text)
    (message,) = caplog.messages
    assert 1 == len(message.splitlines())
    assert text[:400] == json.loads(message)["reason"]
    assert len(message) < 5000


def test_others_and_tracebacks_become_lines_too(lines: Path) -> None:
    """A library that logs an error, or an exception, is one object as well."""
    logging.getLogger("asyncio").error("two\nlines")
    try:
        raise ValueError("bad")
    except ValueError:
        log_event("unexpected", level=logging.ERROR, trace=True, command="test")
    first, second = map(json.loads, lines.read_text().splitlines())
    assert ("asyncio", "two\nlines") == (first["logger"], first["text"])
    assert ("unexpected", "test") == (second["event"], second["command"])
    assert "ValueError: bad" in second["trace"]


@pytest.mark.parametrize(
    "secret",
    [
        "eo1.c2VjcmV0LXNlY3JldA.AAAA-BBBB",
        "Authorization: Bearer c2VjcmV0LXNlY3JldA",
        "-----BEGIN PRIVATE KEY-----\nc2VjcmV0LXNlY3JldA\n-----END PRIVATE KEY-----\n",
    ],
)
def test_what_looks_like_a_secret_is_blotted_out(lines: Path, secret: str) -> None:
    """Whatever somebody's error message quotes: no token, bearer or private key reaches the log."""
    log_event("refused", reason=f"the server said {secret}")
    assert "c2VjcmV0" not in lines.read_text()
    assert "the server said" in json.loads(lines.read_text())["reason"]


def test_file_stays_small(lines: Path) -> None:
    """A file and the one before it: a device that logs for years has a disk left."""
    for number in range(3000):
        log_event(f"event-{chr(97 + number % 26)}{chr(97 + number // 26 % 26)}{chr(97 + number // 676)}", t="x" * 399)
    for handler in logging.getLogger().handlers:
        handler.filters.clear()
    for number in range(5000):
        log_event("much", number=number, text="x" * 399)
    assert {"agent.log", "agent.log.1"} == {path.name for path in lines.parent.iterdir()}
    assert 1 << 20 >= sum(path.stat().st_size for path in lines.parent.iterdir())


def test_file_that_cannot_be_written_is_a_storage_error(tmp_path: Path) -> None:
    """Said at the start, with what to do."""
    with pytest.raises(StorageError, match="cannot write"):
        configure_logging(tmp_path / "no" / "agent.log")


def test_day_without_a_broker_gives_tens_of_lines() -> None:
    """A line every twenty seconds is said at once, and then now and then, with how many were left out."""
    repetition, said, left_out = Repetition(), 0, 0
    for second in range(0, 86_400, 20):
        suppressed = repetition.suppressed(f"link_lost failures={second // 20} reason=refused", float(second))
        if suppressed is not None:
            said += 1
            left_out += suppressed
    print(f"a day without a broker: {said} lines instead of {86_400 // 20}")
    assert 10 <= said <= 60
    assert 86_400 // 20 - said - left_out < 100


def test_other_lines_are_not_left_out_for_it() -> None:
    """What is said for the first time is said, however much else is repeated."""
    repetition = Repetition()
    for second in range(100):
        repetition.suppressed("again", float(second))
    assert 0 == repetition.suppressed("something new", 100.0)


def test_somebody_who_varies_the_text_cannot_flood_the_log() -> None:
    """A thousand different texts in a second are some hundred lines, and little memory."""
    repetition = Repetition()
    texts = [f"reason {chr(0x4E00 + number)}" for number in range(5000)]
    assert 300 == sum(repetition.suppressed(text, 1.0) is not None for text in texts)
    assert len(repetition._same) <= 200
