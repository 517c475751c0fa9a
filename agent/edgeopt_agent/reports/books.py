"""What every bundle on this device counted, and how much of it the spool has: windows, told exactly once.

Counts lie in ``DATA/counts/``, one file for each bundle that answered; the marks up to which they were told are kept in
the same transaction as the window that tells them. So an agent that is killed tells the rest when it starts again.
Counting never keeps a bundle from answering: where the disk refuses a file, the counts lie in memory until the bundle
is loaded again, and a file that cannot be read now is looked at again with every window. Example::

    books = Books(spool, data, now=time.time)
    counts = books.open(installed)
    books.tell(counts)                       # a window from the last mark to now
    books.retire(counts)                     # told to the end, then removed
"""

from __future__ import annotations

import logging
from array import array
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

from edgeopt_agent.device.gauges import read_gauges
from edgeopt_agent.log import log_event
from edgeopt_agent.reports.counts import Counts, DamagedCountsError, Layout, boot_id
from edgeopt_agent.reports.monitor import Mark, Window, read_marks, write_marks
from edgeopt_agent.reports.spool import Spool
from edgeopt_agent.update.slots import Installed
from edgeopt_contract.agreement import class_feature, shadow_features
from edgeopt_contract.codec import decode
from edgeopt_contract.errors import BundleError, MessageError, StorageError
from edgeopt_contract.features import ReferenceProfile
from edgeopt_contract.manifest import Role
from edgeopt_contract.topics import Channel
from edgeopt_contract.values import digest_of

__all__ = ["Books", "layout_of", "shadow_counts"]

_MARKS = "marks"  # the name of the marks among the spool's small values


