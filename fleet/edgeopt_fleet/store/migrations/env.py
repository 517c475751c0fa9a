"""What Alembic runs: the revisions, over a connection and inside a transaction that somebody else has opened.

It has no settings and opens no database: see :func:`edgeopt_fleet.store.schema.migrate`, which is its one caller.
"""

from __future__ import annotations

from alembic import context
from sqlmodel import SQLModel

from edgeopt_fleet.store import tables

assert tables.__all__  # importing it is what declares the tables

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=SQLModel.metadata,
    transaction_per_migration=False,
)
context.run_migrations()
