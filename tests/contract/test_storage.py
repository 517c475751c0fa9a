"""Writing so that a power cut leaves the old or the new content: the order of calls, and what errors say."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from edgeopt_contract import storage
from edgeopt_contract.errors import StorageError
from edgeopt_contract.storage import (
    make_directory,
    new_directory,
    point_to,
    storage_errors,
    write_atomically,
    write_durably,
)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of what was synced and renamed, in order."""
    seen: list[str] = []
    real_fsync, real_replace = os.fsync, Path.replace

    def fsync(descriptor: int) -> None:
        seen.append(f"fsync {Path(f'/proc/self/fd/{descriptor}').readlink().name}")
        real_fsync(descriptor)

    def replace(self: Path, target: Path) -> Path:
        seen.append(f"rename {self.name} {Path(target).name}")
        return real_replace(self, target)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(Path, "replace", replace)
    return seen


@pytest.fixture
def full_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 64 KiB."""
    place = tmp_path / "small"
    place.mkdir()
    if os.geteuid() != 0:
        pytest.skip("mounting a small file system needs root")
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(place)], capture_output=True, text=True, check=False
    )
    if mounted.returncode != 0:
        pytest.skip(f"this machine does not let us mount a small file system: {mounted.stderr.strip()}")
    yield place
    subprocess.run(["umount", str(place)], check=True)


def test_file_is_synced_before_and_directory_after_the_rename(tmp_path: Path, calls: list[str]) -> None:
    """Temp, fsync, rename, fsync of the directory: any other order can lose both contents in a power cut."""
    write_atomically(tmp_path / "state.json", b"{}")
    assert ["fsync .state.json.tmp", "rename .state.json.tmp state.json", f"fsync {tmp_path.name}"] == calls
    assert ["state.json"] == [path.name for path in tmp_path.iterdir()]


def test_the_kernel_sees_the_same_order(tmp_path: Path) -> None:
    """What strace sees of a real process: write, fsync of the file, rename, fsync of the directory."""
    strace = shutil.which("strace")
    if strace is None:
        pytest.skip("strace is not installed")
    script = (
        "import sys, pathlib; from edgeopt_contract.storage import write_atomically; "
        "write_atomically(pathlib.Path(sys.argv[1]), b'{}')"
    )
    trace = tmp_path / "trace"
    command = [strace, "-y", "-o", trace, "-e", "trace=write,fsync,rename,renameat,renameat2"]
    done = subprocess.run(
        [*command, sys.executable, "-c", script, tmp_path / "state.json"], capture_output=True, text=True, check=False
    )
    if "ptrace" in done.stderr and done.returncode != 0:
        pytest.skip(f"this machine does not let us trace: {done.stderr.strip()[:100]}")
    assert 0 == done.returncode, done.stderr
    lines = [line for line in trace.read_text().splitlines() if str(tmp_path) in line]
    calls = [line.partition("(")[0].removesuffix("2").removesuffix("at") for line in lines]
    assert ["write", "fsync", "rename", "fsync"] == calls
    assert ".state.json.tmp" in lines[1]
    assert f"<{tmp_path}>" in lines[3]


def test_directory_appears_after_its_content_is_safe(tmp_path: Path, calls: list[str]) -> None:
    """The new directory and then its parent are synced around the rename."""
    with new_directory(tmp_path / "slot") as temporary:
        write_durably(temporary / "a", b"1")
        inside = temporary.name
        assert not (tmp_path / "slot").exists()
    assert ["fsync a", f"fsync {inside}", f"rename {inside} slot", f"fsync {tmp_path.name}"] == calls


def test_every_new_directory_is_synced_into_the_one_above(tmp_path: Path, calls: list[str]) -> None:
    """A power cut takes none of them, and the second call has nothing to do."""
    make_directory(tmp_path / "a" / "b")
    assert (tmp_path / "a" / "b").is_dir()
    expected = [f"fsync {tmp_path.name}", "fsync a"]
    assert expected == calls
    make_directory(tmp_path / "a" / "b")
    assert expected == calls


def test_link_moves_in_one_step(tmp_path: Path, calls: list[str]) -> None:
    """The link is always there and always names something whole, also after a cut between its steps."""
    link = tmp_path / "current"
    point_to(link, "a")
    (tmp_path / ".current.tmp").symlink_to("left over")
    point_to(link, "b")
    assert "b" == str(link.readlink())
    assert ["rename .current.tmp current", f"fsync {tmp_path.name}"] * 2 == calls
    point_to(link, None)
    point_to(link, None)
    assert [] == list(tmp_path.iterdir())


def test_link_that_cannot_move_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After an error of the disk the old name stands, and the message says what to do."""
    link = tmp_path / "current"
    point_to(link, "a")

    def fail(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "symlink_to", fail)
    with pytest.raises(StorageError, match="current: the disk is full"):
        point_to(link, "b")
    assert "a" == str(link.readlink())


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_old_content_stands_when_a_step_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    """After an error the file is as it was, and no temporary file lies beside it."""
    path = tmp_path / "state.json"
    write_atomically(path, b"old")

    def fail(*_: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os if step == "fsync" else Path, step, fail)
    with pytest.raises(StorageError, match=r"cannot write .*state\.json: the disk reports an error"):
        write_atomically(path, b"new")
    assert {"state.json": b"old"} == {entry.name: entry.read_bytes() for entry in tmp_path.iterdir()}


def test_a_left_over_temporary_file_does_no_harm(tmp_path: Path) -> None:
    """What a power cut left half-written is overwritten by the next attempt."""
    (tmp_path / ".state.json.tmp").write_bytes(b"half-written and longer")
    write_atomically(tmp_path / "state.json", b"new")
    assert {"state.json": b"new"} == {entry.name: entry.read_bytes() for entry in tmp_path.iterdir()}


