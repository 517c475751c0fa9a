"""Copies that were changed a little are found; samples that are merely alike are kept apart."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits, load_sample_image

from edgeopt.near_duplicates import near_duplicates
from examples import fashion_mnist

Array = np.ndarray
RANDOM = np.random.default_rng(0)


def _compressed(picture: Array, quality: int) -> Array:
    """Return a grey or RGB picture, channels first in [0, 1], after a way through JPEG."""
    pixels = np.rint(picture * 255).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels[0] if len(pixels) == 1 else pixels.transpose(1, 2, 0)).save(file, "JPEG", quality=quality)
    values = np.asarray(Image.open(file), np.float32) / 255
    return values[None] if values.ndim == 2 else np.ascontiguousarray(values.transpose(2, 0, 1))


def _noisy(picture: Array) -> Array:
    noise = np.random.default_rng(1).normal(0, 2 / 255, picture.shape)
    return np.clip(picture + noise, 0, 1).astype(np.float32)


CHANGES: dict[str, Callable[[Array], Array]] = {
    "compressed": lambda picture: _compressed(picture, 80),
    "brighter": lambda picture: np.clip(picture * 1.08 + 0.02, 0, 1).astype(np.float32),
    "noisy": _noisy,
    "gamma": lambda picture: (picture**0.95).astype(np.float32),
    "one bit": lambda picture: np.nextafter(picture, np.float32(2)),
}


def _groups(arrays: Sequence[Array]) -> list[int]:
    return near_duplicates([{"x": array} for array in arrays])


def _falsely_merged(arrays: Sequence[Array]) -> float:
    """Return the share of distinct samples that were given to another one's group."""
    distinct = list({array.tobytes(): array for array in arrays}.values())
    return 1 - len(set(_groups(distinct))) / len(distinct)


def _recall(originals: Sequence[Array], change: Callable[[Array], Array]) -> float:
    """Return the share of changed copies that are found among all originals."""
    groups = _groups([*originals, *map(change, originals)])
    count = len(originals)
    return sum(groups[index] == groups[count + index] for index in range(count)) / count


@pytest.fixture(scope="module")
def clothes() -> list[Array]:
    """The 10,000 test pictures of Fashion-MNIST."""
    if not fashion_mnist.FOLDER.exists():
        pytest.skip("needs its data: apt-get install dataset-fashion-mnist")
    return list(fashion_mnist.pictures("t10k")[0])


@pytest.fixture(scope="module")
def photographs() -> list[Array]:
    """Crops of a photograph, which do not overlap."""
    photo = np.asarray(load_sample_image("china.jpg"), np.float32).transpose(2, 0, 1) / 255
    return [
        np.ascontiguousarray(photo[:, y : y + 96, x : x + 96])
        for y in range(240, 427 - 96, 32)
        for x in range(0, 640 - 96, 96)
    ]


class TestPictures:
    """A grid of means."""

    def test_pictures_of_clothes_that_are_alike_stay_apart(self, clothes: list[Array]) -> None:
        """Of 10,000 pictures, many of them hardly told apart, fewer than 1 in 1,000 is taken for another one."""
        share = _falsely_merged(clothes)
        print(f"Fashion-MNIST: {share:.3%} of 10,000 pictures merged with another one")
        assert share < 0.001
        bytes_last = [(picture[0, :, :, None] * 255).astype(np.uint8) for picture in clothes[:5000]]
        assert _falsely_merged(bytes_last) < 0.001

    def test_digits_that_are_alike_stay_apart(self) -> None:
        """1,797 pictures of 8 x 8 with 17 grey levels."""
        assert 0 == _falsely_merged([(image / 16).astype(np.float32)[None] for image in load_digits().images])

    @pytest.mark.parametrize("change", CHANGES)
    def test_a_changed_copy_is_found(self, clothes: list[Array], photographs: list[Array], change: str) -> None:
        """In small grey pictures at least 95 of 100, in photographs all."""
        small, large = _recall(clothes[:400], CHANGES[change]), _recall(photographs, CHANGES[change])
        print(f"{change}: found {small:.1%} of 400 small pictures, {large:.0%} of {len(photographs)} photographs")
        assert small >= 0.95
        assert large == 1

    def test_channels_may_come_last(self, photographs: list[Array]) -> None:
        """Bytes as a camera gives them."""
        originals = [np.rint(picture * 255).astype(np.uint8).transpose(1, 2, 0) for picture in photographs]
        copies = [np.clip(picture.astype(int) + 3, 0, 255).astype(np.uint8) for picture in originals]
        groups = _groups([*originals, *copies])
        assert groups[: len(originals)] == groups[len(originals) :]
        assert len(originals) == len(set(groups))

    def test_the_same_shape_in_another_light_or_colour_is_another_picture(self) -> None:
        """Only small changes of brightness and contrast count as copies, and colours do not."""
        ramp = np.linspace(0.1, 0.3, 256, dtype=np.float32).reshape(1, 16, 16)
        assert [0, 1, 2] == _groups([ramp, ramp + 0.6, ramp * 3])
        red, green = np.zeros((2, 3, 16, 16), np.float32)
        red[0], green[1] = ramp[0], ramp[0]
        assert [0, 1] == _groups([red, green])

    def test_flat_pictures_are_compared_as_they_are(self) -> None:
        """Grey and white have no pattern: only equal ones are the same."""
        flat = [np.full((1, 16, 16), level, np.float32) for level in (0, 0.5, 1, 0.5)]
        assert [0, 1, 2, 1] == _groups(flat)


