"""The update's record on disk: saved before it is acted upon, in one transaction with the report about it.

So a state is saved exactly when its report has a number: a power cut can neither lose a report nor number it twice.
Example::

    journal = Journal(spool)
    update = journal.load()
    journal.save(update, running=digest)              # running given: also number a report
"""

from __future__ import annotations

from dataclasses import replace

import msgspec

from edgeopt_agent.reports.spool import Spool
from edgeopt_agent.update.lifecycle import Update
from edgeopt_contract.errors import StorageError
from edgeopt_contract.messages import Reported
from edgeopt_contract.topics import Channel

__all__ = ["Journal"]

_LONGEST_DETAIL = 2000
_UPDATE, _BOOT, _ORDER = "update", "boot", "order"
_BACK = 1


class Journal:
    """Keeps the one :class:`~edgeopt_agent.update.lifecycle.Update` of this device."""

    def __init__(self, spool: Spool) -> None:
        self._spool = spool

    def load(self) -> Update:
        """Return the saved record, or a fresh one. Raises :class:`StorageError` for one of another version."""
        saved = self._spool.meta(_UPDATE)
        if not isinstance(saved, bytes):
            return Update()
        try:
            return msgspec.json.decode(saved, type=Update)
        except msgspec.MsgspecError as error:
            raise StorageError(f"the saved update cannot be read: {error}; was it written by a newer agent?") from error

    def save(self, update: Update) -> None:
        """Save ``update`` without a report."""
        with self._spool.transaction():
            self._spool.set_meta(_UPDATE, _encode(update))

    def save_and_report(self, update: Update, running: str | None) -> None:
        """Save ``update`` and number a report of its state; ``running`` is the digest of what serves now."""
        with self._spool.transaction():
            self._spool.set_meta(_UPDATE, _encode(update))
            if update.desired is not None:
                self._number(update, running)

    def report(self, told: Update, running: str | None) -> None:
        """Number a report about ``told``, an offer that became no update of this device; the record stays."""
        with self._spool.transaction():
            self._number(told, running)

    def _number(self, update: Update, running: str | None) -> None:
        self._spool.append(Channel.REPORTED, lambda session, number: _report(update, running, session, number))

    def order_back(self) -> None:
        """Keep the order to go back to the bundle before; the agent may run, or be started later."""
        with self._spool.transaction():
            self._spool.set_meta(_ORDER, _BACK)

    def is_ordered_back(self) -> bool:
        """Say whether an order to go back waits."""
        return self._spool.meta(_ORDER) == _BACK

    def forget_order(self) -> None:
        """Forget the order: it was carried out, or cannot be."""
        with self._spool.transaction():
            self._spool.set_meta(_ORDER, 0)

    def count_boot(self) -> int:
        """Count one more start of the agent and return the count."""
        with self._spool.transaction():
            boot = int(self._spool.meta(_BOOT)) + 1
            self._spool.set_meta(_BOOT, boot)
        return boot


def _encode(update: Update) -> bytes:
    return msgspec.json.encode(replace(update, detail=_plain(update.detail)))


def _plain(detail: str) -> str:
    """Replace what JSON cannot carry: a path or a runtime's message may hold bytes that are no text."""
    return detail.encode("utf-8", "replace").decode("utf-8")


def _report(update: Update, running: str | None, session: int, number: int) -> Reported:
    assert update.desired is not None  # the callers have looked
    return Reported(
        session=session,
        number=number,
        at=int(update.at),
        job=update.desired.job,
        bundle=update.desired.bundle,
        state=update.state,
        running=running,
        result=update.result,
        detail=_plain(update.detail)[:_LONGEST_DETAIL],
    )
