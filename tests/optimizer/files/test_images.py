"""Pictures: one rule for channels, size and values, and one sentence for a file that breaks it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edgeopt.files.images import read_images
from edgeopt_contract.errors import DataError, MissingExtraError

COLOURS = np.arange(4 * 6 * 3, dtype=np.uint8).reshape(4, 6, 3) * 3


def _saved(path: Path, pixels: np.ndarray, mode: str | None = None) -> Path:
    image = Image.fromarray(pixels)
    (image if mode is None else image.convert(mode)).save(path)
    return path


def _read(paths: list[Path], shape: tuple[int | None, ...] | None = None) -> list[np.ndarray]:
    return [picture for picture, _ in read_images([(path, 0) for path in paths], shape)]


@pytest.mark.parametrize("suffix", ["png", "bmp", "ppm", "tiff"])
def test_colours_come_first_and_lie_between_0_and_1(tmp_path: Path, suffix: str) -> None:
    """Exact in every lossless format: pixel (y, x, c) is value (c, y, x) times 255."""
    (picture,) = _read([_saved(tmp_path / f"a.{suffix}", COLOURS)])
    assert ("float32", (3, 4, 6)) == (picture.dtype.name, picture.shape)
    assert np.array_equal(COLOURS.transpose(2, 0, 1), np.rint(picture * 255))


def test_jpeg_is_close(tmp_path: Path) -> None:
    """A flat picture survives the compression."""
    (picture,) = _read([_saved(tmp_path / "a.jpg", np.full((8, 8, 3), 128, np.uint8))])
    assert np.allclose(128 / 255, picture, atol=2 / 255)


def test_the_input_decides_on_the_channels(tmp_path: Path) -> None:
    """Colours become luma for one channel; grey is repeated for three."""
    colour = _saved(tmp_path / "c.png", np.full((2, 2, 3), (255, 0, 0), np.uint8))
    grey = _saved(tmp_path / "g.png", np.full((2, 2), 51, np.uint8))
    (luma,) = _read([colour], (1, 2, 2))
    assert np.allclose(0.299, luma, atol=0.5 / 255)
    (repeated,) = _read([grey], (3, 2, 2))
    assert np.array_equal(np.full((3, 2, 2), 51 / 255, np.float32), repeated)


def test_without_an_input_the_files_decide_on_the_channels(tmp_path: Path) -> None:
    """All grey: one channel. One picture in colour: three for all."""
    grey = _saved(tmp_path / "g.png", np.zeros((2, 2), np.uint8))
    colour = _saved(tmp_path / "c.png", np.zeros((2, 2, 3), np.uint8))
    assert [(1, 2, 2)] == [picture.shape for picture in _read([grey])]
    assert [(3, 2, 2), (3, 2, 2)] == [picture.shape for picture in _read([grey, colour], (None, None, None))]


def test_pictures_are_resized_whole_to_the_input(tmp_path: Path) -> None:
    """Left half black, right half white: still halves at another size and proportion; the oracle is Pillow."""
    pixels = np.zeros((10, 40), np.uint8)
    pixels[:, 20:] = 255
    (picture,) = _read([_saved(tmp_path / "a.png", pixels)], (1, 8, 8))
    oracle = Image.fromarray(pixels).resize((8, 8), Image.Resampling.BILINEAR)
    assert np.array_equal(np.asarray(oracle, np.float32) / 255, picture[0])
    assert (0.0, 1.0) == (picture[0, :, :3].max(), picture[0, :, 5:].min())


def test_height_comes_before_width(tmp_path: Path) -> None:
    """Pillow's order is the other."""
    (picture,) = _read([_saved(tmp_path / "a.png", COLOURS)], (3, 5, 7))
    assert (3, 5, 7) == picture.shape


def test_sixteen_bits_are_scaled_not_clipped(tmp_path: Path) -> None:
    """Half of 65535 is half."""
    Image.fromarray(np.full((2, 2), 32768, np.uint16)).save(tmp_path / "a.png")
    (picture,) = _read([tmp_path / "a.png"])
    assert np.allclose(0.5, picture, atol=1 / 255)


def test_palettes_and_transparency(tmp_path: Path) -> None:
    """The colours of a palette count; an alpha channel is dropped without a warning."""
    red = np.full((2, 2, 3), (255, 0, 0), np.uint8)
    palette = Image.fromarray(red).convert("P")
    palette.save(tmp_path / "p.png", transparency=b"\x00\x80")
    Image.fromarray(red).convert("RGBA").save(tmp_path / "a.png")
    for picture in _read([tmp_path / "p.png", tmp_path / "a.png"]):
        assert [1.0, 0.0, 0.0] == picture[:, 0, 0].tolist()


@pytest.mark.parametrize(
    ("content", "reason"), [(b"no picture", "not in a format that Pillow knows"), (None, "truncated")]
)
def test_a_broken_picture_is_named(tmp_path: Path, content: bytes | None, reason: str) -> None:
    """Whether it is no picture at all or was cut off."""
    whole = _saved(tmp_path / "whole.bmp", np.zeros((20, 20, 3), np.uint8)).read_bytes()
    (tmp_path / "cut.bmp").write_bytes(whole[:200] if content is None else content)
    with pytest.raises(DataError, match=f"cannot read the picture .*cut.bmp: .*{reason}"):
        _read([tmp_path / "cut.bmp"])


def test_unequal_sizes_are_refused_when_nobody_says_the_size(tmp_path: Path) -> None:
    """The file that differs, and the option that helps."""
    paths = [_saved(tmp_path / "a.png", np.zeros((4, 4), np.uint8)), _saved(tmp_path / "b.png", COLOURS[:, :, 0])]
    with pytest.raises(DataError, match=r"b.png has 6 x 4 pixels, .*a.png has 4 x 4.* --input-shape 1x224x224"):
        _read(paths)


@pytest.mark.parametrize("shape", [(16,), (224, 224, 3), (4, 8, 8)])
def test_an_input_that_takes_no_picture(tmp_path: Path, shape: tuple[int, ...]) -> None:
    """Rows, channels last, four channels."""
    with pytest.raises(DataError, match="pictures are given as channels x height x width, with 1 or 3 channels"):
        _read([_saved(tmp_path / "a.png", COLOURS)], shape)


def test_32_bit_pixels_are_refused(tmp_path: Path) -> None:
    """Nobody knows what is white."""
    Image.fromarray(np.zeros((2, 2), np.float32)).save(tmp_path / "a.tiff")
    with pytest.raises(DataError, match=r"a\.tiff has 32-bit pixels"):
        _read([tmp_path / "a.tiff"], (1, 2, 2))


def test_without_pillow_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One sentence, and what to install."""
    monkeypatch.setitem(__import__("sys").modules, "PIL", None)
    with pytest.raises(MissingExtraError, match=r"edgeopt\[data\]"):
        _read([tmp_path / "a.png"], (1, 2, 2))