class TestSounds:
    """A spectrum, and the greatest cross-correlation."""

    def _sounds(self, count: int = 40) -> list[Array]:
        """Return coloured noise with an envelope, each of its own."""
        time = np.arange(8000) / 8000
        sounds = []
        for _ in range(count):
            noise = RANDOM.standard_normal(8000)
            smooth = np.convolve(noise, RANDOM.standard_normal(12), "same")
            sounds.append((smooth * np.sin(np.pi * time) * 0.1).astype(np.float32))
        return sounds

    @pytest.mark.parametrize(
        "change",
        [
            lambda sound: np.concatenate([np.zeros(300, np.float32), sound[:-300]]),
            lambda sound: np.concatenate([sound[300:], np.zeros(300, np.float32)]),
            lambda sound: (0.5 * sound).astype(np.float32),
            lambda sound: (np.round(sound * 127) / 127).astype(np.float32),
        ],
        ids=["later", "earlier", "quieter", "8 bits"],
    )
    def test_a_changed_copy_is_found(self, change: Callable[[Array], Array]) -> None:
        """Shifted, quieter, or stored with fewer bits; as float or as 16-bit integers."""
        sounds = self._sounds()
        assert _recall(sounds, change) >= 0.95
        whole = [np.round(sound * 32767).astype(np.int16)[None] for sound in sounds]
        assert _recall(whole, lambda sound: np.roll(sound, 1)) >= 0.95

    def test_sounds_of_one_colour_stay_apart(self) -> None:
        """The same spectrum does not make the same sound."""
        noise = RANDOM.standard_normal((200, 4000)).astype(np.float32)
        assert list(range(200)) == _groups(list(noise))


class TestVectors:
    """Rows of tables."""

    @pytest.mark.parametrize("features", [1, 2, 16, 400])
    def test_low_bits_are_no_difference_but_chance_neighbours_are(self, features: int) -> None:
        """Even on a line, fewer than 1 in 1,000 rows are merged; a flipped last bit is always found."""
        rows = list(np.random.default_rng(features).standard_normal((3000, features)).astype(np.float32) * 50)
        assert _falsely_merged(rows) < 0.001
        assert _recall(rows[:300], lambda row: np.nextafter(row, np.float32(1e9))) > 0.99

    def test_units_do_not_matter(self) -> None:
        """A column of large numbers does not hide the others."""
        rows = RANDOM.standard_normal((500, 3)).astype(np.float32) * np.float32([1e6, 1, 1e-6])
        assert list(range(500)) == _groups(list(rows))
        rows[1, :2] = rows[0, :2]
        assert list(range(500)) == _groups(list(rows))


class TestSamples:
    """Several inputs, integers, and other shapes."""

    def test_integers_differ_or_not(self) -> None:
        """Token 7 is no near-duplicate of token 8."""
        assert [0, 1, 0] == near_duplicates([{"ids": np.array([1, 2, last])} for last in (7, 8, 7)])

    def test_all_inputs_must_be_near(self) -> None:
        """A picture with another question is another sample; a side input that is always the same does no harm."""
        pictures = [RANDOM.random((1, 16, 16)).astype(np.float32) for _ in range(3)]
        copy = CHANGES["brighter"](pictures[1])
        state = np.zeros(4, np.float32)
        samples = [{"x": picture, "ids": np.array([1]), "state": state} for picture in (*pictures, copy)]
        assert [0, 1, 2, 1] == near_duplicates(samples)
        assert [0, 1, 2, 3] == near_duplicates([*samples[:3], {**samples[3], "ids": np.array([2])}])

    def test_nearness_is_handed_on(self) -> None:
        """The least index names the group, whatever the order of the pairs."""
        picture = RANDOM.random((1, 16, 16)).astype(np.float32)
        chain = [np.clip(picture * (1 + step * 0.1), 0, 2).astype(np.float32) for step in range(6)]
        assert [0] * 6 == _groups(chain)

    def test_only_equal_shapes_are_compared(self) -> None:
        """One sample, none at all, and scalars are no trouble."""
        assert [] == near_duplicates([])
        assert [0, 1, 2, 1] == _groups([np.zeros(3, np.float32), np.zeros(4), np.float32(1).reshape(()), np.zeros(4)])
