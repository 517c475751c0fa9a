"""How variants stand in the manifest, so that every device finds the one that is right for it."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgeopt.listing import listed, needs
from edgeopt.recipe import Precision, Recipe, RuntimeName
from edgeopt.targets import Target, read_target

DEVICES = Path(__file__).parents[2] / "devices"
INT8 = Recipe(precision=Precision.INT8)
SIGNED = Recipe(precision=Precision.INT8, signed_activations=True)
STORED = Recipe(precision=Precision.INT8_WEIGHTS)


def profile(name: str) -> Target:
    """Return a device profile of the project."""
    return read_target(DEVICES / f"{name}.toml")


@pytest.mark.parametrize(
    ("recipe", "name", "arch", "features"),
    [
        (INT8, "x86-vnni", ("x86_64",), ("vnni",)),
        (INT8, "x86-avx2", ("x86_64",), ()),
        (SIGNED, "raspberry-pi-4", ("aarch64",), ()),
        (STORED, "raspberry-pi-4", (), ()),
        (Recipe(precision=Precision.FP16), "raspberry-pi-5", (), ()),
    ],
)
def test_what_a_device_needs(recipe: Recipe, name: str, arch: tuple[str, ...], features: tuple[str, ...]) -> None:
    """Full-range u8s8 needs VNNI; integers need their architecture; what computes in float runs anywhere."""
    found = needs(recipe, profile(name))
    assert (arch, features) == (found.arch, found.features)


def test_the_variant_with_the_most_needs_stands_first_and_fp32_last() -> None:
    """A VNNI box takes the first; an AVX2 box cannot, and takes the second; a Pi takes its own."""
    ships = listed(
        [
            (profile("x86-avx2"), [(INT8, b"reduced")]),
            (profile("x86-vnni"), [(INT8, b"full")]),
            (profile("raspberry-pi-4"), [(SIGNED, b"signed")]),
        ],
        b"float",
    )
    assert ["int8-x86-vnni", "int8", "int8-raspberry-pi-4", "fp32"] == [one.name for one in ships]
    assert [b"full", b"reduced", b"signed", b"float"] == [one.model for one in ships]
    assert ("x86-avx2", "x86-vnni", "raspberry-pi-4") == ships[-1].targets


def test_what_is_the_same_for_two_targets_ships_once() -> None:
    """A Pi 3 and a Pi 4 share a file, and the manifest names both."""
    ships = listed([(profile(name), [(SIGNED, b"same")]) for name in ("raspberry-pi-3", "raspberry-pi-4")], b"float")
    assert ["int8", "fp32"] == [one.name for one in ships]
    assert ("raspberry-pi-3", "raspberry-pi-4") == ships[0].targets


def test_a_litert_file_is_called_so() -> None:
    """The runtime decides the file's ending, and the profile its least version."""
    recipe = Recipe(precision=Precision.INT8, runtime=RuntimeName.LITERT)
    (one, _) = listed([(profile("raspberry-pi-4"), [(recipe, b"flat")])], b"float")
    assert ("int8-litert", "int8-litert.tflite", "2.0") == (one.name, one.file, one.needs.minimum_runtime)
