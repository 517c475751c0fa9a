"""What may have been meant by a name that there is not, for the words of the refusal.

Looked for among the names beside it in the order of the alphabet and those that begin alike: some dozens, however many
there are. Example::

    raise NotFoundError(f"there is no device {name!r}{did_you_mean(session, col(DeviceRow.id), name)}")
"""

from __future__ import annotations

from difflib import get_close_matches

from sqlalchemy.orm import Mapped
from sqlmodel import Session, select

__all__ = ["did_you_mean"]

_BESIDE = 10
_ALIKE = 100
_BEGINNING = 3
_MOST_SHOWN = 3
_LONGEST_COMPARED = 64


def did_you_mean(session: Session, names: Mapped[str], wrong: str) -> str:
    """Return ``"; did you mean 'cam-7'?"`` with up to three of ``names``, or nothing when none is like ``wrong``."""
    wrong = wrong[:_LONGEST_COMPARED]
    queries = (
        select(names).where(names < wrong).order_by(names.desc()).limit(_BESIDE),
        select(names).where(names > wrong).order_by(names).limit(_BESIDE),
        select(names).where(names.startswith(wrong[:_BEGINNING], autoescape=True)).order_by(names).limit(_ALIKE),
    )
    candidates = {name for query in queries for name in session.exec(query)}
    near = get_close_matches(wrong, sorted(candidates), n=_MOST_SHOWN)
    return f"; did you mean {' or '.join(map(repr, near))}?" if near else ""
