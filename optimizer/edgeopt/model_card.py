"""The model card: what a model is, on what it was judged, and what nobody told edgeopt about it.

After Mitchell et al., "Model Cards for Model Reporting" (FAT* 2019), with the sections that a quantizer can fill from
evidence. No time stands in it: it is part of the bundle. Pure. Example::

    model_card(run, contents)        # bytes of model_card.md
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from edgeopt.criteria import Criterion, Name
from edgeopt.markdown import cell, table
from edgeopt.results import RunResult, TargetResult
from edgeopt.wording import CRITERIA, Wording, size
from edgeopt_contract.bundle import BundleContents
from edgeopt_contract.manifest import TensorSpec, Variant

__all__ = ["model_card"]

_SHARES = Wording(is_share=True)
_UNKNOWN = (
    "edgeopt saw the float model and the data named above, nothing else. What the model is meant for, for whom it was "
    "not made, what it was trained on and which groups of people its data leave out are for its authors to say. The "
    "verdict says that this form of the model answers like the float one on data like these; not that either is right "
    "for a purpose."
)


def model_card(run: RunResult, contents: BundleContents) -> bytes:
    """Return the card as Markdown. Equal findings give equal bytes."""
    return ("\n\n".join(_parts(run, contents)) + "\n").encode()


def _parts(run: RunResult, contents: BundleContents) -> Iterator[str]:
    yield f"# {cell(run.name)} {cell(run.version)}"
    yield (
        f"Verdict: **{run.verdict}**. {cell(run.metric)} may drop by {Wording(run.is_share).margin(run.margin)} at "
        f"{run.confidence * 100:g} % confidence."
    )
    yield "## Model"
    yield table(("tensor", "name", "dtype", "shape of one sample"), _tensors(contents))
    if contents.labels:
        yield "Classes in order: " + ", ".join(cell(label) for label in contents.labels) + "."
    yield "## Variants"
    yield "A device takes the first that it can run."
    yield table(("variant", "file", "size", "runtime", "needs", "certified for"), _variants(contents))
    yield "## Evaluation"
    for target in run.targets:
        yield from _target(target, run)
    yield "## Data"
    yield "The splits share no sample. A hash is the Merkle root over a split's samples and labels."
    yield table(("split", "samples", "hash"), ((name, one.size, one.hash) for name, one in sorted(run.splits.items())))
    if run.notes:
        yield "## Notes on the graph"
        yield "\n".join(f"- {cell(note)}" for note in run.notes)
    yield "## What is not known"
    yield _UNKNOWN


def _tensors(contents: BundleContents) -> Iterator[tuple[str, ...]]:
    def rows(kind: str, specs: Iterable[TensorSpec]) -> Iterator[tuple[str, ...]]:
        for spec in specs:
            yield kind, spec.name, spec.dtype, " x ".join(map(str, spec.shape)) or "one number"

    yield from rows("input", contents.inputs)
    yield from rows("output", contents.outputs)


def _variants(contents: BundleContents) -> Iterator[tuple[str, ...]]:
    for variant in contents.variants:
        _, data = contents.files[variant.file]
        yield (
            variant.name,
            variant.file,
            size(len(data)),
            f"{variant.runtime} {variant.minimum_runtime} or newer",
            _needs(variant),
            ", ".join(variant.certified_for),
        )


def _needs(variant: Variant) -> str:
    return " ".join([" or ".join(variant.arch), *variant.features]).strip() or "any CPU"


def _target(target: TargetResult, run: RunResult) -> Iterator[str]:
    words = Wording(run.is_share)
    yield f"### {cell(target.target)}"
    gets = f"gets {cell(target.chosen)}" if target.chosen else "gets none"
    yield f"{target.verdict}; {gets}. Certified on: {cell(target.execution)}."
    yield table(
        ("variant", run.metric, "drop", "true drop", "answers as fp32", "samples", "recipe"),
        (
            (
                one.name,
                words.score(one.metric.value),
                words.drop(one.metric.drop),
                f"{words.number(one.metric.drop_lower)} to {words.drop(one.metric.drop_upper)}",
                _SHARES.score(one.agreement),
                one.metric.n,
                one.recipe.title,
            )
            for one in target.variants
        ),
    )
    yield table(
        ("criterion", "found", "held against the limit", "limit", "samples", "verdict"),
        (_criterion(one, words) for one in target.criteria),
    )
    if target.stages:
        yield table(
            ("stage", run.metric, "answers as fp32", "samples"),
            ((one.stage, words.score(one.score), _SHARES.score(one.agreement), one.n) for one in target.stages),
        )


def _criterion(seen: Criterion, words: Wording) -> tuple[object, ...]:
    is_agreement = seen.name is Name.AGREEMENT
    show = _SHARES.score if is_agreement else words.drop
    name = CRITERIA[seen.name] if seen.label is None else f"{CRITERIA[seen.name]} ({seen.label})"
    found, bound = (("not known" if one is None else show(one)) for one in (seen.value, seen.bound))
    limit = f"at least {show(seen.limit)}" if is_agreement else f"at most {show(seen.limit)}"
    return name, found, bound, limit, seen.n, seen.verdict
