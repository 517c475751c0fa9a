"""Choosing a variant, and what a device must fetch for it."""

from __future__ import annotations

import dataclasses

import pytest

from edgeopt_contract.codec import decode
from edgeopt_contract.errors import BundleError
from edgeopt_contract.manifest import Capabilities, Manifest, Role, Variant
from tests.contract.conftest import golden_bytes


@pytest.fixture
def manifest() -> Manifest:
    """The golden manifest: int8 for x86-64 with VNNI, then fp32 for all."""
    return decode(Manifest, golden_bytes("manifest"))


def test_first_variant_that_runs_is_chosen(manifest: Manifest, pi: Capabilities) -> None:
    """Order is preference; a device without VNNI gets the next one."""
    server = dataclasses.replace(pi, arch="x86_64", features=("avx2", "vnni"))
    assert "int8-u8s8" == manifest.variant_for(server).name
    assert "fp32" == manifest.variant_for(pi).name


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"arch": ("x86_64", "riscv64")}, "needs x86_64 or riscv64, the device is aarch64"),
        ({"features": ("i8mm", "neon", "sve")}, "needs the CPU features i8mm, sve"),
        ({"runtime": "litert"}, "needs the runtime litert"),
        ({"minimum_runtime": "1.22.1"}, "needs onnxruntime 1.22.1 or newer, the device has 1.22.0"),
    ],
)
def test_what_a_device_lacks_is_said(
    manifest: Manifest, pi: Capabilities, changes: dict[str, object], reason: str
) -> None:
    """Arch, CPU features, runtime and its version are each named when they do not fit."""
    fp32 = manifest.variants[1]
    assert fp32.missing_from(pi) is None
    assert reason == dataclasses.replace(fp32, **changes).missing_from(pi)  # type: ignore[arg-type]  # from a table


def test_when_nothing_runs_all_reasons_are_given(manifest: Manifest, pi: Capabilities) -> None:
    """The operator sees at once what every variant lacked."""
    bare = dataclasses.replace(pi, runtimes={})
    with pytest.raises(BundleError, match=r"int8-u8s8 needs x86_64.*; fp32 needs the runtime onnxruntime"):
        manifest.variant_for(bare)


@pytest.mark.parametrize(
    ("has", "needs", "runs"),
    [
        ("1.22.0", "1.9", True),
        ("1.9", "1.22.0", False),
        ("1.22", "1.22.0", False),
        ("1.22.0", "1.22", True),
        ("1.22.0rc1", "1.22.0", True),
        ("2", "1.99.99", True),
        ("nightly", "1.0", False),
        ("1.22.0+cpu", "1.22.0", True),
    ],
)
def test_versions_compare_by_number(manifest: Manifest, pi: Capabilities, has: str, needs: str, runs: bool) -> None:  # noqa: FBT001  # a table's column
    """1.22 is newer than 1.9; what cannot be read is older than everything."""
    variant = dataclasses.replace(manifest.variants[1], minimum_runtime=needs)
    device = dataclasses.replace(pi, runtimes={"onnxruntime": has})
    assert runs == (variant.missing_from(device) is None)


def test_a_device_fetches_its_variant_golden_inputs_and_profile(manifest: Manifest) -> None:
    """Evidence and other variants stay on the server."""
    fetched = {entry.path for entry in manifest.files_for(manifest.variants[1])}
    assert {"golden.npz", "model.fp32.onnx", "profile.json"} == fetched


def test_files_are_found_by_role(manifest: Manifest) -> None:
    """Golden inputs and profile are there exactly once."""
    assert "golden.npz" == manifest.file_with(Role.GOLDEN).path
    assert "profile.json" == manifest.file_with(Role.PROFILE).path


@pytest.mark.parametrize("tolerance", [-1e-9, float("nan")])
def test_a_tolerance_that_accepts_nothing_or_anything_cannot_be_made(tolerance: float) -> None:
    """A NaN tolerance would make every comparison of the self-test false."""
    with pytest.raises(ValueError, match="expected a tolerance of zero or more"):
        Variant(
            name="v",
            file="f",
            runtime="onnxruntime",
            minimum_runtime="1",
            arch=(),
            features=(),
            certified_for=(),
            tolerance=tolerance,
        )
