from __future__ import annotations

import io
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from edgeopt_contract.errors import UsageError
from edgeopt_fleet.archive import new_archive, open_archive


def make(path: Path) -> None:
    """Write an archive of two members."""
    with new_archive(path) as archive:
        for name, data in (("tables/a", b"first" * 1000), ("files/keys/b", b"second")):
            archive.add(name, io.BytesIO(data), len(data))
        archive.finish({"format": 1})


def test_what_was_added_is_read(tmp_path: Path) -> None:
    """Names, bytes and facts come back; only the owner may read the file."""
    make(tmp_path / "a")
    with open_archive(tmp_path / "a") as archive, archive.open("files/keys/b") as member:
        assert (["files/keys/b", "tables/a"], {"format": 1}) == (archive.names(), archive.facts)
        assert b"second" == member.read()
    assert 0o600 == (tmp_path / "a").stat().st_mode & 0o777


def test_an_archive_that_was_not_finished_is_not_there(tmp_path: Path) -> None:
    """An error while it is written leaves an older one as it was, and nothing else."""
    make(tmp_path / "a")
    before = (tmp_path / "a").read_bytes()

    def fail() -> None:
        with new_archive(tmp_path / "a") as archive:
            archive.add("x", io.BytesIO(b"x"), 1)
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert (before, ["a"]) == ((tmp_path / "a").read_bytes(), [path.name for path in tmp_path.iterdir()])


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.9, 0.999])
def test_an_archive_that_was_cut_off_is_refused(tmp_path: Path, share: float) -> None:
    """Wherever it ends, something is missing, and that is seen before anything is used."""
    make(tmp_path / "a")
    data = (tmp_path / "a").read_bytes().rstrip(b"\0")  # what follows is padding
    (tmp_path / "a").write_bytes(data[: int(len(data) * share)])
    with pytest.raises(UsageError, match="no back-up"), open_archive(tmp_path / "a"):
        pass


def test_every_changed_byte_of_a_member_is_seen(tmp_path: Path) -> None:
    """One flipped bit in a member, and the message names the member."""
    make(tmp_path / "a")
    data = bytearray((tmp_path / "a").read_bytes())
    data[data.index(b"second")] ^= 1
    (tmp_path / "a").write_bytes(data)
    with pytest.raises(UsageError, match="files/keys/b is not what was backed up"), open_archive(tmp_path / "a"):
        pass


def _outside(tar: tarfile.TarFile) -> None:
    info = tarfile.TarInfo("../outside")
    info.size = 1
    tar.addfile(info, io.BytesIO(b"x"))


def _unlisted(tar: tarfile.TarFile) -> None:
    info = tarfile.TarInfo("files/more")
    info.size = 1
    tar.addfile(info, io.BytesIO(b"x"))


@pytest.mark.parametrize(("add", "words"), [(_outside, None), (_unlisted, "not listed")])
def test_members_that_nobody_listed_are_not_used(
    tmp_path: Path, add: Callable[[tarfile.TarFile], None], words: str | None
) -> None:
    """A name that leads outside is not a member at all; one that is not listed spoils the archive."""
    make(tmp_path / "a")
    with tarfile.open(tmp_path / "a", "a") as tar:
        add(tar)
    if words is None:
        with open_archive(tmp_path / "a") as archive:
            assert ["files/keys/b", "tables/a"] == archive.names()
        return
    with pytest.raises(UsageError, match=words), open_archive(tmp_path / "a"):
        pass


def test_other_files_are_no_archives(tmp_path: Path) -> None:
    """Nothing, and something else."""
    (tmp_path / "a").write_bytes(b"SQLite format 3\0" * 1000)
    with pytest.raises(UsageError, match="no back-up"), open_archive(tmp_path / "a"):
        pass
    with pytest.raises(UsageError, match="does not exist"), open_archive(tmp_path / "b"):
        pass
