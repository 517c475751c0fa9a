"""What the API shows of one bundle: what it holds for which devices, who signed it, where it runs.

Example::

    BundlePage.from_facts(bundles.facts("3fa94c")).model_dump()
"""

from __future__ import annotations

from typing import Self

from pydantic import BaseModel, Field

from edgeopt_contract.manifest import Manifest, Role, TensorSpec, Variant
from edgeopt_fleet.api.views import DIGEST_EXAMPLE, BundleDetail
from edgeopt_fleet.store.bundle_facts import BundleFacts

__all__ = ["BundlePage", "SignatureView", "TensorView", "UseView", "VariantView"]


class TensorView(BaseModel):
    """One input or output of the model; the shape is without the batch."""

    name: str = Field(examples=["image"])
    dtype: str = Field(examples=["float32"])
    shape: list[int] = Field(examples=[[3, 224, 224]])

    @classmethod
    def of(cls, spec: TensorSpec) -> Self:
        """Show one tensor."""
        return cls(name=spec.name, dtype=spec.dtype, shape=list(spec.shape))


class VariantView(BaseModel):
    """One form of the model, and what a device must have to run it; a device takes the first that it can run."""

    name: str = Field(examples=["int8"])
    size: int = Field(examples=[5_242_880], description="bytes of its file")
    download: int = Field(examples=[5_300_000], description="bytes that a device fetches which has nothing of it yet")
    runtime: str = Field(examples=["onnxruntime 1.20"], description="and the least version of it")
    arch: list[str] = Field(examples=[["aarch64"]], description="one of these; empty: any")
    features: list[str] = Field(examples=[["dotprod"]], description="of the CPU, all of these")
    certified_for: list[str] = Field(examples=[["raspberry-pi-4"]], description="kinds of CPU that it was judged on")

    @classmethod
    def of(cls, variant: Variant, manifest: Manifest) -> Self:
        """Show one variant of ``manifest``."""
        sizes = {entry.path: entry.size for entry in manifest.files}
        beside = sum(entry.size for entry in manifest.files if entry.role in (Role.GOLDEN, Role.PROFILE))
        return cls(
            name=variant.name,
            size=sizes[variant.file],
            download=sizes[variant.file] + beside,
            runtime=f"{variant.runtime} {variant.minimum_runtime}",
            arch=list(variant.arch),
            features=list(variant.features),
            certified_for=list(variant.certified_for),
        )


class SignatureView(BaseModel):
    """What the targets keys say of the bundle."""

    in_force: bool = Field(examples=[True], description="devices may install it")
    signatures: int = Field(examples=[2], description="of targets keys, on the metadata in force")
    threshold: int = Field(examples=[2], description="how many there must be")
    counter: int | None = Field(examples=[7], description="grows with every bundle that is signed")
    rollback: list[str] = Field(
        examples=[[DIGEST_EXAMPLE]], description="older bundles that a device which runs this one may go back to"
    )


class UseView(BaseModel):
    """A rollout of the bundle."""

    name: str = Field(examples=["digits-2"])
    state: str = Field(examples=["succeeded"])
    cohort: str = Field(examples=["oslo"])


class BundlePage(BundleDetail):
    """All that there is to know about one bundle."""

    size: int = Field(examples=[9_437_184], description="bytes of all files, evidence included")
    blocks: int = Field(examples=[144], description="different blocks that the files are cut into")
    inputs: list[TensorView]
    outputs: list[TensorView]
    labels: int = Field(examples=[10], description="how many classes have a name")
    variants: list[VariantView] = Field(description="in order of preference")
    profile_rows: int | None = Field(examples=[500], description="rows of the reference profile; null: not here yet")
    profile_features: list[str] = Field(examples=[["brightness", "confidence"]], description="what drift is seen by")
    evidence: list[str] = Field(examples=[["report.html"]], description="files that stay on the fleet")
    signature: SignatureView
    running_on: int = Field(examples=[1204], description="devices that say they run it now")
    rollouts: list[UseView] = Field(description="of this bundle, newest first, twenty at most")

    @classmethod
    def from_facts(cls, facts: BundleFacts) -> Self:
        """Show what was gathered about a bundle."""
        manifest, target, profile = facts.manifest, facts.target, facts.profile
        return cls(
            **BundleDetail.of(facts.row).model_dump(),
            size=sum(entry.size for entry in manifest.files),
            blocks=len({block.sha256 for entry in manifest.files for block in entry.blocks}),
            inputs=[TensorView.of(spec) for spec in manifest.inputs],
            outputs=[TensorView.of(spec) for spec in manifest.outputs],
            labels=len(manifest.labels),
            variants=[VariantView.of(variant, manifest) for variant in manifest.variants],
            profile_rows=None if profile is None else profile.rows,
            profile_features=[] if profile is None else [feature.spec.name for feature in profile.features],
            evidence=[entry.path for entry in manifest.files if entry.role is Role.EVIDENCE],
            signature=SignatureView(
                in_force=target is not None,
                signatures=facts.signed_by,
                threshold=facts.threshold,
                counter=None if target is None else target.counter,
                rollback=[] if target is None else list(target.rollback),
            ),
            running_on=facts.running_on,
            rollouts=[UseView.model_validate(row, from_attributes=True) for row in facts.rollouts],
        )
