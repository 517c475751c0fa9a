"""``edgeopt prune``: the command line of :mod:`edgeopt.pruning.run`. It reads options and shows what came of them.

Example::

    edgeopt prune my.net:model --data my.net:data --train-data my.net:train_data --max-drop 1% -o build/pruned
"""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgeopt.cli.number_options import confidence_option
from edgeopt.cli.parsing import parse_agreement, parse_drop
from edgeopt_contract.errors import ExitCode, MissingExtraError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from edgeopt.pruning.run import PruneOutcome, PruneRequest

__all__ = ["prune"]

_EPILOG = """\b
Example:
  edgeopt prune my.net:model --data my.net:data --train-data my.net:train_data --max-drop 1% -o build/pruned
  edgeopt prune my.net:model --data my.net:data --train-data my.net:train_data --train my.training:train \\
      --speedup 2 --round-to 16 --max-drop 1% -o build/pruned
  edgeopt quantize build/pruned --data my.net:data --max-drop 1% -o build/net

\b
A training function takes one edgeopt.pruning.training.TrainingJob and trains job.student in place; without one, the
pruned model learns the original's answers, and the labels where there are some. Training samples must not be among
those that certify. See docs/guides/prune.md.
Exit codes: 0 PASS, 3 FAIL (too slow or less accurate; nothing is written), 4 INCONCLUSIVE (more samples needed),
2 bad input, 1 the disk.
"""
_EXIT_CODES = {"PASS": ExitCode.GOOD, "FAIL": ExitCode.GATE_FAIL, "INCONCLUSIVE": ExitCode.GATE_INCONCLUSIVE}


@click.command(epilog=_EPILOG)
@click.argument("model")
@click.option("--data", metavar="DATA", help="Factory, .npz, table or folder of class folders; edgeopt splits it.")
@click.option("--calibration-data", metavar="DATA", help="Your own three splits, instead of --data ...")
@click.option("--selection-data", metavar="DATA", help="... all three must be given ...")
@click.option("--certification-data", metavar="DATA", help="... and must not share a sample.")
@click.option("--train-data", metavar="DATA", help="Data to train the pruned model with; must not be among the others.")
@click.option("--train", metavar="FUNCTION", help="Training function, package.module:function. Default: distillation.")
@click.option("--label-column", default="label", show_default=True, metavar="NAME", help="Of a CSV or Parquet table.")
@click.option("--speedup", default=1.6, show_default=True, help="Least measured ratio of times, original / pruned.")
@click.option("--max-drop", required=True, metavar="POINTS", help="Greatest drop of the metric: 1%, 1pp or 0.01.")
@click.option("--min-agreement", metavar="SHARE", help="Least share of answers equal to the original's: 95%.")
@confidence_option
@click.option("--metric", default="accuracy", show_default=True, help="accuracy, agreement or package.module:function.")
@click.option("--round-to", default=8, show_default=True, help="Widths are multiples of this: 8 or 16 suit CPUs.")
@click.option(
    "--importance",
    type=click.Choice(["magnitude", "taylor", "bn-scale"]),
    default="magnitude",
    show_default=True,
    help="How channels are ranked.",
)
@click.option("--epochs", default=5, show_default=True, help="How often the training data are gone through.")
@click.option("--seed", default=0, show_default=True, help="Draws the splits and the order of training.")
@click.option(
    "--threads", type=click.IntRange(1, 256), default=1, show_default=True, help="Threads that a device will use."
)
@click.option("-o", "--output", type=click.Path(path_type=Path), required=True, help="Directory to write.")
@click.option("--json", "as_json", is_flag=True, help="Print the outcome as JSON instead of a summary.")
def prune(as_json: bool, **options: Any) -> int:  # noqa: FBT001  (click passes options by name)
    """Take channels out of MODEL until it is measurably faster, train it again, and prove that it still answers right.

    MODEL is package.module:factory, a function that returns a torch.nn.Module. The result is a directory with
    weights.safetensors, pruning.json and pruned.onnx, which can take MODEL's place.
    """
    request = _request(**options)
    from edgeopt.pruning.run import run

    with _progress() as on_progress:
        outcome = run(request, on_progress)
    if as_json:
        click.echo(json.dumps(_plain(outcome), indent=1))
    else:
        _show(outcome, request.output)
    return int(_EXIT_CODES[outcome.verdict])


