"""The error tree: its exit codes are those that its docstring draws."""

from __future__ import annotations

import re

import pytest

from edgeopt_contract import errors
from edgeopt_contract.errors import EdgeoptError, ExitCode, MissingExtraError

CLASSES = [cls for cls in vars(errors).values() if isinstance(cls, type) and issubclass(cls, EdgeoptError)]


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
def test_the_drawing_is_true(cls: type[EdgeoptError]) -> None:
    """Every class stands in the drawing with its exit code."""
    drawn = re.search(rf"\b{cls.__name__} +(?:exit code )?(\d)", errors.__doc__ or "")
    assert drawn is not None
    assert int(drawn[1]) == cls.exit_code


def test_exit_codes_are_what_scripts_rely_on() -> None:
    """0 good, 1 unexpected, 2 bad input, 3 FAIL, 4 INCONCLUSIVE, 5 unreachable."""
    assert [0, 1, 2, 3, 4, 5] == [int(code) for code in ExitCode]
    assert (3, 4, 5) == (ExitCode.GATE_FAIL, ExitCode.GATE_INCONCLUSIVE, ExitCode.UNREACHABLE)


def test_a_missing_extra_is_one_sentence_with_the_command() -> None:
    """The user can copy what to type."""
    expected = "this needs the module 'torch'; install it with: pip install 'edgeopt[optimizer]'"
    assert expected == str(MissingExtraError("torch", "optimizer"))
