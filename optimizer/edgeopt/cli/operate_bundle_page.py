"""The page of one bundle, as people see it. No input, no output.

Example::

    console.print(bundle_page(read(BundlePageView, fleet.bundle("3fa94c"))))
"""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.text import Text

from edgeopt.cli.operate_cells import coloured, count, facts, moment, plain, size, table
from edgeopt.cli.operate_records import BundlePageView, SignatureView, TensorView

__all__ = ["bundle_page"]


def bundle_page(bundle: BundlePageView) -> Group:
    """What a bundle holds for which devices, who signed it, where it runs and which rollouts bring it."""
    profile = "not here yet"
    if bundle.profile_rows is not None:
        profile = f"{bundle.profile_rows} rows of {', '.join(bundle.profile_features)}"
    page = facts([
        ("bundle", plain(bundle.digest)),
        ("name", plain(f"{bundle.name} {bundle.version}")),
        ("published", moment(bundle.created_at, exact=True)),
        ("complete", Text("yes") if bundle.complete else Text("no: publish it again, or sign it", "yellow")),
        ("signed", _signed(bundle.signature)),
        ("goes back to", plain(", ".join(one[:12] for one in bundle.signature.rollback) or "nothing older")),
        ("size", plain(f"{size(bundle.size)} in {bundle.blocks} blocks")),
        ("takes", _tensors(bundle.inputs)),
        ("gives", _tensors(bundle.outputs, f", {bundle.labels} named classes" if bundle.labels else "")),
        ("profile", plain(profile)),
        ("evidence", plain(", ".join(bundle.evidence) or "-")),
        ("runs on", plain(f"{count(bundle.running_on)} device{'' if bundle.running_on == 1 else 's'}")),
    ])  # fmt: skip
    variants = table(("variant", "size", "to fetch", "runtime", "for", "certified for"), [
        (
            one.name,
            size(one.size),
            size(one.download),
            one.runtime,
            " ".join(("|".join(one.arch) or "any CPU", *one.features)),
            " ".join(one.certified_for) or "-",
        )
        for one in bundle.variants
    ])  # fmt: skip
    parts: list[RenderableType] = [page, Text(), variants]
    if bundle.rollouts:
        uses = [(one.name, coloured(one.state), one.cohort) for one in bundle.rollouts]
        parts += [Text(), table(("rollout", "state", "cohort"), uses)]
    return Group(*parts)


def _signed(signature: SignatureView) -> Text:
    if not signature.in_force:
        return Text("no: edgeopt sign", "yellow")
    words = f"by {signature.signatures} of {signature.threshold} needed keys, as number {signature.counter}"
    return plain(words)


def _tensors(tensors: Sequence[TensorView], also: str = "") -> Text:
    shown = [f"{one.name} {one.dtype}[{','.join(map(str, one.shape))}]" for one in tensors]
    return plain(", ".join(shown) + also)
