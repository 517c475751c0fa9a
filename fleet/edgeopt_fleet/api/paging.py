"""Pages of a list: how many, and after which row.

A cursor names the last row of a page by what the list is ordered by, so a row that is inserted or removed meanwhile
neither repeats nor hides another one. It is opaque to clients and refused where it was not made. Example::

    @router.get("/alerts", responses=problems())
    async def list_alerts(request: Request, page: Paging) -> AlertList:
        rows = await read(alerts.list, page.below(), page.limit + 1)
        return AlertList(items=[...page.cut(rows)], next=page.next(rows, lambda row: (row.id,)))
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar

import msgspec
from fastapi import Depends, Query, Request

from edgeopt_contract.values import canonical_json
from edgeopt_fleet.api.views import CURSOR_EXAMPLE
from edgeopt_fleet.problems import InvalidError

__all__ = ["MOST_ITEMS", "PageRequest", "Paging"]

Row = TypeVar("Row")
Key = tuple[str | int | float, ...]

MOST_ITEMS = 1000
_LONGEST_CURSOR = 1024
_GREATEST = 2**53


@dataclass(frozen=True, slots=True)
class PageRequest:
    """What a request asks for: at most ``limit`` rows of the list ``name``, after those of an earlier page."""

    name: str
    limit: int
    cursor: str | None

    def after(self, *kinds: type) -> Key | None:
        """Return the key of the last row of the page before, or None for the first page.

        Raises :class:`InvalidError` for a cursor that is none, or one of another list.
        """
        if self.cursor is None:
            return None
        try:
            padded = self.cursor.encode("ascii") + b"=" * (-len(self.cursor) % 4)
            parts = msgspec.json.decode(base64.b64decode(padded, altchars=b"-_", validate=True))
        except (ValueError, binascii.Error, msgspec.MsgspecError, RecursionError) as error:
            raise self._refusal() from error
        if not isinstance(parts, list) or len(parts) != len(kinds) + 1 or parts[0] != self.name:
            raise self._refusal()
        return tuple(self._checked(part, kind) for part, kind in zip(parts[1:], kinds, strict=True))

    def below(self) -> int | None:
        """Return the number of the last row of the page before, in a list by falling numbers; None: the first page."""
        key = self.after(int)
        return None if key is None else int(key[0])

    def cut(self, rows: Sequence[Row]) -> Sequence[Row]:
        """Return what belongs on the page of ``limit + 1`` rows that were looked for."""
        return rows[: self.limit]

    def next(self, rows: Sequence[Row], key: Callable[[Row], Key]) -> str | None:
        """Return the cursor of the page after this one; None when ``rows`` holds no row too many."""
        if len(rows) <= self.limit:
            return None
        text = base64.urlsafe_b64encode(canonical_json([self.name, *key(rows[self.limit - 1])]))
        return text.decode("ascii").rstrip("=")

    def _checked(self, part: Any, kind: type) -> str | int | float:
        wanted = (int, float) if kind is float else (kind,)
        if type(part) not in wanted:
            raise self._refusal()
        if isinstance(part, str):
            if not part.isprintable():
                raise self._refusal()
            return part
        if not -_GREATEST < part < _GREATEST:
            raise self._refusal()
        number: int | float = kind(part)
        return number

    def _refusal(self) -> InvalidError:
        return InvalidError("cursor: expected the 'next' of an earlier page of this list; leave it out to begin anew")


async def _page_request(
    request: Request,
    limit: Annotated[int, Query(ge=1, le=MOST_ITEMS, description="at most this many items", examples=[100])] = 100,
    cursor: Annotated[
        str | None,
        Query(
            max_length=_LONGEST_CURSOR,
            examples=[CURSOR_EXAMPLE],
            description="`next` of the page before; leave it out for the first page",
        ),
    ] = None,
) -> PageRequest:
    return PageRequest(request.scope["route"].name, limit, cursor)


Paging = Annotated[PageRequest, Depends(_page_request)]
