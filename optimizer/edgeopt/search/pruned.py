"""The pruned network as a second float network of a search: pruned once, kept beside the journal, read again after.

Whether it pays is for the ladder to find out: here it is only made. A network that does not get faster, or would take
longer than it may, is left out with a note. What is kept is kept for one network, one plan and one set of data.
Example::

    original, notes = with_pruned(original, splits, setting, kept, Limit(300, print))
    original.floats[True]
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from edgeopt.models import TorchModel
from edgeopt.original import prepared_float
from edgeopt.pruning.run import TrainingSamples, training_samples
from edgeopt.pruning.saved import is_pruned, load_pruned, recipe_of, write_pruned
from edgeopt.pruning.search import NotFaster, prune
from edgeopt.pruning.training import distill, load_training
from edgeopt.search.deadline import OutOfTime, deadline
from edgeopt.sources import SplitData
from edgeopt.stages import Original, Setting
from edgeopt_contract.errors import ModelError
from edgeopt_contract.storage import write_atomically
from edgeopt_contract.values import canonical_json, digest_of

__all__ = ["Limit", "kept_for", "with_kept", "with_pruned", "would_overrun"]

_REFUSED = "not-pruned.txt"
_SEEN = 20  # steps of training after which its length is known well enough


@dataclass(frozen=True, slots=True)
class Limit:
    """How long pruning may take (infinity: as long as it wants), and who hears what it does."""

    seconds: float
    on_step: Callable[[str], None]


def kept_for(directory: Path, original: Original, setting: Setting) -> Path:
    """Return where in ``directory`` the network is kept that is pruned of ``original`` as ``setting`` asks."""
    pruning = setting.request.pruning
    decides = {
        "model": digest_of(original.float.model),
        "splits": {str(split): root for split, root in original.splits.roots.items()},
        "pruning": None if pruning is None else asdict(pruning),
    }
    return directory / f"pruned-{digest_of(canonical_json(decides))[:12]}"


def with_pruned(
    original: Original,
    splits: SplitData,
    setting: Setting,
    kept: Path,
    limit: Limit,
) -> tuple[Original, tuple[str, ...]]:
    """Return ``original`` with its pruned form, from ``kept`` if an earlier run left it there, and what was measured.

    ``splits`` are the data as they were read. Raises :class:`ModelError` for a model that is no torch module.
    """
    pruning = setting.request.pruning
    if pruning is None:
        return original, ()
    if original.float.module is None:
        raise ModelError("pruning needs the PyTorch module: give MODEL as 'package.module:function'")
    training = training_samples(splits, setting.request.data, pruning.train_data)
    original = replace(original, notes=(*original.notes, *([training.note] if training.note else [])))
    refused = kept.with_name(f"{kept.name}-{_REFUSED}")
    if not is_pruned(kept) and not refused.exists():
        try:
            with deadline(limit.seconds):
                _prune(original, training, setting, kept, limit)
        except OutOfTime:
            reason = f"it would have taken longer than the {limit.seconds:.0f} s that it may take of the budget"
            return original, (f"not pruned: {reason}; give more --budget, or less --epochs",)
    if refused.exists():
        return original, (refused.read_text(),)
    return with_kept(original, splits, setting, kept), ()


def would_overrun(spent: float, done: int, total: int, left: float) -> bool:
    """Tell whether ``total`` steps take more than ``left`` seconds, going by ``done`` of them in ``spent``; pure."""
    return done >= _SEEN and spent / (done - 1) * total > left


def with_kept(original: Original, splits: SplitData, setting: Setting, kept: Path) -> Original:
    """Return ``original`` with the pruned form that ``kept`` holds. Raises :class:`ModelError` if it does not fit."""
    return replace(original, pruned=prepared_float(TorchModel(load_pruned(kept)), splits.calibration[0], setting.steps))


def _prune(original: Original, training: TrainingSamples, setting: Setting, kept: Path, limit: Limit) -> None:
    """Prune and train, and write the network into ``kept``, or beside it why there is none.

    Raises :class:`OutOfTime` as soon as the training can be seen not to end in time.
    """
    request, network = setting.request, original.float.module
    assert request.pruning is not None
    plan = request.pruning.plan
    train = distill if request.pruning.train is None else load_training(request.pruning.train)

    begun, first = time.monotonic(), None

    def on_progress(words: str, done: int, total: int) -> None:
        nonlocal first
        now = time.monotonic()
        first = (first or now) if total else None
        if first is not None and would_overrun(now - first, done, total, limit.seconds - (first - begun)):
            raise OutOfTime
        limit.on_step(f"pruning: {words}" + (f", {done} of {total}" if total else ""))

    pruned = prune(network, training.samples, plan, train=train, on_progress=on_progress)
    kept.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(pruned, NotFaster):
        note = f"not pruned: {pruned.reason}"
        write_atomically(kept.with_name(f"{kept.name}-{_REFUSED}"), note.encode())
        return
    evidence = {"ratio": pruned.ratio, "macs": [pruned.macs_before, pruned.macs_after], "training": training.root}
    write_pruned(kept, recipe_of(pruned, network, request.model, evidence), pruned)
