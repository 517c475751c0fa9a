"""A fleet is made: its directory with settings, keys, database and the operator's access. Nothing is served here.

Example::

    create_fleet(Home(Path("fleet")), config)
"""

from __future__ import annotations

import secrets
import time

from edgeopt_contract.errors import UsageError
from edgeopt_contract.storage import new_directory, storage_errors, write_atomically
from edgeopt_contract.values import canonical_json
from edgeopt_fleet.acting import acting_as, whoever_types
from edgeopt_fleet.brokers import mosquitto_files
from edgeopt_fleet.ca import DeviceAuthority
from edgeopt_fleet.config import FleetConfig, Home, write_config
from edgeopt_fleet.credentials import write_own_pairs
from edgeopt_fleet.mosquitto import write_mosquitto_files
from edgeopt_fleet.rights import Role
from edgeopt_fleet.store.database import Database
from edgeopt_fleet.store.users import Users
from edgeopt_fleet.tuf.keys import create_server_key
from edgeopt_fleet.tuf.metadata import ROLES
from edgeopt_fleet.tuf.repository import Repository

__all__ = ["create_fleet"]


def create_fleet(home: Home, config: FleetConfig) -> None:
    """Write a new fleet: settings, keys, database, and the operator's access; all of it or nothing.

    Raises :class:`UsageError` when there is something in the directory already.
    """
    if home.directory.exists() and (not home.directory.is_dir() or any(home.directory.iterdir())):
        raise UsageError(f"{home.directory} exists and is not empty; choose another directory, or serve what is there")
    with new_directory(home.directory) as temporary:
        new = Home(temporary)
        with storage_errors(home.directory):
            for directory in (new.blocks, new.broker, new.ca, new.keys, new.run):
                directory.mkdir(mode=0o700)
        write_atomically(new.config, write_config(config).encode(), mode=0o600)  # it may hold a password
        now = time.time()
        DeviceAuthority.create(new.ca, now)
        database = Database.create(new.address(config))
        with acting_as(whoever_types()):
            key = Users(database).create("operator", Role.ADMIN, now).key
            Repository(database, new.keys).create({role: (create_server_key(new.keys),) for role in ROLES}, now)
        database.close()
        if not config.database:
            with storage_errors(home.directory):
                new.database.chmod(0o600)
        if config.broker_nodes:
            write_atomically(new.routes, secrets.token_urlsafe(32).encode(), mode=0o600)
        authority = DeviceAuthority.load(new.ca)
        write_own_pairs(new, config, authority)
        access = {"url": config.url, "key": key} | ({"ca": authority.pem} if config.tls else {})
        write_atomically(new.operator, canonical_json(access) + b"\n", mode=0o600)
    if config.broker == "mosquitto":  # its files name the directory, which has its name only now
        write_mosquitto_files(mosquitto_files(home, config), authority, (), now)
