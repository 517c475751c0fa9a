"""A bundle on disk: all of it or nothing, the same bytes every time, and every byte checked."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from edgeopt_contract import bundle as bundle_module
from edgeopt_contract.bundle import (
    CHECKSUM_NAME,
    MANIFEST_NAME,
    BundleContents,
    check_file,
    open_bundle,
    read_manifest,
    write_bundle,
)
from edgeopt_contract.codec import encode
from edgeopt_contract.cutting import cut
from edgeopt_contract.errors import BundleError, MessageError, StorageError
from edgeopt_contract.manifest import Role
from edgeopt_contract.values import digest_of


def files_in(directory: Path) -> dict[str, bytes]:
    """Every file below ``directory`` by name, hidden ones too."""
    return {
        path.relative_to(directory).as_posix(): path.read_bytes() for path in directory.rglob("*") if path.is_file()
    }


def test_what_is_written_opens_again(tmp_path: Path, contents: BundleContents) -> None:
    """Opening verifies and gives the same manifest and digest."""
    written = write_bundle(tmp_path / "out", contents)
    opened = open_bundle(tmp_path / "out")
    assert written == opened
    assert digest_of((tmp_path / "out" / MANIFEST_NAME).read_bytes()) == opened.digest
    entry = opened.manifest.file_with(Role.GOLDEN)
    assert b"golden" == check_file(opened.path_of(entry), entry)


def test_manifest_lists_every_file_with_its_blocks(tmp_path: Path, contents: BundleContents) -> None:
    """Sizes, digests and blocks are those of the bytes on disk."""
    manifest = write_bundle(tmp_path / "out", contents).manifest
    for entry in manifest.files:
        data = (tmp_path / "out" / entry.path).read_bytes()
        assert (len(data), digest_of(data), cut(data)) == (entry.size, entry.sha256, entry.blocks)
    assert {*contents.files, MANIFEST_NAME, CHECKSUM_NAME} == set(files_in(tmp_path / "out"))


def test_equal_contents_give_equal_bytes(tmp_path: Path, contents: BundleContents) -> None:
    """The order in which files and lineage were given does not matter."""
    backwards = dataclasses.replace(
        contents,
        files=dict(reversed(contents.files.items())),
        lineage={"a": 1, "seed": 0},
    )
    forwards = dataclasses.replace(contents, lineage={"seed": 0, "a": 1})
    write_bundle(tmp_path / "one", forwards)
    write_bundle(tmp_path / "two", backwards)
    assert files_in(tmp_path / "one") == files_in(tmp_path / "two")


def test_every_changed_file_is_found(tmp_path: Path, contents: BundleContents) -> None:
    """One flipped bit anywhere is an error that names the file."""
    write_bundle(tmp_path, contents)
    for name in ("int8.onnx", "golden.npz", "profile.json"):
        path = tmp_path / name
        good = path.read_bytes()
        path.write_bytes(bytes([good[0] ^ 1]) + good[1:])
        with pytest.raises(BundleError, match=f"{name}: expected SHA-256 .* the file was changed or damaged"):
            open_bundle(tmp_path)
        path.write_bytes(good)
    assert open_bundle(tmp_path).manifest.name == "digits"


def test_a_missing_file_is_found(tmp_path: Path, contents: BundleContents) -> None:
    """Also when it held nothing."""
    write_bundle(tmp_path, contents)
    (tmp_path / "report.json").unlink()
    with pytest.raises(BundleError, match=r"report\.json: the manifest lists it, but it cannot be read"):
        open_bundle(tmp_path)


def test_a_device_opens_what_it_holds(tmp_path: Path, contents: BundleContents) -> None:
    """Only the files asked for must be there, but those must be right."""
    write_bundle(tmp_path, contents)
    (tmp_path / "int8.onnx").unlink()
    assert "digits" == open_bundle(tmp_path, only=["fp32.onnx", "golden.npz", "profile.json"]).manifest.name
    (tmp_path / "golden.npz").write_bytes(b"other")
    with pytest.raises(BundleError, match="golden"):
        open_bundle(tmp_path, only=["golden.npz"])


@pytest.mark.parametrize("name", ["nothing", "a-file"])
def test_what_is_not_a_bundle_is_told_apart(tmp_path: Path, name: str) -> None:
    """The advice says which directory is meant."""
    (tmp_path / "a-file").write_text("x")
    with pytest.raises(BundleError, match=r"is not a bundle.*give the directory that 'edgeopt quantize -o' wrote"):
        open_bundle(tmp_path / name)


def test_a_broken_manifest_is_named_with_its_path(tmp_path: Path) -> None:
    """The message says which file is wrong, and why."""
    (tmp_path / MANIFEST_NAME).write_text('{"schema": 9}')
    with pytest.raises(BundleError, match=r"manifest\.json: Manifest: expected schema 1, got 9"):
        read_manifest(tmp_path)


def test_manifest_bytes_are_kept_exactly(tmp_path: Path, contents: BundleContents) -> None:
    """The digest is of the bytes that lie there, also when another program spaced them differently."""
    write_bundle(tmp_path, contents)
    spaced = (tmp_path / MANIFEST_NAME).read_bytes().replace(b",", b", ")
    (tmp_path / MANIFEST_NAME).write_bytes(spaced)
    manifest, data = read_manifest(tmp_path)
    assert (spaced, digest_of(spaced)) == (data, open_bundle(tmp_path).digest)
    assert encode(manifest) != data


@pytest.mark.parametrize("existing", [False, True])
def test_failing_half_way_leaves_what_was_there(
    tmp_path: Path, contents: BundleContents, monkeypatch: pytest.MonkeyPatch, *, existing: bool
) -> None:
    """A full disk while writing leaves the old bundle, or nothing, and no temporary files."""
    target = tmp_path / "out"
    if existing:
        write_bundle(target, dataclasses.replace(contents, version="old"))
    before = files_in(tmp_path)
    written = 0

    def fails_on_the_third(path: Path, data: bytes) -> None:
        nonlocal written
        written += 1
        if written == 3:
            raise OSError(28, "No space left on device")
        path.write_bytes(data)

    monkeypatch.setattr(bundle_module, "write_durably", fails_on_the_third)
    with pytest.raises(StorageError, match=r"cannot write .*out: the disk is full"):
        write_bundle(target, contents)
    assert before == files_in(tmp_path)


def test_a_manifest_that_could_not_be_read_is_not_written(tmp_path: Path, contents: BundleContents) -> None:
    """A model of very many blocks is refused at once, not by the first device."""
    too_much = dataclasses.replace(contents, lineage={"lock": "x" * (1 << 20)})
    with pytest.raises(MessageError, match="Manifest: expected at most 1048576 bytes"):
        write_bundle(tmp_path / "out", too_much)
    assert {} == files_in(tmp_path)


def test_an_old_bundle_is_replaced_as_a_whole(tmp_path: Path, contents: BundleContents) -> None:
    """No file of the old one stays behind."""
    target = tmp_path / "out"
    write_bundle(target, dataclasses.replace(contents, files={**contents.files, "old.txt": (Role.EVIDENCE, b"old")}))
    write_bundle(target, contents)
    assert {*contents.files, MANIFEST_NAME, CHECKSUM_NAME} == set(files_in(target))
