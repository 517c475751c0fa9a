"""One line an event, whatever is in it."""

from __future__ import annotations

import logging

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgeopt_agent.log import log_event


def test_fields_become_pairs(caplog: pytest.LogCaptureFixture) -> None:
    """Plain values stand bare, text with blanks is quoted, what is None is left out."""
    with caplog.at_level(logging.INFO, "edgeopt_agent"):
        log_event("fetched", blocks=3, seconds=0.25, detail="two words", nothing=None)
    assert 'event=fetched blocks=3 seconds=0.250 detail="two words"' == caplog.messages[0]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text(max_size=2000))
def test_no_text_breaks_the_line(caplog: pytest.LogCaptureFixture, text: str) -> None:
    """What a broker or a bundle sends cannot forge a second line, nor flood the log."""
    caplog.clear()
    with caplog.at_level(logging.INFO, "edgeopt_agent"):
        log_event("refused", reason=text)
    (message,) = caplog.messages
    assert 1 == len(message.splitlines())
    assert len(message) < 5000
