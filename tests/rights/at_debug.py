"""``edgeopt-fleet`` with every logger of every library at DEBUG: the most that a log can ever hold.

Example::

    python tests/rights/at_debug.py serve fleet
"""

from __future__ import annotations

import logging
from typing import Any

from edgeopt_fleet import logs

_configure = logs.configure


def configure(style: str, _level: int, *rest: Any) -> None:
    """Take DEBUG instead of whatever was asked for."""
    _configure(style, logging.DEBUG, *rest)
    for name in ("edgeopt_fleet", "sqlalchemy.engine", "sqlalchemy.pool", "uvicorn", "uvicorn.error", "uvicorn.access"):
        logging.getLogger(name).setLevel(logging.DEBUG)


logs.configure = configure

if __name__ == "__main__":
    from edgeopt_fleet.cli import main

    main()
