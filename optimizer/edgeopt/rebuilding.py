"""Making the files of a bundle again from its lineage: the rebuild behind ``edgeopt reproduce``.

The model and the data are read again, and each variant is built by its recipe; nothing is searched, timed or judged.
Example::

    rebuild(bundle.manifest, bundle.directory).files["int8.onnx"]
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from edgeopt.evidence import compose_payload
from edgeopt.files.reading import Reading, TokenIds
from edgeopt.lineage import PURPOSES
from edgeopt.listing import Needs, Shipped
from edgeopt.pipeline import read_original, settle
from edgeopt.recipe import Recipe
from edgeopt.reproduce import Rebuilt
from edgeopt.search.pruned import with_kept
from edgeopt.search.workshop import Workshop
from edgeopt.sources import DataSources
from edgeopt.stages import Request
from edgeopt.targets import Target
from edgeopt_contract.errors import BundleError
from edgeopt_contract.manifest import Manifest, Variant

__all__ = ["rebuild"]


def rebuild(manifest: Manifest, directory: Path) -> Rebuilt:
    """Return the variants, the golden file and the profile, made anew, and the roots of the data.

    ``directory`` holds the bundle and, beside it, the weights of a pruned network: training is not done again.
    Raises :class:`BundleError` when the lineage lacks a setting, and what reading and building raise.
    """
    request = _request(manifest)
    setting, original, splits = read_original(settle(request), lambda _step: None)
    recipes = _recipes(manifest)
    if any(recipe.pruned for recipe in recipes.values()):
        original = with_kept(original, splits, setting, directory)
    workshop = Workshop(original.floats, original.splits.calibration, seed=request.seed, threads=request.threads)
    ships = [_shipped(variant, recipes[variant.name], workshop) for variant in manifest.variants]
    payload = compose_payload(setting, original, ships)
    files = {path: data for path, (_, data) in payload.files.items()}
    return Rebuilt(files, {str(split): root for split, root in original.splits.roots.items()})


def _shipped(variant: Variant, recipe: Recipe, workshop: Workshop) -> Shipped:
    needs = Needs(variant.arch, variant.features, variant.minimum_runtime)
    return Shipped(variant.name, recipe, workshop.build(recipe), needs, variant.certified_for)


def _recipes(manifest: Manifest) -> dict[str, Recipe]:
    try:
        return msgspec.convert(manifest.lineage["recipes"], dict[str, Recipe])
    except (KeyError, msgspec.ValidationError) as error:
        raise BundleError(f"the lineage does not say how the variants were made: {error!r}; build it again") from error


def _request(manifest: Manifest) -> Request:
    """Return the request that led to the bundle; nothing is written, so it has no output."""
    settings = manifest.lineage["settings"]
    try:
        file = settings["preprocess_file"]
        return Request(
            model=settings["model"],
            data=_sources(settings["data"], manifest.labels),
            output=Path(),
            name=manifest.name,
            version=manifest.version,
            labels=manifest.labels,
            targets=tuple(_target(target) for target in settings["targets"]),
            preprocess=None if file is None else Path(file),
            **{key: settings[key] for key in ("max_drop", "max_class_drop", "min_agreement", "confidence", "metric")},
            **{key: settings[key] for key in ("seed", "threads")},
        )
    except (KeyError, TypeError) as error:
        raise BundleError(f"the lineage of this bundle lacks a setting: {error}; another edgeopt made it") from error


def _sources(given: Mapping[str, Any], labels: tuple[str, ...]) -> DataSources:
    shape, tokens = given.get("input_shape"), given.get("tokens")
    reading = Reading(
        shape=None if shape is None else tuple(shape),
        label_column=given.get("label_column", Reading().label_column),
        labels=labels,
        tokens=None if tokens is None else TokenIds(**tokens),
    )
    data, *three = (given.get(purpose) for purpose in PURPOSES)
    calibration, selection, certification = three
    return DataSources(
        single=data, calibration=calibration, selection=selection, certification=certification, reading=reading
    )


def _target(given: Mapping[str, Any]) -> Target:
    """Return the kind of CPU; how many cores and how much memory it had decides nothing about the files."""
    return Target(
        name=given["name"],
        arch=given["arch"],
        features=tuple(given["features"]),
        cores=1,
        memory_mib=0,
        runtimes={},
    )
