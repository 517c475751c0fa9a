"""The kinds of record by the name of their golden file, and the golden bytes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from edgeopt_contract.bundle import BundleContents
from edgeopt_contract.enrolment import EnrolRequest, EnrolResponse, RenewRequest
from edgeopt_contract.manifest import Capabilities, Manifest, Role, TensorSpec, Variant
from edgeopt_contract.messages import Ack, Desired, Reported, Shadow, Status, Telemetry
from edgeopt_contract.profile import ReferenceProfile
from edgeopt_contract.tuf import TufMetadata

HERE = Path(__file__).parent
GOLDEN = HERE / "golden"
HOSTILE = HERE / "hostile"

KINDS: dict[str, type[Any]] = {
    "ack": Ack,
    "desired": Desired,
    "enrol_request": EnrolRequest,
    "enrol_response": EnrolResponse,
    "manifest": Manifest,
    "reference_profile": ReferenceProfile,
    "renew_request": RenewRequest,
    "reported": Reported,
    "shadow": Shadow,
    "status": Status,
    "telemetry": Telemetry,
    "tuf_metadata": TufMetadata,
}


def golden_bytes(name: str) -> bytes:
    """The one good file of the message ``name`` in its present version."""
    return (GOLDEN / f"{name}.v{KINDS[name].SCHEMA}.json").read_bytes()


@pytest.fixture
def pi() -> Capabilities:
    """What a Raspberry Pi 5 says of itself."""
    return Capabilities(
        arch="aarch64",
        features=("dotprod", "fp16", "neon"),
        runtimes={"onnxruntime": "1.22.0"},
        cores=4,
        memory_bytes=4 << 30,
    )


@pytest.fixture
def contents() -> BundleContents:
    """A small bundle: two variants, golden inputs, a profile and a report."""
    variants = (
        Variant(
            name="int8",
            file="int8.onnx",
            runtime="onnxruntime",
            minimum_runtime="1.20",
            arch=("x86_64",),
            features=("vnni",),
            certified_for=("x86-vnni",),
            tolerance=0.05,
        ),
        Variant(
            name="fp32",
            file="fp32.onnx",
            runtime="onnxruntime",
            minimum_runtime="1.20",
            arch=(),
            features=(),
            certified_for=("any",),
            tolerance=0.001,
        ),
    )
    return BundleContents(
        name="digits",
        version="1",
        inputs=(TensorSpec(name="image", dtype="float32", shape=(1, 8, 8)),),
        outputs=(TensorSpec(name="logits", dtype="float32", shape=(10,)),),
        labels=("0", "1"),
        variants=variants,
        lineage={"seed": 0},
        files={
            "int8.onnx": (Role.VARIANT, bytes(range(256)) * 400),
            "fp32.onnx": (Role.VARIANT, b"float" * 60_000),
            "golden.npz": (Role.GOLDEN, b"golden"),
            "profile.json": (Role.PROFILE, golden_bytes("reference_profile")),
            "report.json": (Role.EVIDENCE, b""),
        },
    )
