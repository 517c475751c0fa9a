"""The pruned network as a second float network of a search: pruned once, kept beside the journal, read again after.

Whether it pays is for the ladder to find out: here it is only made, and a network that does not get faster is a note.
Example::

    original = with_pruned(original, pruning, directory, on_step)
    original.floats[True]
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from edgeopt.models import TorchModel
from edgeopt.original import prepared_float
from edgeopt.pruning.run import training_samples
from edgeopt.pruning.saved import is_pruned, load_pruned, recipe_of, write_pruned
from edgeopt.pruning.search import NotFaster, prune
from edgeopt.pruning.training import distill, load_training
from edgeopt.sources import SplitData
from edgeopt.stages import Original, Setting
from edgeopt_contract.errors import ModelError

__all__ = ["with_pruned"]


def with_pruned(
    original: Original, splits: SplitData, setting: Setting, directory: Path, on_step: Callable[[str], None]
) -> Original:
    """Return ``original`` with its pruned form, from ``directory`` if an earlier run left it there.

    ``splits`` are the data as they were read. Raises :class:`ModelError` for a model that is no torch module.
    """
    request = setting.request
    if request.pruning is None:
        return original
    network, notes = original.float.module, original.notes
    if network is None:
        raise ModelError("pruning needs the PyTorch module: give MODEL as 'package.module:function'")
    if not is_pruned(directory):
        training = training_samples(splits, request.data, request.pruning.train_data)
        notes = (*notes, *([training.note] if training.note else []))
        train = distill if request.pruning.train is None else load_training(request.pruning.train)

        def on_progress(words: str, done: int, total: int) -> None:
            on_step(f"pruning: {words}" + (f", {done} of {total}" if total else ""))

        pruned = prune(network, training.samples, request.pruning.plan, train=train, on_progress=on_progress)
        if isinstance(pruned, NotFaster):
            return replace(original, notes=(*notes, f"not pruned: {pruned.reason}"))
        evidence = {"ratio": pruned.ratio, "macs": [pruned.macs_before, pruned.macs_after], "training": training.root}
        write_pruned(directory, recipe_of(pruned, network, request.model, evidence), pruned)
    float_network = prepared_float(TorchModel(load_pruned(directory)), splits.calibration[0], setting.steps)
    return replace(original, pruned=float_network, notes=notes)