def test_a_secret_is_never_readable_by_others(tmp_path: Path) -> None:
    """The mode holds from the first byte on, also when a temporary file with other rights lay there."""
    (tmp_path / ".key.tmp").write_bytes(b"")
    (tmp_path / ".key.tmp").chmod(0o666)
    write_atomically(tmp_path / "key", b"secret", mode=0o600)
    assert 0o600 == stat.S_IMODE((tmp_path / "key").stat().st_mode)


def test_a_failed_directory_vanishes_and_the_old_one_stays(tmp_path: Path) -> None:
    """Any exception, not only a disk's, takes back what was begun."""
    target = tmp_path / "slot"
    with new_directory(target) as temporary:
        write_durably(temporary / "a", b"old")
    with pytest.raises(KeyboardInterrupt), new_directory(target) as temporary:  # noqa: PT012  # raised where the caller works
        write_durably(temporary / "a", b"new")
        raise KeyboardInterrupt
    assert ["slot"] == [path.name for path in tmp_path.iterdir()]
    assert b"old" == (target / "a").read_bytes()


@pytest.mark.parametrize("fails_at", range(1, 7))
def test_a_directory_is_never_a_mixture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails_at: int) -> None:
    """Whichever rename, sync or removal fails, the old content or the new one stands, whole."""
    target = tmp_path / "slot"
    with new_directory(target) as temporary:
        write_durably(temporary / "a", b"old")
        write_durably(temporary / "b", b"old")
    steps = 0

    def failing(real: Callable[..., object]) -> Callable[..., object]:
        def step(*arguments: object, **options: object) -> object:
            nonlocal steps
            steps += 1
            if steps == fails_at:
                raise OSError(errno.EIO, "Input/output error")
            return real(*arguments, **options)

        return step

    def replace_both() -> None:
        with new_directory(target) as temporary:
            (temporary / "a").write_bytes(b"new")
            (temporary / "b").write_bytes(b"new")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", failing(Path.replace))
        patch.setattr(os, "fsync", failing(os.fsync))
        patch.setattr(os, "unlink", failing(os.unlink))
        with contextlib.suppress(StorageError):
            replace_both()
    content = {path.name: path.read_bytes() for path in target.iterdir()}
    assert content in ({"a": b"old", "b": b"old"}, {"a": b"new", "b": b"new"})
    replace_both()
    assert {"a": b"new", "b": b"new"} == {path.name: path.read_bytes() for path in target.iterdir()}


def test_a_file_is_not_replaced_by_a_directory(tmp_path: Path) -> None:
    """Whoever names a file by mistake keeps it."""
    (tmp_path / "slot").write_bytes(b"mine")
    with pytest.raises(StorageError, match="Not a directory"), new_directory(tmp_path / "slot"):
        pass
    assert {"slot": b"mine"} == {path.name: path.read_bytes() for path in tmp_path.iterdir()}


def test_a_link_is_replaced_and_what_it_names_is_left_alone(tmp_path: Path) -> None:
    """Only the name changes hands."""
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "a").write_bytes(b"theirs")
    (tmp_path / "slot").symlink_to("elsewhere")
    with new_directory(tmp_path / "slot") as temporary:
        write_durably(temporary / "a", b"new")
    assert {"slot", "elsewhere"} == {path.name for path in tmp_path.iterdir()}
    assert (b"theirs", b"new") == ((tmp_path / "elsewhere" / "a").read_bytes(), (tmp_path / "slot" / "a").read_bytes())


@pytest.mark.parametrize(
    ("number", "advice"),
    [
        (errno.ENOSPC, "the disk is full: free some space"),
        (errno.EDQUOT, "quota is used up"),
        (errno.EROFS, "read-only"),
        (errno.EACCES, "permission denied"),
        (errno.EIO, "the disk reports an error: .*dmesg"),
        (errno.ENOTDIR, "Not a directory"),
    ],
)
def test_errors_of_the_disk_say_what_to_do(number: int, advice: str) -> None:
    """The path and the advice stand in the message."""
    with pytest.raises(StorageError, match=f"cannot write out: .*{advice}"), storage_errors(Path("out")):
        raise OSError(number, os.strerror(number))


def test_errors_that_are_not_the_disks_pass() -> None:
    """A wrong bundle is not called a full disk."""
    with pytest.raises(ValueError, match="mine"), storage_errors(Path("out")):
        raise ValueError("mine")


def write_a_file(place: Path) -> None:
    """Too much for the small file system, in one file."""
    write_atomically(place / "state.json", bytes(200_000))


def write_a_directory(place: Path) -> None:
    """Too much for the small file system, in a directory."""
    with new_directory(place / "slot") as temporary, storage_errors(place / "slot"):
        write_durably(temporary / "a", bytes(200_000))


@pytest.mark.parametrize("write", [write_a_file, write_a_directory])
def test_a_really_full_disk_leaves_the_old_content(full_disk: Path, write: Callable[[Path], None]) -> None:
    """On a file system of 64 KiB a large write fails cleanly, and the space is free again."""
    write_atomically(full_disk / "state.json", b"old")
    with pytest.raises(StorageError, match="the disk is full"):
        write(full_disk)
    assert {"state.json": b"old"} == {entry.name: entry.read_bytes() for entry in full_disk.iterdir()}
    write_atomically(full_disk / "other.json", bytes(30_000))


def test_only_names_of_this_module_are_promised() -> None:
    """What __all__ promises is there."""
    assert all(hasattr(storage, name) for name in storage.__all__)
