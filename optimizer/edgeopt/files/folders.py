"""A folder of class folders: which files it has, of which class, and of which kind.

The folder's own folders are the classes, in the order of their sorted names; the files in them, sorted by name, are
the samples, so that no file system decides the order. Hidden files and what desktops leave behind are passed over, and
so are files beside the class folders that are neither picture nor sound. Example::

    labelled = read_folder(Path("pictures"), Reading(shape=(3, 224, 224)))
    labelled.classes                                   # ("cat", "dog")
"""

from __future__ import annotations

from pathlib import Path

from edgeopt.files.audio import read_sounds
from edgeopt.files.images import read_images
from edgeopt.files.reading import Labelled, Reading
from edgeopt_contract.errors import DataError

__all__ = ["read_folder"]

_IMAGES = frozenset((".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"))
_SOUNDS = frozenset((".wav",))
_DESKTOP = frozenset(("thumbs.db", "desktop.ini"))
_LAYOUT = "expected one folder for each class with pictures or WAV files in it, such as {folder}/cat/1.jpg"


def read_folder(folder: Path, reading: Reading) -> Labelled:
    """Return the samples of ``folder``: pictures as in :mod:`.images`, WAV files as in :mod:`.audio`.

    Raises :class:`DataError` that names the file or folder which is not as expected.
    """
    try:
        found = {entry.name: _files_of(entry) for entry in _class_folders(folder)}
    except OSError as error:
        raise DataError(f"cannot read {error.filename or folder}: {error.strerror}") from error
    kind = _kind_of([path for paths in found.values() for path in paths])
    classes = tuple(found)
    labels = reading.indices(classes, str(folder))
    files = [(path, labels[name]) for name, paths in found.items() for path in paths]
    pairs = read_images(files, reading.shape) if kind == _IMAGES else read_sounds(files, reading.shape)
    return Labelled(pairs, reading.labels if set(classes) <= set(reading.labels) else classes)


def _class_folders(folder: Path) -> list[Path]:
    entries = _visible(folder)
    classes = [entry for entry in entries if entry.is_dir()]
    layout = _LAYOUT.format(folder=folder)
    if not classes:
        raise DataError(f"{folder} has no class folders: {layout}")
    for entry in entries:
        if entry.suffix.lower() in _IMAGES | _SOUNDS and not entry.is_dir():
            raise DataError(f"{entry} lies beside the class folders, so that it has no class: {layout}")
    return classes


def _files_of(folder: Path) -> list[Path]:
    files = _visible(folder)
    if not files:
        raise DataError(f"the class folder {folder} is empty: put samples into it, or remove it")
    for path in files:
        if path.is_dir():
            raise DataError(f"{path} is a folder inside a class folder: expected files only")
    return files


def _kind_of(files: list[Path]) -> frozenset[str]:
    """Return the suffixes that belong to the first file, if all files have one of them."""
    first = files[0]
    kind = _SOUNDS if first.suffix.lower() in _SOUNDS else _IMAGES
    for path in files:
        if path.suffix.lower() not in _IMAGES | _SOUNDS:
            raise DataError(f"{path} is neither a picture nor a WAV file: remove it, or convert it")
        if path.suffix.lower() not in kind:
            raise DataError(f"{path} and {first} are of different kinds: expected pictures only, or WAV files only")
    return kind


def _visible(folder: Path) -> list[Path]:
    entries = [path for path in folder.iterdir() if path.name[0] != "." and path.name.lower() not in _DESKTOP]
    return sorted(entries, key=lambda path: path.name)
