"""Alembic's revisions of the fleet's tables; :mod:`edgeopt_fleet.store.schema` applies them."""
