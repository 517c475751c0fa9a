"""The fleet's metadata in its database: drafts until they carry enough signatures, then in force, all in one step.

Every change ends in :meth:`Repository._settle`, inside one transaction: drafts that are complete come into force
together, and snapshot and timestamp are signed anew. So a crash leaves either the old set or the new one. Which private
keys are here decides what the server can sign by itself: all of them in a fleet for trying out, only those of snapshot
and timestamp once root and targets were moved to keys elsewhere. Example::

    repository = Repository(database, home.keys)
    repository.message()                             # what is published on the topic ``tuf``
    repository.accept("targets", uploaded, now)      # Standing(signatures=2, threshold=2, in_force=True)
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from securesystemslib.signer import CryptoSigner, Key
from sqlmodel import Session, col, delete, select
from tuf.api.metadata import Metadata, Root, Snapshot, Targets, Timestamp

from edgeopt_contract.errors import MessageError, UsageError
from edgeopt_contract.storage import storage_errors
from edgeopt_contract.tuf import ROLLBACK_LIMIT, BundleTarget
from edgeopt_fleet.problems import ConflictError, InvalidError
from edgeopt_fleet.store.changes import Counter, newest_change
from edgeopt_fleet.store.database import Database
from edgeopt_fleet.store.tables import BundleRow, DeviceRow, DraftRow
from edgeopt_fleet.tuf.keys import load_signer, public_path
from edgeopt_fleet.tuf.metadata import (
    DEFAULT_VALIDITY,
    ROLES,
    Change,
    Validity,
    bundles_of,
    first_root,
    is_signed,
    next_root,
    next_snapshot,
    next_targets,
    next_timestamp,
    parse,
    render,
    sign,
)
from edgeopt_fleet.tuf.rows import Standing, draft_of, message_of, newest, parse_role, put, row_of, standing_of
from edgeopt_fleet.tuf.telling import told
from edgeopt_fleet.tuf.views import Message, RoleView, Unsigned

__all__ = ["Repository"]

T = TypeVar("T", Root, Targets, Snapshot, Timestamp)

_RENEW_SHARE = 0.5  # of a root's, targets' or snapshot's validity that is left when it is signed again
_TIMESTAMP_AGE_SECONDS = 86400.0  # the timestamp tells devices the time, so it is never much older
_KEPT_TARGETS = 200
_LEAP = 1000  # more versions than a fleet makes between a back-up and its restoration


class Repository:
    """See the module; ``newest`` is the number of the last change that was made through this."""

    def __init__(self, database: Database, keys: Path, validity: Validity = DEFAULT_VALIDITY) -> None:
        self._database = database
        self._keys = keys
        self._validity = validity
        self.newest = 0

    # --- reading --------------------------------------------------------------------------------------------------

    def message(self) -> bytes:
        """Return the payload of the topic ``tuf``."""
        return self.numbered().payload

    def numbered(self) -> Message:
        """Return the payload of the topic ``tuf``, and the change that it is up to."""
        with self._database.reading() as session:
            return Message(newest_change(session, Counter.METADATA), message_of(session))

    def root(self) -> str:
        """Return the root metadata in force: what a device gets when it enrols."""
        with self._database.transaction() as session:
            return newest(session, Root.type).decode()

    def unsigned(self) -> Unsigned:
        """Return what people sign."""
        with self._database.transaction() as session:
            drafts = {row.role: row.data.decode() for row in session.exec(select(DraftRow))}
            return Unsigned(
                root=newest(session, Root.type).decode(),
                targets=newest(session, Targets.type).decode(),
                root_draft=drafts.get(Root.type),
                targets_draft=drafts.get(Targets.type),
            )

    def roles(self) -> list[RoleView]:
        """Return what there is to know about every role."""
        here = self._signers()
        with self._database.transaction() as session:
            root = parse(Root, newest(session, Root.type))
            rows = {role: parse_role(role, newest(session, role)).signed for role in ROLES}
        return [
            RoleView(
                role=role,
                keys={keyid: keyid in here for keyid in root.signed.roles[role].keyids},
                threshold=root.signed.roles[role].threshold,
                version=rows[role].version,
                expires=rows[role].expires.timestamp(),
            )
            for role in ROLES
        ]

    def standing(self) -> list[Standing]:
        """Return the drafts that wait for signatures."""
        with self._database.transaction() as session:
            return [
                standing_of(session, row.role, parse_role(row.role, row.data)) for row in session.exec(select(DraftRow))
            ]

    def check_keys(self) -> None:
        """Raise :class:`UsageError` unless timestamps can be signed here: else the keys are those of another fleet."""
        here = self._signers()
        with self._database.reading() as session:
            wanted = parse(Root, newest(session, Root.type)).signed.roles[Timestamp.type].keyids
        if not any(keyid in here for keyid in wanted):
            raise UsageError(
                f"{self._keys}: expected the timestamp key of the fleet in the database ({_short(wanted)}), got "
                f"{_short(here) or 'no key'}: this directory is another fleet's, or its keys were changed since it was "
                "copied; copy fleet.toml, ca and keys from a machine of this fleet"
            )

    # --- changing -------------------------------------------------------------------------------------------------

    def create(self, keys: Mapping[str, tuple[Key, ...]], now: float) -> None:
        """Make the first set of metadata; the private keys of all roles are here."""
        signers = self._signers()
        root = sign(first_root(keys, now, self._validity), signers.values())
        targets = next_targets(None, now, validity=self._validity)
        sign(targets, _of_role(root, Targets.type, signers))
        with self._database.transaction() as session, told(session, "tuf.create", now):
            put(session, root)
            put(session, targets)
            self._sign_online(session, root, targets, now)

    def accept(self, role: str, data: bytes, now: float) -> Standing:
        """Take signed metadata of ``root`` or ``targets`` in; they come into force with enough signatures.

        Raises :class:`InvalidError` for what is malformed, unsigned or too large, :class:`ConflictError` for a version
        that is not the next one.
        """
        try:
            offered = parse_role(role, data)
            if isinstance(offered.signed, Targets):
                bundles_of(offered)
        except MessageError as error:
            raise InvalidError(str(error)) from error
        with self._database.transaction() as session, told(session, "tuf.accept", now, {"role": role}):
            current = parse_role(role, newest(session, role))
            draft = draft_of(session, role)
            if draft is not None and draft.signed == offered.signed:
                offered.signatures = {**draft.signatures, **offered.signatures}
            elif offered.signed.version != current.signed.version + 1:
                raise ConflictError(
                    f"expected version {current.signed.version + 1} of {role}, got {offered.signed.version}: "
                    "someone else signed meanwhile; sign again"
                )
            if standing_of(session, role, offered).signatures == 0:
                raise InvalidError(f"expected a signature by one of the fleet's {role} keys, got none that verifies")
            session.merge(DraftRow(role=role, data=render(offered)))
            session.flush()
            self._settle(session, now)
            return standing_of(session, role, offered)

    def change_keys(self, changes: tuple[Change, ...], now: float) -> list[Standing]:
        """Draft a new root with other keys, and new targets where their keys change; sign what can be signed here."""
        roles = {"roles": sorted({change.role for change in changes})}
        with self._database.transaction() as session, told(session, "tuf.change_keys", now, roles):
            root = parse(Root, newest(session, Root.type))
            try:
                draft = next_root(draft_of(session, Root.type) or root, changes, now, self._validity)
            except MessageError as error:
                raise InvalidError(str(error)) from error
            draft.signed.version = root.signed.version + 1  # one root for all changes that wait
            session.merge(DraftRow(role=Root.type, data=render(draft)))
            if any(change.role == Targets.type for change in changes):
                targets = next_targets(parse(Targets, newest(session, Targets.type)), now, validity=self._validity)
                session.merge(DraftRow(role=Targets.type, data=render(targets)))
            session.flush()
            self._settle(session, now)
            return [
                standing_of(session, row.role, parse_role(row.role, row.data)) for row in session.exec(select(DraftRow))
            ]

    def remove_unused_keys(self) -> list[str]:
        """Remove private keys from this server that no role has any more; return their ids.

        Keys that a draft names stay: it may come into force. Raises :class:`StorageError`.
        """
        with self._database.transaction() as session:
            draft = draft_of(session, Root.type)
            roots = [parse(Root, newest(session, Root.type)), *([draft] if draft is not None else [])]
        used = {keyid for root in roots for role in root.signed.roles.values() for keyid in role.keyids}
        unused = [keyid for keyid in self._signers() if keyid not in used]
        for keyid in unused:
            path = self._keys / f"{keyid}.pem"
            with storage_errors(path):
                path.unlink()
                public_path(path).unlink(missing_ok=True)
        return unused

    def discard_drafts(self, now: float) -> None:
        """Forget what waits for signatures."""
        with self._database.transaction() as session, told(session, "tuf.discard_drafts", now):
            session.execute(delete(DraftRow))

    def add_bundle(self, session: Session, row: BundleRow, now: float) -> None:
        """Sign a bundle that is complete, within a transaction, if the targets keys are on this server.

        It may be rolled back to what devices run now, and to the bundles that were signed last before it. Elsewhere it
        waits for ``edgeopt sign``.
        """
        root = parse(Root, newest(session, Root.type))
        signers = _of_role(root, Targets.type, self._signers())
        if len(signers) < root.signed.roles[Targets.type].threshold or draft_of(session, Targets.type) is not None:
            return
        current = parse(Targets, newest(session, Targets.type))
        known = sorted(bundles_of(current).values(), key=lambda bundle: bundle.counter)
        if any(bundle.digest == row.digest for bundle in known):
            return
        target = BundleTarget(
            digest=row.digest,
            length=len(row.manifest),
            name=row.name,
            version=row.version,
            counter=max(known[-1].counter + 1 if known else 1, current.signed.version),  # beyond what a leap left out
            rollback=_ways_back(session, [bundle.digest for bundle in known]),
        )
        retired = [bundle.path for bundle in known[: max(0, len(known) + 1 - _KEPT_TARGETS)]]
        targets = next_targets(current, now, add=[target], retire=retired, validity=self._validity)
        session.merge(DraftRow(role=Targets.type, data=render(sign(targets, signers))))
        session.flush()
        self._settle(session, now)

    def renew(self, now: float) -> int:
        """Sign again what would expire soon, as far as the keys are here; return the timestamp's version."""
        with self._database.transaction() as session, told(session, "tuf.renew", now):
            root = parse(Root, newest(session, Root.type))
            targets = parse(Targets, newest(session, Targets.type))
            if self._is_due(root, self._validity.root, now) and draft_of(session, Root.type) is None:
                session.merge(DraftRow(role=Root.type, data=render(next_root(root, (), now, self._validity))))
            if self._is_due(targets, self._validity.targets, now) and draft_of(session, Targets.type) is None:
                draft = next_targets(targets, now, validity=self._validity)
                session.merge(DraftRow(role=Targets.type, data=render(draft)))
            session.flush()
            self._settle(session, now)
            return parse(Timestamp, newest(session, Timestamp.type)).signed.version

    def leap(self, now: float) -> tuple[str, ...]:
        """Give the metadata versions beyond those that this fleet had reached after it was backed up.

        Devices refuse versions below those they have seen (TUF specification, 5.4.3 and 5.5.5). Returns the roles
        whose keys are elsewhere: people have to sign those again.
        """
        with self._database.transaction() as session:
            root, targets = parse(Root, newest(session, Root.type)), parse(Targets, newest(session, Targets.type))
            signers = self._signers()
            here = _of_role(root, Targets.type, signers)
            can_sign = len(here) >= root.signed.roles[Targets.type].threshold
            if can_sign:
                targets = _leaped(next_targets(targets, now, validity=self._validity))
                put(session, sign(targets, here))
                session.execute(delete(DraftRow).where(col(DraftRow.role) == Targets.type))
            old = parse(Snapshot, newest(session, Snapshot.type))
            snapshot = sign(
                _leaped(next_snapshot(old, targets, now, self._validity)), _of_role(root, Snapshot.type, signers)
            )
            put(session, snapshot)
            before = parse(Timestamp, newest(session, Timestamp.type))
            timestamp = _leaped(next_timestamp(before, snapshot, now, self._validity))
            put(session, sign(timestamp, _of_role(root, Timestamp.type, signers)))
        return () if can_sign else (Targets.type,)

    # --- inside a transaction -------------------------------------------------------------------------------------

    def _is_due(self, metadata: Metadata[Any], validity: float, now: float) -> bool:
        return bool(metadata.signed.expires.timestamp() - now < _RENEW_SHARE * validity)

    def _settle(self, session: Session, now: float) -> None:
        """Bring into force what is complete, then sign snapshot and timestamp where they do not fit any more."""
        root, targets = self._sign_drafts(session)
        if put(session, root):
            session.execute(delete(DraftRow).where(col(DraftRow.role) == Root.type))
        if put(session, targets):
            session.execute(delete(DraftRow).where(col(DraftRow.role) == Targets.type))
            self._mark_signed(session, targets)
        self._sign_online(session, root, targets, now)
        message_of(session)  # raises when devices could not take it
        self.newest = newest_change(session, Counter.METADATA)

    def _sign_drafts(self, session: Session) -> tuple[Metadata[Root], Metadata[Targets]]:
        """Sign the drafts with what is here; return root and targets that shall be in force after this.

        A root that takes the targets' keys away waits for targets that the new keys have signed.
        """
        signers = self._signers()
        root = parse(Root, newest(session, Root.type))
        targets = parse(Targets, newest(session, Targets.type))
        new_root, new_targets = draft_of(session, Root.type), draft_of(session, Targets.type)
        if new_root is not None:
            for above in (root, new_root):
                sign(new_root, _of_role(above, Root.type, signers))
            session.merge(DraftRow(role=Root.type, data=render(new_root)))
        if new_targets is not None:
            sign(new_targets, _of_role(new_root or root, Targets.type, signers))
            session.merge(DraftRow(role=Targets.type, data=render(new_targets)))
        if new_root is not None and is_signed(root, Root.type, new_root) and is_signed(new_root, Root.type, new_root):
            for candidate in (new_targets, targets):
                if candidate is not None and is_signed(new_root, Targets.type, candidate):
                    return new_root, candidate
        rekeyed = new_root is not None and new_root.signed.roles[Targets.type] != root.signed.roles[Targets.type]
        if new_targets is not None and not rekeyed and is_signed(root, Targets.type, new_targets):
            return root, new_targets
        return root, targets

    def _sign_online(self, session: Session, root: Metadata[Root], targets: Metadata[Targets], now: float) -> None:
        signers = self._signers()
        row = row_of(session, Snapshot.type)
        old = None if row is None else parse(Snapshot, row.data)
        snapshot = old
        if old is None or not is_signed(root, Snapshot.type, old) or self._snapshot_is_due(old, targets, now):
            snapshot = next_snapshot(old, targets, now, self._validity)
            put(session, sign(snapshot, _of_role(root, Snapshot.type, signers)))
        assert snapshot is not None
        row = row_of(session, Timestamp.type)
        before = None if row is None else parse(Timestamp, row.data)
        if (
            before is None
            or not is_signed(root, Timestamp.type, before)
            or self._timestamp_is_due(before, snapshot, now)
        ):
            timestamp = next_timestamp(before, snapshot, now, self._validity)
            put(session, sign(timestamp, _of_role(root, Timestamp.type, signers)))

    def _snapshot_is_due(self, snapshot: Metadata[Snapshot], targets: Metadata[Targets], now: float) -> bool:
        left = snapshot.signed.expires.timestamp() - now
        return (
            snapshot.signed.meta["targets.json"].version != targets.signed.version
            or left < _RENEW_SHARE * self._validity.snapshot
        )

    def _timestamp_is_due(self, timestamp: Metadata[Timestamp], snapshot: Metadata[Snapshot], now: float) -> bool:
        validity = self._validity.timestamp
        left = timestamp.signed.expires.timestamp() - now
        return timestamp.signed.snapshot_meta.version != snapshot.signed.version or left < validity - min(
            _TIMESTAMP_AGE_SECONDS, _RENEW_SHARE * validity
        )

    def _mark_signed(self, session: Session, targets: Metadata[Targets]) -> None:
        """Write into the bundles' rows which of them devices will accept."""
        bundles = bundles_of(targets)
        for row in session.exec(select(BundleRow)):
            signed = bundles.get(row.digest)
            counter = None if signed is None else signed.counter
            if row.counter != counter:
                row.counter = counter
                session.add(row)

    def _signers(self) -> dict[str, CryptoSigner]:
        """Return the private keys on this server by key id; each file is named after its key."""
        return {path.stem: load_signer(path) for path in sorted(self._keys.glob("*.pem"))}


def _short(keyids: Iterable[str]) -> str:
    return ", ".join(keyid[:12] for keyid in keyids)


def _leaped(metadata: Metadata[T]) -> Metadata[T]:
    metadata.signed.version += _LEAP
    return metadata


def _of_role(root: Metadata[Root], role: str, signers: Mapping[str, CryptoSigner]) -> list[CryptoSigner]:
    return [signers[keyid] for keyid in root.signed.roles[role].keyids if keyid in signers]


def _ways_back(session: Session, known: list[str]) -> tuple[str, ...]:
    """Return of the signed bundles (oldest first) those that devices run now and the newest, as many as fit."""
    running = set(session.exec(select(DeviceRow.running).where(col(DeviceRow.running).is_not(None))))
    chosen = [digest for digest in known if digest in running][-ROLLBACK_LIMIT:]
    chosen += [digest for digest in reversed(known) if digest not in running][: ROLLBACK_LIMIT - len(chosen)]
    return tuple(chosen)
