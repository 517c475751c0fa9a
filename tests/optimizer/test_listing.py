"""How variants stand in the manifest, so that every device finds the one that is right for it."""

from __future__ import annotations

import dataclasses
from itertools import permutations
from pathlib import Path

import pytest

from edgeopt.listing import Certified, Shipped, listed, needs
from edgeopt.recipe import Precision, Recipe, RuntimeName
from edgeopt.targets import Target, read_target
from edgeopt_contract.manifest import Capabilities, Manifest, Variant
from tests.tiny import tiny_bundle

DEVICES = Path(__file__).parents[2] / "devices"
PROFILES = {path.stem: read_target(path) for path in DEVICES.glob("*.toml")}
INT8 = Recipe(precision=Precision.INT8)
REDUCED = Recipe(precision=Precision.INT8, reduced_weights=("w",))
SIGNED = Recipe(precision=Precision.INT8, signed_activations=True)
STORED = Recipe(precision=Precision.INT8_WEIGHTS)
HALF = Recipe(precision=Precision.FP16)
AVX2, VNNI, ATOM = (PROFILES[name] for name in ("x86-avx2", "x86-vnni", "x86-atom"))
PI4, PI5 = PROFILES["raspberry-pi-4"], PROFILES["raspberry-pi-5"]


def by(runtime: RuntimeName, recipe: Recipe) -> Recipe:
    """Return ``recipe`` for another runtime."""
    return dataclasses.replace(recipe, runtime=runtime)


def device(target: Target, *runtimes: str) -> Capabilities:
    """Return a device of that kind, with all runtimes that its profile names unless some are given."""
    versions = {name: f"{least}.5" for name, least in target.runtimes.items() if name in (runtimes or target.runtimes)}
    return Capabilities(
        arch=target.arch, features=target.features, runtimes=versions, cores=4, memory_bytes=target.memory_mib * 2**20
    )


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    """A manifest to put variants into."""
    return tiny_bundle(tmp_path_factory.mktemp("tiny")).manifest


def taken(ships: tuple[Shipped, ...], tiny: Manifest, who: Capabilities) -> bytes:
    """Return the model that a device takes, by the rule of the manifest."""
    fp32 = tiny.variants[0]
    variants = [
        Variant(
            name=one.name, file=fp32.file, runtime=one.recipe.runtime, minimum_runtime=one.needs.minimum_runtime,
            arch=one.needs.arch, features=one.needs.features, certified_for=one.targets, tolerance=0.0,
        )
        for one in ships
    ]  # fmt: skip
    found = dataclasses.replace(tiny, variants=tuple(variants)).variant_for(who)
    return ships[variants.index(found)].model


@pytest.mark.parametrize(
    ("recipe", "targets", "arch", "features"),
    [
        (INT8, [VNNI], ("x86_64",), ("vnni",)),
        (INT8, [AVX2], ("x86_64",), ()),
        (INT8, [VNNI, AVX2], ("x86_64",), ()),
        (SIGNED, [PI4], ("aarch64",), ()),
        (STORED, [PI4], ("aarch64",), ()),
        (HALF, [PI5], ("aarch64",), ("fp16",)),
        (Recipe(precision=Precision.FP32), [PI5], (), ()),
        (Recipe(precision=Precision.FP32, pruned=True), [PI5], ("aarch64",), ()),
    ],
)
def test_what_a_device_needs(
    recipe: Recipe, targets: list[Target], arch: tuple[str, ...], features: tuple[str, ...]
) -> None:
    """Full-range u8s8 needs VNNI unless it was certified without; all but fp32 needs the architecture."""
    found = needs(recipe, targets)
    assert (arch, features) == (found.arch, found.features)


def test_the_least_version_is_the_profiles() -> None:
    """Of several targets the oldest; of a runtime that no profile names, the oldest that edgeopt makes variants for."""
    old = dataclasses.replace(PI4, runtimes={"onnxruntime": "1.9"})
    assert "1.9" == needs(SIGNED, [PI5, old]).minimum_runtime
    assert "2025.0" == needs(by(RuntimeName.OPENVINO, SIGNED), [old]).minimum_runtime
    assert "1.9" == listed([(old, []), (PI5, [])], b"float")[-1].needs.minimum_runtime


FLEET: list[Certified] = [
    (AVX2, [(by(RuntimeName.OPENVINO, REDUCED), b"avx2 openvino"), (REDUCED, b"avx2")]),
    (VNNI, [(INT8, b"vnni")]),
    (ATOM, [(by(RuntimeName.LITERT, REDUCED), b"atom litert")]),
    (PI4, [(STORED, b"pi 4")]),
    (PI5, [(HALF, b"pi 5")]),
]


