"""Writes the revision that makes the fleet's tables, from their models: while nothing was released there is one.

Once something was released, its revision stands as it is, and what changed since goes into a new one. Example::

    python -m tools.migration                # writes store/migrations/versions/0001_initial.py anew
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

from alembic import command
from alembic.config import Config

from edgeopt_fleet.store import schema
from edgeopt_fleet.store.database import Database

__all__ = ["main"]

_MIGRATIONS = Path(schema.__file__).with_name("migrations")
_INITIAL = _MIGRATIONS / "versions" / "0001_initial.py"


def main() -> None:
    """Write the revision and put it into shape."""
    _INITIAL.unlink(missing_ok=True)
    with tempfile.TemporaryDirectory() as directory:
        (Path(directory) / "empty.db").touch()
        database = Database.open_any(Path(directory) / "empty.db")
        with database.transaction() as session:
            config = Config()
            config.set_main_option("script_location", str(_MIGRATIONS))
            config.attributes["connection"] = session.connection()
            command.revision(config, "The tables of a fleet", autogenerate=True, rev_id="0001")
        database.close()
    (written,) = (_MIGRATIONS / "versions").glob("0001_*.py")
    text = written.read_text("utf-8")
    written.unlink()
    _INITIAL.write_text("\n".join(line for line in text.splitlines() if not line.lstrip().startswith("# ###")) + "\n")
    for order in (["check", "--fix", "--quiet", "--ignore=PLR0915"], ["format", "--quiet"]):
        subprocess.run([sys.executable, "-m", "ruff", *order, str(_INITIAL)], check=True)


if __name__ == "__main__":
    main()
