"""The reference profile and the golden inputs of a bundle: what the device compares itself with.

The profile says how inputs and outputs were distributed when the model was packaged; the arithmetic is
:mod:`edgeopt_contract.profile`. Golden inputs come with the outputs of every variant. Both are functions of arrays;
nothing is read or written. Example::

    profile = reference_profile(inputs, outputs)           # arrays by name, first axis samples
    data = golden_file(golden_inputs, {"int8": outputs})   # bytes of golden.npz
"""

from __future__ import annotations

import io
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np

from edgeopt.samples import Array, Sample
from edgeopt_contract.profile import (
    CONFIDENCE_EDGES,
    FeatureSpec,
    ReferenceFeature,
    ReferenceProfile,
    Source,
    Summary,
    count_values,
    summarize,
)

__all__ = ["BINS", "equal_probability_edges", "golden_file", "golden_samples", "reference_profile"]

BINS = 16
_MAX_COLUMNS = 64
_GOLDEN_BYTES = 32 * 1024
_LEAST_GOLDEN, _MOST_GOLDEN = 4, 64
_OPEN = (0.0, 1.0)  # stands for edges that are still to be taken from data


def reference_profile(inputs: Mapping[str, Array], outputs: Mapping[str, Array]) -> ReferenceProfile:
    """Return the profile of a model's ``inputs`` and ``outputs``, arrays with samples along the first axis."""
    specs = [*_input_specs(inputs), *_output_specs(outputs)]
    rows = len(next(iter(inputs.values())))
    tensors = {Source.INPUT: inputs, Source.OUTPUT: outputs}
    return ReferenceProfile(
        rows=rows, features=tuple(_count(spec, tensors[spec.source][spec.tensor]) for spec in specs)
    )


def equal_probability_edges(values: Array, bins: int = BINS) -> tuple[float, ...]:
    """Return at most ``bins`` + 1 strictly increasing edges with about as many of ``values`` between each two.

    Values that repeat make bins fall together; a constant gets one narrow bin around itself.
    """
    finite = np.asarray(values, dtype=np.float64)
    finite = finite[np.isfinite(finite)]
    if finite.size == 0:
        return _OPEN
    edges = np.unique(np.quantile(finite, np.linspace(0, 1, bins + 1)))
    if edges.size == 1:
        width = max(abs(float(edges[0])), 1.0) * 1e-6
        return (float(edges[0]) - width, float(edges[0]) + width)
    return tuple(float(edge) for edge in edges)


def golden_samples(samples: Sequence[Sample]) -> Sequence[Sample]:
    """Return the first samples that fit into 32 KiB of inputs: at most 64, at least 4 where there are so many."""
    size = sum(array.nbytes for array in samples[0].inputs.values())
    return samples[: min(_MOST_GOLDEN, max(_LEAST_GOLDEN, _GOLDEN_BYTES // max(1, size)))]


def golden_file(inputs: Mapping[str, Array], outputs: Mapping[str, Mapping[str, Array]]) -> bytes:
    """Return ``golden.npz``: ``inputs/<name>`` and ``outputs/<variant>/<name>``. Equal arrays give equal bytes."""
    arrays = {f"inputs/{name}": array for name, array in inputs.items()}
    for variant, tensors in outputs.items():
        arrays.update({f"outputs/{variant}/{name}": array for name, array in tensors.items()})
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **arrays)
    return buffer.getvalue()


def _input_specs(inputs: Mapping[str, Array]) -> Iterator[FeatureSpec]:
    for tensor, batch in inputs.items():
        shape = batch.shape[1:]
        if math.prod(shape) <= _MAX_COLUMNS and len(shape) < 2:
            for column in range(math.prod(shape)):
                name = f"{tensor}[{column}]" if shape else tensor
                yield _numeric(name, Source.INPUT, tensor, Summary.COLUMN, column)
            continue
        prefix = f"{tensor}." if len(inputs) > 1 else ""
        looks_like_picture = len(shape) in (2, 3) and min(shape[-2:]) >= 4
        names = (
            (f"{prefix}brightness", f"{prefix}contrast", f"{prefix}sharpness")
            if looks_like_picture
            else (f"{tensor}.mean", f"{tensor}.std", f"{tensor}.sharpness")
        )
        for name, summary in zip(names, (Summary.MEAN, Summary.STD, Summary.SHARPNESS), strict=True):
            yield _numeric(name, Source.INPUT, tensor, summary)


def _output_specs(outputs: Mapping[str, Array]) -> Iterator[FeatureSpec]:
    for tensor, batch in outputs.items():
        shape = [size for size in batch.shape[1:] if size > 1]
        prefix = f"{tensor}." if len(outputs) > 1 else ""
        if not shape:
            yield _numeric(f"{prefix}score", Source.OUTPUT, tensor, Summary.COLUMN, 0)
        elif len(shape) == 1:
            logits = not _are_probabilities(batch)
            yield FeatureSpec(
                name=f"{prefix}class", source=Source.OUTPUT, tensor=tensor, summary=Summary.TOP1, categories=shape[0]
            )
            for name, summary, edges in (
                ("confidence", Summary.CONFIDENCE, CONFIDENCE_EDGES),
                ("entropy", Summary.ENTROPY, _OPEN),
            ):
                yield FeatureSpec(
                    name=f"{prefix}{name}",
                    source=Source.OUTPUT,
                    tensor=tensor,
                    summary=summary,
                    logits=logits,
                    edges=edges,
                )


def _numeric(name: str, source: Source, tensor: str, summary: Summary, column: int | None = None) -> FeatureSpec:
    return FeatureSpec(name=name, source=source, tensor=tensor, summary=summary, column=column, edges=_OPEN)


def _are_probabilities(batch: Array) -> bool:
    rows = np.asarray(batch, dtype=np.float64).reshape(len(batch), -1)
    return bool(rows.min() >= 0 and np.allclose(rows.sum(axis=1), 1, atol=0.02))  # int8 rounds the sum


def _count(spec: FeatureSpec, batch: Array) -> ReferenceFeature:
    """Return ``spec`` with edges from ``batch``, its counts, and the moments of the finite values."""
    values = summarize(spec, batch)
    if spec.edges == _OPEN:
        spec = replace(spec, edges=equal_probability_edges(values))
    counts = count_values(spec, values)
    finite = values[np.isfinite(values)]
    return ReferenceFeature(
        spec=spec,
        counts=tuple(int(count) for count in counts),
        mean=float(finite.mean()) if finite.size else 0.0,
        std=float(finite.std()) if finite.size else 0.0,
    )
