"""The fleet's TUF repository: root and targets that people sign, snapshot and timestamp that the server signs.

- :mod:`edgeopt_fleet.tuf.keys` makes and reads key files.
- :mod:`edgeopt_fleet.tuf.metadata` makes and checks single files (no input, no output, no clock).
- :mod:`edgeopt_fleet.tuf.repository` keeps them in the database, one consistent set at a time.
- :mod:`edgeopt_fleet.tuf.renewal` signs again before anything expires.
"""
