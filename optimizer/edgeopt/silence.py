"""Keeping third parties quiet: what exporters and quantizers print, warn and log is not for the user.

It hides nothing that matters: exceptions pass, and what Python printed goes to the logger ``edgeopt.silenced``.
Example::

    with silenced():
        torch.onnx.export(...)
"""

from __future__ import annotations

import contextlib
import io
import logging
import os
import warnings
from collections.abc import Iterator

__all__ = ["silenced", "silenced_natively"]

_LOGGER = logging.getLogger("edgeopt.silenced")


@contextlib.contextmanager
def silenced() -> Iterator[None]:
    """Take what is printed, warned and logged inside away from the terminal."""
    printed = io.StringIO()
    threshold = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(threshold)
        if printed.getvalue():
            _LOGGER.debug("%s", printed.getvalue())


@contextlib.contextmanager
def silenced_natively() -> Iterator[None]:
    """Silence, and also take away what C++ code writes to the process's standard error, whatever thread it is in."""
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        with silenced():
            yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)
