"""The shadow's record on disk: saved before it is acted upon, in one transaction with the report about it.

It lies beside the update's in the spool, under its own name. Example::

    records = Records(spool)
    trial = records.load()
    records.save(trial, running=digest, report=True)
"""

from __future__ import annotations

from dataclasses import replace

import msgspec

from edgeopt_agent.reports.spool import Spool
from edgeopt_agent.shadow.late import META
from edgeopt_agent.shadow.lifecycle import Trial
from edgeopt_agent.shadow.transitions import FINAL
from edgeopt_contract.errors import StorageError
from edgeopt_contract.messages import Reported, Result
from edgeopt_contract.topics import Channel

__all__ = ["Records"]

_LONGEST_DETAIL = 2000


class Records:
    """Keeps the one :class:`~edgeopt_agent.shadow.lifecycle.Trial` of this device."""

    def __init__(self, spool: Spool) -> None:
        self._spool = spool

    def load(self) -> Trial:
        """Return the saved record, or a fresh one. Raises :class:`StorageError` for one of another version."""
        saved = self._spool.meta(META)
        if not isinstance(saved, bytes):
            return Trial()
        try:
            return msgspec.json.decode(saved, type=Trial)
        except msgspec.MsgspecError as error:
            raise StorageError(f"the saved shadow cannot be read: {error}; was it written by a newer agent?") from error

    def save(self, trial: Trial, running: str | None, *, report: bool) -> None:
        """Save ``trial``, and number a report of its state if asked; ``running`` is the digest of what serves now."""
        plain = replace(trial, detail=trial.detail.encode("utf-8", "replace").decode("utf-8"))
        with self._spool.transaction():
            self._spool.set_meta(META, msgspec.json.encode(plain))
            if report and plain.order is not None:
                self._spool.append(Channel.REPORTED, lambda session, number: _report(plain, running, session, number))


def _report(trial: Trial, running: str | None, session: int, number: int) -> Reported:
    assert trial.order is not None  # the caller has looked
    serves = Result.RUNS_NOTHING if running is None else Result.RUNS_OLD_UNTOUCHED
    return Reported(
        session=session,
        number=number,
        at=int(trial.at),
        job=trial.order.job,
        bundle=trial.order.bundle,
        state=trial.state,
        running=running,
        result=serves if trial.state in FINAL else None,
        detail=trial.detail[:_LONGEST_DETAIL],
        extra={"shadow": True},
    )
