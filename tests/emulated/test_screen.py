from __future__ import annotations

import io
import os
import sys
from collections.abc import Iterator
from dataclasses import replace

import pytest
from rich.console import Console

from devices.emulator.screen import Row, Screen

_ROW = Row("pi", "Raspberry Pi (-cpu cortex-a72)", "online, confirmed", "0123456789ab", "48 / 48", "3G", "5 KiB down")


@pytest.fixture
def typing(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """A pipe in the place of the keyboard; its end to write to."""
    read, write = os.pipe()
    with os.fdopen(read) as keyboard:
        monkeypatch.setattr(sys, "stdin", keyboard)
        yield write


def test_without_a_terminal_only_changes_are_printed(typing: int) -> None:
    """A log of an unattended run does not repeat itself."""
    printed = io.StringIO()
    with Screen(Console(file=printed)) as screen:
        screen.show([_ROW])
        screen.show([replace(_ROW, traffic="6 KiB down")])
        screen.say("pi has lost its power")
    os.close(typing)
    assert ["0123456789ab" in line for line in printed.getvalue().splitlines()] == [True, False]


def test_lines_come_when_they_are_complete(typing: int) -> None:
    """Letters wait for the end of the line; backspace takes one back; empty lines are nothing."""
    with Screen(Console(file=io.StringIO())) as screen:
        os.write(typing, b"cut pj\x7f")
        assert [] == screen.lines(5)
        os.write(typing, b"i\n\non")
        assert ["cut pi"] == screen.lines(5)
        os.close(typing)
        assert [] == screen.lines(5)
        assert [] == screen.lines(0)
