"""A disk that loses what was not synced: ext4 in a file, mounted by loop, shut down without writing its journal.

Needs root. Example::

    disk = Disk(Path("bench"))
    disk.make()
    (disk.mounted / "a").write_text("lost")
    disk.cut()                                    # as if the power had gone; every access fails
    disk.mount_again()                            # the journal is replayed
"""

from __future__ import annotations

import fcntl
import os
import shutil
import struct
import subprocess
import time
from pathlib import Path

__all__ = ["Disk", "why_no_disk"]

_SHUTDOWN = 0x8004587D  # EXT4_IOC_SHUTDOWN of <linux/ext4.h>
_WITHOUT_THE_LOG = 2  # EXT4_GOING_FLAGS_NOLOGFLUSH
_BYTES = 64 << 20  # the agent keeps 16 MiB free
_PATIENCE_SECONDS = 10.0
_COMMIT_SECONDS = 300  # ext4 syncs nothing by itself meanwhile


class Disk:
    """See the module."""

    def __init__(self, root: Path) -> None:
        self.mounted = root / "disk"
        self._image = root / "disk.img"

    def make(self) -> None:
        """Make it anew, empty, and mount it."""
        self.remove()
        self.mounted.mkdir(parents=True, exist_ok=True)
        with self._image.open("wb") as image:
            image.truncate(_BYTES)
        _run("mkfs.ext4", "-q", "-F", str(self._image))
        self._mount()

    def cut(self) -> None:
        """Take the power away: what was not synced is lost, and every access fails until it is mounted again."""
        descriptor = os.open(self.mounted, os.O_RDONLY)
        try:
            fcntl.ioctl(descriptor, _SHUTDOWN, struct.pack("I", _WITHOUT_THE_LOG))
        finally:
            os.close(descriptor)

    def mount_again(self) -> None:
        """Mount it as the next start of the machine does."""
        self._unmount()
        self._mount()

    def remove(self) -> None:
        """Unmount it, if it is mounted, and remove the image."""
        if self.mounted.is_mount():
            self._unmount()
        self._image.unlink(missing_ok=True)

    def _unmount(self) -> None:
        """Unmount it as soon as the last process that was killed has let go of it."""
        until = time.monotonic() + _PATIENCE_SECONDS
        while True:
            try:
                _run("umount", str(self.mounted))
            except subprocess.CalledProcessError:
                if time.monotonic() > until:
                    raise
                time.sleep(0.01)
            else:
                return

    def _mount(self) -> None:
        _run("mount", "-o", f"loop,commit={_COMMIT_SECONDS}", str(self._image), str(self.mounted))


def why_no_disk(root: Path) -> str | None:
    """Say why no such disk can be had here, or None."""
    if os.geteuid() != 0:
        return "mounting a disk that loses un-synced data needs root"
    if shutil.which("mkfs.ext4") is None:
        return "mkfs.ext4 is not installed (apt-get install e2fsprogs)"
    disk = Disk(root)
    try:
        disk.make()
        disk.cut()
    except (OSError, subprocess.CalledProcessError) as error:
        return f"this machine does not let us unplug a disk: {getattr(error, 'stderr', None) or error}"
    finally:
        disk.remove()
    return None


def _run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True, text=True)
