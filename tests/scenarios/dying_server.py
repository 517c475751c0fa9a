"""``edgeopt-fleet``, killed with -9 by its own hand around the commit of the first request with an Idempotency-Key.

``EDGEOPT_TEST_DIES`` says where: ``before`` the commit, or ``after`` it and before the answer is sent. Example::

    EDGEOPT_TEST_DIES=after python -m tests.scenarios.dying_server serve fleet
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator

from edgeopt_fleet.cli import main
from edgeopt_fleet.store.idempotency import AnswerBook

_WHERE = os.environ["EDGEOPT_TEST_DIES"]
_together = AnswerBook.together


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


@contextlib.contextmanager
def _deadly(book: AnswerBook) -> Iterator[None]:
    with _together(book):
        yield
        if _WHERE == "before":
            _die()
    _die()


if __name__ == "__main__":
    AnswerBook.together = _deadly  # type: ignore[method-assign, assignment]  # what this program is for
    main()
