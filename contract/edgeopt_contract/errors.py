"""The one error tree of edgeopt, split by whose fault it is.

::

    EdgeoptError                    exit code 1
    ├── UsageError                  2   yours: an argument, a file or a setting you gave
    │   ├── ModelError              2   the model cannot be loaded, exported or run
    │   ├── DataError               2   the data cannot be read or does not fit the model
    │   └── MissingExtraError       2   an optional dependency is not installed
    ├── ContractError               2   theirs: a message, manifest or bundle that breaks the contract
    │   ├── MessageError            2   a message that is malformed, too large or of an unknown version
    │   ├── BundleError             2   a bundle that is incomplete or was changed
    │   └── SignatureError          2   a signature that is missing, of an unknown key, or wrong
    └── WorldError                  1   the world's: neither side did wrong
        ├── StorageError            1   the disk is full, read-only or failing
        └── UnreachableError        5   a broker or a server does not answer

A message says what was expected, what came, and what to do next. Exit codes 3 and 4 (gate FAIL and
INCONCLUSIVE) are verdicts, not errors; see :class:`ExitCode`.
"""

from __future__ import annotations

from enum import IntEnum

__all__ = [
    "BundleError",
    "ContractError",
    "DataError",
    "EdgeoptError",
    "ExitCode",
    "MessageError",
    "MissingExtraError",
    "ModelError",
    "SignatureError",
    "StorageError",
    "UnreachableError",
    "UsageError",
    "WorldError",
]


class ExitCode(IntEnum):
    """What every edgeopt command returns to the shell."""

    GOOD = 0
    UNEXPECTED = 1
    BAD_INPUT = 2
    GATE_FAIL = 3
    GATE_INCONCLUSIVE = 4
    UNREACHABLE = 5


class EdgeoptError(Exception):
    """Root of every error that edgeopt raises on purpose."""

    exit_code: ExitCode = ExitCode.UNEXPECTED


class UsageError(EdgeoptError):
    """What the user gave cannot be used."""

    exit_code = ExitCode.BAD_INPUT


class ModelError(UsageError):
    """The model cannot be loaded, exported or run."""


class DataError(UsageError):
    """The data cannot be read, or does not fit the model."""


class MissingExtraError(UsageError):
    """An optional dependency is not installed."""

    def __init__(self, module: str, extra: str) -> None:
        super().__init__(f"this needs the module '{module}'; install it with: pip install 'edgeopt[{extra}]'")


class ContractError(EdgeoptError):
    """The other party sent something that breaks the contract."""

    exit_code = ExitCode.BAD_INPUT


class MessageError(ContractError):
    """A message is malformed, too large, or of a version this program does not know."""


class BundleError(ContractError):
    """A bundle is incomplete or does not match its manifest."""


class SignatureError(ContractError):
    """A signature is missing, was made by an unknown key, or does not verify."""


class WorldError(EdgeoptError):
    """Neither the user nor the other party did wrong: the machine or the network failed."""


class StorageError(WorldError):
    """The disk is full, read-only or failing."""


class UnreachableError(WorldError):
    """A broker or a server does not answer."""

    exit_code = ExitCode.UNREACHABLE
