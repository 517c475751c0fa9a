"""Room beside rows that change with every message.

PostgreSQL writes a changed row anew; where its page has room, no index has to learn of that (a heap-only update), and
the old one goes with the next change of the page. SQLite changes rows in place.
"""

from __future__ import annotations

from typing import Any

__all__ = ["WITH_ROOM"]

WITH_ROOM: dict[str, Any] = {"postgresql_with": {"fillfactor": 50}}  # of a page, by rows that are new