class Books:
    """See the module."""

    def __init__(self, spool: Spool, data: Path, now: Callable[[], float]) -> None:
        self._spool = spool
        self._data = data
        self._directory = data / "counts"
        self._now = now
        self._boot = boot_id()
        self._keeps = True
        self._in_use: dict[str, Counts] = {}
        self._retired: dict[str, Counts] = {}
        self._unread: set[str] = set()  # files that the disk does not give out now; their marks are kept
        self._marks = _read_marks(spool)
        self._take_up(sorted(path.name for path in self._directory.glob("*")))

    def open(self, installed: Installed, shadow: str = "") -> Counts:
        """Return the counts of the bundle in a slot, as they were left, or new ones in memory.

        ``shadow`` is the job of a shadow: each has counts of its own. Raises :class:`BundleError` when its profile
        cannot be read, :class:`StorageError` when there is no memory.
        """
        layout = layout_of(installed, shadow)
        path = self._directory / f"{installed.digest[:16]}.{installed.directory.name}"
        path = shadow_counts(self._data, installed.digest, shadow) if shadow else path
        if retired := self._retired.pop(path.name, None):
            retired.close()
        try:
            counts = Counts.open(path, layout, self._boot)
            self._unread.discard(path.name)
        except StorageError as error:
            log_event("counts_in_memory", level=logging.ERROR, reason=error)
            self._unread.add(path.name)
            counts = Counts.in_memory(path, layout, self._boot)
        self._in_use[counts.path.name] = counts
        return counts

    def begin(self, counts: Counts) -> Mark:
        """Let the next window of ``counts`` begin now, unless something is untold; return what is counted so far."""
        cells, now = counts.snapshot(), int(self._now())
        mark = self._mark(counts, cells)
        window = Window.since(mark, counts.layout, cells, end=now)
        if window.is_empty:
            self._marks[counts.path.name] = replace(mark, at=now)
        return window.mark

    def tell(self, counts: Counts, *, if_empty: bool = True) -> bool:
        """Put the window since the last mark into the spool; say whether that worked."""
        try:
            cells = counts.snapshot()
            window = Window.since(self._mark(counts, cells), counts.layout, cells, end=int(self._now()))
            if not if_empty and window.is_empty:
                return True
            try:
                self._append(counts, window, with_cells=True)
            except MessageError as error:  # a profile of very many cells: its rows and latencies still count
                log_event("cells_dropped", level=logging.ERROR, reason=error)
                self._append(counts, window, with_cells=False)
        except StorageError as error:
            if self._keeps:  # said once: a disk may be full for weeks
                log_event("window_not_kept", level=logging.ERROR, reason=error)
            self._keeps = False
            return False
        if not self._keeps:
            log_event("windows_kept_again")
        self._keeps = True
        return True

    def tell_all(self, current: Counts | None, beside: Counts | None = None) -> None:
        """Tell what ``current`` and the bundles that answer no more have counted, while the spool has room.

        What was told of the latter is removed. ``beside`` is a challenger, of which an empty window is not told.
        """
        self._take_up(sorted(self._unread))
        if current and not self._spool.is_full:
            self.tell(current)
        if beside and not self._spool.is_full:
            self.tell(beside, if_empty=False)
        for name, counts in list(self._retired.items()):
            if self._spool.is_full or not self.tell(counts, if_empty=False):
                return
            del self._retired[name]
            counts.close()
            self._remove(counts.path)

    def retire(self, counts: Counts) -> None:
        """Say that nobody counts there any more."""
        name = counts.path.name
        if self._in_use.get(name) is counts:
            del self._in_use[name]
            self._retired[name] = counts

    def close(self) -> None:
        """Close all files; what was not told stays for the next start, so what is in memory is told."""
        for counts in (*self._in_use.values(), *self._retired.values()):
            if counts.is_in_memory:
                self.tell(counts, if_empty=False)
            counts.close()
        self._in_use.clear()
        self._retired.clear()

    def _take_up(self, names: Iterable[str]) -> None:
        """Find what an earlier run left untold in these files, and remove what is of an earlier boot."""
        for name in names:
            path, is_known = self._directory / name, name in self._unread
            self._unread.discard(name)
            try:
                counts = Counts.look_into(path) if path.exists() else None
            except DamagedCountsError as error:
                log_event("counts_dropped", level=logging.ERROR, reason=error)
                self._remove(path)
                continue
            except StorageError as error:
                if not is_known:
                    log_event("counts_not_read", level=logging.ERROR, reason=error)
                self._unread.add(name)
                continue
            if counts and counts.boot == self._boot:
                self._retired[name] = counts
            elif counts:
                counts.close()
                self._remove(path)

    def _remove(self, path: Path) -> None:
        """Remove a file; one that the disk keeps is known until it is gone, or it would be told again."""
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            log_event("counts_not_removed", level=logging.ERROR, path=path, reason=error)
            self._unread.add(path.name)

    def _mark(self, counts: Counts, cells: array[int]) -> Mark:
        """Return up to where ``counts``, which are at ``cells``, were told.

        Marks are synced and counts are not: a disk that was taken away under the running machine has older counts. What
        was counted since cannot be known, and what lies there was told.
        """
        mark = self._marks.get(counts.path.name)
        if mark is None or mark.epoch != counts.epoch:
            return Mark(epoch=counts.epoch, at=counts.made)
        if any(now < before for now, before in zip(cells, mark.counts(len(cells)), strict=True)):
            log_event("counts_went_back", level=logging.ERROR, path=counts.path)
            return replace(mark, cells=cells.tobytes())
        return mark

    def _append(self, counts: Counts, window: Window, *, with_cells: bool) -> None:
        gauges = read_gauges(self._data) | counts.gauges
        names = {counts.path.name, *self._in_use, *self._retired, *self._unread}
        marks = {name: mark for name, mark in self._marks.items() if name in names} | {counts.path.name: window.mark}
        with self._spool.transaction():
            self._spool.append(
                Channel.TELEMETRY,
                lambda s, n: window.telemetry(s, n, gauges=gauges, notes=counts.notes, with_cells=with_cells),
            )
            self._spool.set_meta(_MARKS, write_marks(marks))
        self._marks = marks


def shadow_counts(data: Path, bundle: str, job: str) -> Path:
    """Return where the challenger ``bundle`` is counted for ``job``: each job has counts of its own."""
    return data / "counts" / f"{bundle[:16]}.shadow-{digest_of(job.encode())[:8]}"


def layout_of(installed: Installed, shadow: str = "") -> Layout:
    """Return what there is to count of a bundle, or of the challenger of the job ``shadow``.

    Raises :class:`BundleError` when its profile cannot be read, or counts something under a name of ours.
    """
    try:
        profile = decode(ReferenceProfile, installed.path_with(Role.PROFILE).read_bytes())
    except (OSError, MessageError) as error:
        raise BundleError(f"the profile of {installed.manifest.name} cannot be read: {error}") from error
    features = tuple((feature.spec.name, feature.spec.cells) for feature in profile.features)
    if shadow:
        classes = class_feature(feature.spec for feature in profile.features)
        features += shadow_features(classes.categories if classes else 0)
        if len(dict(features)) < len(features):
            raise BundleError(f"the profile of {installed.manifest.name} has a feature with a name that a shadow uses")
    return Layout(bundle=installed.digest, variant=installed.variant.name, features=features, shadow=shadow)


def _read_marks(spool: Spool) -> dict[str, Mark]:
    data = spool.meta(_MARKS)
    try:
        return read_marks(data) if isinstance(data, bytes) else {}
    except MessageError as error:
        log_event("marks_dropped", level=logging.ERROR, reason=error)
        return {}
