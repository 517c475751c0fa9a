"""``edgeopt optimize``: search runtimes, pruning and quantization under a budget of time.

Example::

    edgeopt optimize examples.digits:model --data examples.digits:data --max-drop 1% --budget 5m -o build/digits
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgeopt.cli.parsing import parse_seconds
from edgeopt.cli.request_options import request_of, runtimes_of, shared_options
from edgeopt.loading import is_reference
from edgeopt.recipe import RuntimeName
from edgeopt_contract.errors import MissingExtraError, UsageError

if TYPE_CHECKING:
    from edgeopt.stages import Pruning

__all__ = ["optimize"]

_EPILOG = """\b
Example:
  edgeopt optimize examples.digits:model --data examples.digits:data --max-drop 1% --budget 5m -o build/digits
  edgeopt optimize my.net:model --data my.net:data --max-drop 1% --prune --train-data my.net:train_data -o build/net
  edgeopt optimize my.net:model --data my.net:data --max-drop 1% --prune --no-quantize -o build/pruned
  edgeopt optimize my.net:model --data my.net:data --max-drop 1% --target devices/x86-vnni.toml -o build/net

\b
The search keeps a journal and the best variant so far beside the output, in OUTPUT.search: killed at any moment and
begun again with the same arguments, it goes on where it was. The directory goes when the result is written.
Exit codes: 0 PASS, 3 FAIL, 4 INCONCLUSIVE (more samples needed), 2 bad input, 1 the disk.
"""

_LEAST_BUDGET = 10.0  # seconds


@click.command(epilog=_EPILOG)
@click.argument("model")
@click.option("--budget", default="10m", show_default=True, metavar="TIME", help="For everything: 90s, 10m, 1.5h.")
@click.option("--quantize/--no-quantize", "quantizes", default=True, show_default=True, help="Try int8.")
@click.option("--prune", is_flag=True, help="Prune channels as well, and train again.")
@click.option("--train-data", metavar="DATA", help="To train the pruned network with; must not be among the others.")
@click.option("--train", metavar="FUNCTION", help="Training function, package.module:function. Default: distillation.")
@click.option("--speedup", default=1.6, show_default=True, help="Of the pruned network over the original, in float.")
@click.option("--epochs", default=5, show_default=True, help="How often the training data are gone through.")
@shared_options
def optimize(as_json: bool, **options: Any) -> int:  # noqa: FBT001  (click passes options by name)
    """Search for the fastest variant of MODEL that keeps its accuracy, and write a certified bundle.

    Every rung of the recovery ladder is tried, on every runtime that the target has, on the original network and with
    --prune on a pruned one. MODEL is as for quantize.
    """
    begun = time.monotonic()
    budget = parse_seconds(options["budget"])
    _check(options, budget)
    try:
        from edgeopt.cli.outcome import finish, watching
        from edgeopt.pipeline import run
        from edgeopt.stages import Effort
    except ModuleNotFoundError as error:
        raise MissingExtraError(error.name or "onnx", "optimizer") from error
    journal = _journal(options["output"])
    effort = Effort(
        thorough=True,
        quantizes=options["quantizes"],
        budget_seconds=budget,
        journal=journal,
        runtimes=runtimes_of(options),
    )
    request = replace(request_of(options, effort), pruning=_pruning(options) if options["prune"] else None)
    with watching(with_front=True) as watcher:
        outcome = run(request, watcher, begun)  # loading the libraries took some of the budget
    shutil.rmtree(journal, ignore_errors=True)  # the result is written: nothing is left to resume
    return finish(outcome, options, as_json=as_json)


def _check(options: Mapping[str, Any], budget: float) -> None:
    """Raise :class:`UsageError` for what cannot lead to anything, before any work."""
    prune, model = options["prune"], options["model"]
    for name in ("train", "train_data"):
        if options[name] is not None and not prune:
            raise UsageError(f"--{name.replace('_', '-')} is for pruning: give --prune as well")
    others = [runtime for runtime in runtimes_of(options) if runtime is not RuntimeName.ONNXRUNTIME]
    if not (options["quantizes"] or prune or others or options["targets"]):
        raise UsageError("--no-quantize leaves nothing to try: give --prune, or another --runtime")
    if prune and not is_reference(model):
        raise UsageError(f"--prune needs the PyTorch module: give MODEL as package.module:function, not {model}")
    if budget < _LEAST_BUDGET:
        raise UsageError(
            f"--budget {options['budget']} is too short: reading, exporting, timing and certification alone need "
            f"{_LEAST_BUDGET:g}s or more"
        )


def _pruning(options: Mapping[str, Any]) -> Pruning:
    from edgeopt.pruning.plan import PruningPlan
    from edgeopt.stages import Pruning

    plan = PruningPlan(
        speedup=options["speedup"], epochs=options["epochs"], seed=options["seed"], threads=options["threads"]
    )
    return Pruning(plan=plan, train_data=options["train_data"], train=options["train"])


def _journal(output: Path) -> Path:
    return output.with_name(f"{output.name}.search")
