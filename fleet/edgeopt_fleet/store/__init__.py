"""What the fleet keeps, in SQLite and as files of blocks.

One class a theme over one :class:`~edgeopt_fleet.store.database.Database`; each public method is one transaction.
"""
