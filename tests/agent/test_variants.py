"""Variants that do not run on this board are not taken again."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from edgeopt_agent.update.variants import Variants
from edgeopt_contract.errors import BundleError
from edgeopt_contract.manifest import Capabilities, Manifest
from tests.tiny import Recipe, tiny_bundle

DIGEST = "ab" * 32


@pytest.fixture
def manifest(tmp_path: Path) -> Manifest:
    """Two variants: 'preferred' for OpenVINO, then 'fp32' for ONNX Runtime."""
    return tiny_bundle(tmp_path / "bundle", Recipe(preferred_runtime="openvino")).manifest


@pytest.fixture
def able(capabilities: Capabilities) -> Capabilities:
    """A device with both runtimes."""
    return replace(capabilities, runtimes={"onnxruntime": "1.30", "openvino": "2026.0"})


def test_excluded_variant_is_remembered_for_its_bundle(tmp_path: Path, manifest: Manifest, able: Capabilities) -> None:
    """Also after a restart; another bundle is tried anew."""
    path = tmp_path / "unsuitable.json"
    variants = Variants(able, path)
    assert "preferred" == variants.choose(DIGEST, manifest).name
    assert variants.exclude(DIGEST, manifest, "preferred", "signal 11")
    for found in (variants, Variants(able, path)):
        assert "fp32" == found.choose(DIGEST, manifest).name
        assert "preferred" == found.choose("cd" * 32, manifest).name


def test_last_variant_is_not_excluded(tmp_path: Path, manifest: Manifest, able: Capabilities) -> None:
    """It may have been the world's fault, and there is nothing better; what the device lacks does not count."""
    variants = Variants(able, tmp_path / "unsuitable.json")
    assert variants.exclude(DIGEST, manifest, "preferred", "signal 11")
    assert not variants.exclude(DIGEST, manifest, "fp32", "no memory")
    assert "fp32" == variants.choose(DIGEST, manifest).name
    unable = replace(able, runtimes={"openvino": "2026.0"})
    assert not Variants(unable, tmp_path / "other.json").exclude(DIGEST, manifest, "preferred", "signal 11")


def test_device_that_lost_its_other_runtime_is_told_why(tmp_path: Path, manifest: Manifest, able: Capabilities) -> None:
    """The reason of the exclusion stands in the error."""
    Variants(able, tmp_path / "unsuitable.json").exclude(DIGEST, manifest, "preferred", "signal 11")
    unable = replace(able, runtimes={"openvino": "2026.0"})
    with pytest.raises(BundleError, match=r"preferred: signal 11"):
        Variants(unable, tmp_path / "unsuitable.json").choose(DIGEST, manifest)


def test_file_is_bounded_and_may_be_lost(tmp_path: Path, manifest: Manifest, able: Capabilities) -> None:
    """Old bundles are forgotten; a damaged file costs one more try."""
    path = tmp_path / "unsuitable.json"
    variants = Variants(able, path)
    digests = [f"{number:064x}" for number in range(20)]
    for digest in digests:
        assert variants.exclude(digest, manifest, "preferred", "signal 11")
    chosen = [variants.choose(digest, manifest).name for digest in digests]
    assert ["preferred"] * 12 + ["fp32"] * 8 == chosen
    path.write_bytes(b"{")
    assert "preferred" == Variants(able, path).choose(digests[-1], manifest).name