@pytest.mark.parametrize("order", list(permutations(range(len(FLEET))))[::7])
def test_every_kind_of_device_takes_its_own(tiny: Manifest, order: tuple[int, ...]) -> None:
    """Whatever the order in which the targets are given."""
    ships = listed([FLEET[index] for index in order], b"float")
    for target, variants in FLEET:
        assert variants[0][1] == taken(ships, tiny, device(target)), target.name
    assert b"float" == ships[-1].model


@pytest.mark.parametrize(
    ("target", "model"),
    [(AVX2, b"avx2"), (VNNI, b"vnni"), (ATOM, b"float"), (PI4, b"pi 4"), (PI5, b"pi 5")],
)
def test_a_device_with_onnxruntime_alone_takes_what_stands_behind(tiny: Manifest, target: Target, model: bytes) -> None:
    """The second variant of its own kind, or fp32; never a variant of another kind in between."""
    assert model == taken(listed(FLEET, b"float"), tiny, device(target, "onnxruntime"))


@pytest.mark.parametrize("name", sorted(PROFILES))
def test_full_range_reaches_vnni_only(tiny: Manifest, name: str) -> None:
    """A bundle that was made for VNNI alone, on any other board: fp32."""
    ships = listed([(VNNI, [(INT8, b"full")])], b"float")
    assert (b"full" if name == "x86-vnni" else b"float") == taken(ships, tiny, device(PROFILES[name]))


@pytest.mark.parametrize("name", sorted(PROFILES))
def test_three_profiles_serve_all(tiny: Manifest, name: str) -> None:
    """An Atom takes the 7-bit one, which is right everywhere on x86; other ARM boards take the Pi's."""
    ships = listed([(AVX2, [(REDUCED, b"avx2")]), (VNNI, [(INT8, b"vnni")]), (PI4, [(SIGNED, b"arm")])], b"float")
    expected = {"x86-vnni": b"vnni", "x86-avx2": b"avx2", "x86-atom": b"avx2"}.get(name, b"arm")
    assert expected == taken(ships, tiny, device(PROFILES[name]))
    unknown = dataclasses.replace(device(PROFILES[name]), arch="riscv64", features=())
    assert b"float" == taken(ships, tiny, unknown)


def test_a_target_that_keeps_fp32_takes_fp32(tiny: Manifest) -> None:
    """Not what was certified for a poorer CPU, which is all that the manifest has besides."""
    ships = listed([(AVX2, [(REDUCED, b"avx2")]), (VNNI, [])], b"float")
    assert ["fp32", "int8", "fp32"] == [one.name for one in ships]
    assert b"float" == taken(ships, tiny, device(VNNI))
    assert b"avx2" == taken(ships, tiny, device(AVX2))


def test_fp32_stands_once_where_it_is_all_there_is() -> None:
    """Nothing needs to be held back from anybody."""
    assert ["fp32"] == [one.name for one in listed([(AVX2, []), (VNNI, []), (PI4, [])], b"float")]


def test_variants_of_one_kind_are_called_after_their_targets() -> None:
    """All of them, so that a name says what it is for; one alone needs no more than its kind."""
    ships = listed([(AVX2, [(REDUCED, b"avx2")]), (VNNI, [(INT8, b"vnni")]), (PI4, [(STORED, b"arm")])], b"float")
    assert ["int8-x86-vnni", "int8-x86-avx2", "int8-weights", "fp32"] == [one.name for one in ships]
    assert ("x86-avx2", "x86-vnni", "raspberry-pi-4") == ships[-1].targets


def test_what_is_the_same_for_two_targets_ships_once() -> None:
    """A Pi 3 and a Pi 4 share a file, and the manifest names both."""
    pi3 = PROFILES["raspberry-pi-3"]
    ships = listed([(pi3, [(SIGNED, b"same")]), (PI4, [(SIGNED, b"same")])], b"float")
    assert ["int8", "fp32"] == [one.name for one in ships]
    assert ("raspberry-pi-3", "raspberry-pi-4") == ships[0].targets


def test_a_litert_file_is_called_so() -> None:
    """The runtime decides the file's ending, and the profile its least version."""
    recipe = Recipe(precision=Precision.INT8, runtime=RuntimeName.LITERT)
    (one, _) = listed([(PI4, [(recipe, b"flat")])], b"float")
    assert ("int8-litert", "int8-litert.tflite", "2.0") == (one.name, one.file, one.needs.minimum_runtime)
