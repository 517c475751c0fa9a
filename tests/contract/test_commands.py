"""Every end of a program: its message, its exit code, and no traceback unless asked for."""

from __future__ import annotations

import errno
from collections.abc import Callable

import click
import pytest

from edgeopt_contract.commands import INTERRUPTED, run_command
from edgeopt_contract.errors import DataError, ExitCode, StorageError, UnreachableError

Capture = pytest.CaptureFixture[str]


def _raising(error: BaseException) -> Callable[[], None]:
    def command() -> None:
        raise error

    return command


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (DataError("no samples"), ExitCode.BAD_INPUT, "error: no samples"),
        (StorageError("cannot write x"), ExitCode.UNEXPECTED, "error: cannot write x"),
        (UnreachableError("the fleet is away"), ExitCode.UNREACHABLE, "error: the fleet is away"),
        (
            OSError(errno.ENOSPC, "No space left", "out"),
            1,
            "error: the disk is full: free some space and try again (out)",
        ),
        (MemoryError(), 1, "error: the machine ran out of memory: use less data or a larger machine"),
        (KeyError("x"), 1, "unexpected error: KeyError: 'x'; set EDGEOPT_TRACEBACK=1 to see where it happened"),
        (KeyboardInterrupt(), INTERRUPTED, "interrupted"),
        (click.UsageError("wrong"), ExitCode.BAD_INPUT, "error: wrong"),
    ],
)
def test_an_error_becomes_one_line_and_its_exit_code(
    error: BaseException, code: int, message: str, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each kind of error ends with the code the documentation gives it, and with one line on stderr."""
    monkeypatch.delenv("EDGEOPT_TRACEBACK", raising=False)

    result = run_command(_raising(error))

    assert code == result
    assert ("", f"{message}\n") == tuple(capsys.readouterr())


@pytest.mark.parametrize(
    ("returned", "code"), [(None, 0), (3, 3), (ExitCode.GATE_INCONCLUSIVE, 4), (True, 0), ("x", 0)]
)
def test_an_integer_is_the_exit_code(returned: object, code: int) -> None:
    """A verdict is returned, not raised; any other value means that all went well."""
    assert code == run_command(lambda: returned)


def test_the_traceback_is_there_for_the_asking(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    """EDGEOPT_TRACEBACK=1 shows where even an expected error came from."""
    monkeypatch.setenv("EDGEOPT_TRACEBACK", "1")

    run_command(_raising(DataError("no samples")))

    shown = capsys.readouterr().err
    assert "Traceback (most recent call last)" in shown
    assert shown.endswith("error: no samples\n")


class TestWithClick:
    """What click raises is understood without importing click."""

    @staticmethod
    def _run(arguments: list[str]) -> int:
        @click.group(name="tool")
        def group() -> None:
            """A tool."""

        @group.command()
        @click.option("--data", required=True)
        def work(data: str) -> int:
            if data == "stop":
                raise KeyboardInterrupt
            return 4

        return run_command(lambda: group(arguments, prog_name="tool", standalone_mode=False))

    def test_a_missing_option_names_the_help(self, capsys: Capture) -> None:
        """A usage error is exit 2, one message, and where to read on."""
        assert ExitCode.BAD_INPUT == self._run(["work"])
        assert "error: Missing option '--data'.\nsee 'tool work --help'\n" == capsys.readouterr().err

    def test_no_argument_shows_the_help(self, capsys: Capture) -> None:
        """The bare program shows its help page, without the word error."""
        assert ExitCode.BAD_INPUT == self._run([])
        assert capsys.readouterr().err.startswith("Usage: tool")

    def test_the_value_of_a_command_is_its_exit_code(self) -> None:
        """What the command function returns reaches the shell."""
        assert 4 == self._run(["work", "--data", "x"])

    def test_an_interrupt_is_told_from_an_error(self, capsys: Capture) -> None:
        """Ctrl-C, which click wraps, is still an interrupt."""
        assert INTERRUPTED == self._run(["work", "--data", "stop"])
        assert "interrupted" in capsys.readouterr().err