def _request(**options: Any) -> PruneRequest:
    """Return the request that the options make."""
    try:
        from edgeopt.criteria import Limits
        from edgeopt.files.reading import Reading
        from edgeopt.pruning.plan import Importance, PruningPlan
        from edgeopt.pruning.run import PruneRequest
        from edgeopt.sources import DataSources
    except ModuleNotFoundError as error:
        raise MissingExtraError(error.name or "torch", "optimizer") from error
    return PruneRequest(
        model=options["model"],
        data=DataSources(
            single=options["data"],
            calibration=options["calibration_data"],
            selection=options["selection_data"],
            certification=options["certification_data"],
            reading=Reading(label_column=options["label_column"]),
        ),
        output=options["output"],
        limits=Limits(
            max_drop=parse_drop(options["max_drop"]),
            confidence=options["confidence"],
            min_agreement=None if options["min_agreement"] is None else parse_agreement(options["min_agreement"]),
        ),
        plan=PruningPlan(
            speedup=options["speedup"],
            importance=Importance(options["importance"]),
            round_to=options["round_to"],
            epochs=options["epochs"],
            seed=options["seed"],
            threads=options["threads"],
        ),
        metric=options["metric"],
        train=options["train"],
        train_data=options["train_data"],
    )


@contextlib.contextmanager
def _progress() -> Iterator[Callable[[str, int, int], None]]:
    """Show a bar on stderr with the time that is left; steps of unknown length only turn a wheel."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeRemainingColumn

    columns = SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn()
    with Progress(*columns, console=Console(stderr=True), transient=True) as bars:
        task, shown = bars.add_task("starting", total=None), ""

        def update(step: str, done: int, total: int) -> None:
            nonlocal shown
            if step != shown:
                shown = step
                bars.reset(task, description=step, total=total or None)
            bars.update(task, completed=done)

        yield update


def _show(outcome: PruneOutcome, output: Path) -> None:
    """Print the verdict, what was won and lost, and where it lies."""
    from rich.console import Console

    from edgeopt.wording import milliseconds

    console = Console(highlight=False)
    colour = {"PASS": "green", "FAIL": "red", "INCONCLUSIVE": "yellow"}[outcome.verdict]
    console.print(f"[bold {colour}]{outcome.verdict}[/]")
    for reason in outcome.reasons:
        console.print(f"  {reason}", markup=False, soft_wrap=True)
    pruned, scores = outcome.pruned, outcome.scores
    if pruned is not None and scores is not None:
        macs, times = (pruned.macs_before, pruned.macs_after), pruned.speed
        console.print(f"multiplications {macs[0]:,} -> {macs[1]:,}, {macs[0] / macs[1]:.2f} times fewer")
        console.print(f"latency {milliseconds(times.baseline_ms)} -> {milliseconds(times.variant_ms)}")
        console.print(
            f"score {scores.baseline:.4f} -> {scores.pruned:.4f}; {scores.agreement:.2%} of answers as before"
        )
    for note in outcome.notes:
        console.print(f"note: {note}", markup=False, soft_wrap=True)
    if outcome.verdict == "PASS":
        console.print(f"written {output}", soft_wrap=True)


def _plain(outcome: PruneOutcome) -> dict[str, Any]:
    """Return the outcome as JSON carries it."""
    import msgspec

    pruned = outcome.pruned
    plain: dict[str, Any] = msgspec.to_builtins(
        {
            "verdict": outcome.verdict,
            "reasons": outcome.reasons,
            "notes": outcome.notes,
            "scores": outcome.scores,
            "speed": outcome.speed,
            "macs": None if pruned is None else {"before": pruned.macs_before, "after": pruned.macs_after},
            "ratio": None if pruned is None else pruned.ratio,
        }
    )
    return plain
