"""``edgeopt quantize``: the command line of :mod:`edgeopt.pipeline`. It reads options and shows what came of them.

Example::

    edgeopt quantize examples.digits:model --data examples.digits:data --max-drop 1% -o build/digits
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgeopt_contract.errors import ExitCode, MissingExtraError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

    from edgeopt.pipeline import Outcome
    from edgeopt.stages import Request

__all__ = ["parse_agreement", "parse_drop", "quantize"]

_EPILOG = """\b
Example:
  edgeopt quantize examples.digits:model --data examples.digits:data --max-drop 1% -o build/digits
  edgeopt quantize model.onnx --data samples.npz --metric agreement --max-drop 2% -o build/model
  edgeopt quantize my.net:model --data my.net:data --max-drop 1% --max-class-drop 5% --min-agreement 95% -o build/net
  edgeopt quantize model.onnx --data pictures/ --max-drop 1% -o build/model
  edgeopt quantize model.pt2 --data table.csv --label-column species --max-drop 1% -o build/model
  edgeopt quantize my.net:model --data my.net:data --target devices/raspberry-pi-5.toml --max-drop 1% -o build/pi

\b
A data factory yields (inputs, label) pairs: inputs is an array, or a dict of arrays, without batch dimension.
Files: .npz with x and y; .csv or .parquet with a label column; a folder with one folder of pictures or WAV files for
each class. See docs/guides/quantize.md for how they are read.
Exit codes: 0 PASS, 3 FAIL, 4 INCONCLUSIVE (more samples needed), 2 bad input, 1 the disk.
"""
_EXIT_CODES = {"PASS": ExitCode.GOOD, "FAIL": ExitCode.GATE_FAIL, "INCONCLUSIVE": ExitCode.GATE_INCONCLUSIVE}


def parse_drop(text: str, option: str = "--max-drop") -> float:
    """Return ``1%``, ``1pp`` or ``0.01`` as a share: always points of the metric. Raises :class:`UsageError`."""
    match = re.fullmatch(r"\s*(\d+\.?\d*|\.\d+)\s*(%|pp)?\s*", text)
    if match is None:
        raise UsageError(f"{option} {text!r}: expected points of the metric, such as 1%, 1pp or 0.01")
    value = float(match[1]) / (100 if match[2] else 1)
    if value >= 1:
        raise UsageError(f"{option} {text!r}: expected less than 100 points, got {value * 100:g}; 1% allows one point")
    return value


def parse_agreement(text: str) -> float:
    """Return ``95%`` or ``0.95`` as a share between 0 and 1. Raises :class:`UsageError`."""
    match = re.fullmatch(r"\s*(\d+\.?\d*|\.\d+)\s*(%?)\s*", text)
    share = float(match[1]) / (100 if match[2] else 1) if match else 0.0
    if not 0 < share < 1:
        raise UsageError(
            f"--min-agreement {text!r}: expected a share above 0 % and below 100 %, such as 95% or 0.95 (no number of "
            "samples could prove 100 %)"
        )
    return share


def _parse_shape(text: str | None) -> tuple[int, ...] | None:
    """Return (3, 224, 224) for '3x224x224'. Raises :class:`UsageError`."""
    if text is None:
        return None
    if not re.fullmatch(r"[1-9]\d{0,8}(x[1-9]\d{0,8})*", text):
        raise UsageError(f"--input-shape {text!r}: expected the sizes of one sample with x between, such as 3x224x224")
    return tuple(map(int, text.split("x")))


@click.command(epilog=_EPILOG)
@click.argument("model")
@click.option("--data", metavar="DATA", help="Factory, .npz, table or folder of class folders; edgeopt splits it.")
@click.option("--calibration-data", metavar="DATA", help="Your own three splits, instead of --data ...")
@click.option("--selection-data", metavar="DATA", help="... all three must be given ...")
@click.option("--certification-data", metavar="DATA", help="... and must not share a sample.")
@click.option("--label-column", default="label", show_default=True, metavar="NAME", help="Of a CSV or Parquet table.")
@click.option("--input-shape", metavar="SHAPE", help="Of one sample, as 3x224x224, if MODEL does not fix it.")
@click.option("--max-drop", required=True, metavar="POINTS", help="Greatest drop of the metric: 1%, 1pp or 0.01.")
@click.option("--max-class-drop", metavar="POINTS", help="Greatest drop of any class, by integer labels: 5%.")
@click.option("--min-agreement", metavar="SHARE", help="Least share of answers equal to the float model's: 95%.")
@click.option(
    "--confidence", type=click.FloatRange(0.5, 1, min_open=True, max_open=True), default=0.95, show_default=True
)
@click.option("--metric", default="accuracy", show_default=True, help="accuracy, agreement or package.module:function.")
@click.option("--target", type=click.Path(path_type=Path), help="Device profile (TOML). Default: this machine.")
@click.option("-o", "--output", type=click.Path(path_type=Path), required=True, help="Directory to write.")
@click.option("--name", help="Name of the bundle. Default: from MODEL.")
@click.option("--version", "version", default="1", show_default=True, help="Version of the bundle.")
@click.option("--labels", default="", metavar="A,B,C", help="Names of the classes, in order.")
@click.option("--seed", default=0, show_default=True, help="Draws the splits.")
@click.option(
    "--threads", type=click.IntRange(1, 256), default=1, show_default=True, help="Threads that a device will use."
)
@click.option("--json", "as_json", is_flag=True, help="Print report.json instead of a summary.")
def quantize(as_json: bool, **options: Any) -> int:  # noqa: FBT001  (click passes options by name)
    """Quantize MODEL to int8, prove on data that it still answers right and is faster, and write a bundle.

    MODEL is package.module:factory (a function that returns a torch.nn.Module), an .onnx file, or a .pt2 file that
    torch.export.save wrote.
    """
    request = _request(**options)
    try:
        from edgeopt.pipeline import run
        from edgeopt.report import report_json
    except ModuleNotFoundError as error:
        raise MissingExtraError(error.name or "onnx", "optimizer") from error
    from rich.console import Console

    with Console(stderr=True).status("starting") as status:
        outcome = run(request, lambda step: status.update(f"{step} …"))
    if as_json:
        click.echo(report_json(outcome.report).decode(), nl=False)
    else:
        _show(outcome, request.output)
    return int(_EXIT_CODES[outcome.report.verdict])


def _request(**options: Any) -> Request:
    """Return the request that the options make."""
    try:
        from edgeopt.files.reading import Reading
        from edgeopt.sources import DataSources
        from edgeopt.stages import Request
        from edgeopt.targets import read_target
    except ModuleNotFoundError as error:
        raise MissingExtraError(error.name or "onnx", "optimizer") from error
    labels = tuple(label.strip() for label in options["labels"].split(",") if label.strip())
    sources = DataSources(
        single=options["data"],
        calibration=options["calibration_data"],
        selection=options["selection_data"],
        certification=options["certification_data"],
        reading=Reading(
            shape=_parse_shape(options["input_shape"]), label_column=options["label_column"], labels=labels
        ),
    )
    return Request(
        model=options["model"],
        data=sources,
        output=options["output"],
        max_drop=parse_drop(options["max_drop"]),
        max_class_drop=_optional(options["max_class_drop"], lambda text: parse_drop(text, "--max-class-drop")),
        min_agreement=_optional(options["min_agreement"], parse_agreement),
        name=options["name"] or _default_name(options["model"]),
        version=options["version"],
        confidence=options["confidence"],
        metric=options["metric"],
        target=None if options["target"] is None else read_target(options["target"]),
        seed=options["seed"],
        labels=labels,
        threads=options["threads"],
    )


def _optional(text: str | None, parse: Callable[[str], float]) -> float | None:
    return None if text is None else parse(text)


def _default_name(model: str) -> str:
    """Return 'digits' for 'examples.digits:model', and 'net' for 'models/net.onnx'."""
    if model.endswith((".onnx", ".pt2")):
        return Path(model).stem
    return model.partition(":")[0].rpartition(".")[2]


def _show(outcome: Outcome, output: Path) -> None:
    """Print the verdict, the variants side by side, and where to read on."""
    from rich.console import Console
    from rich.table import Table

    from edgeopt.wording import Wording, milliseconds, size

    report = outcome.report
    console = Console(highlight=False)
    colour = {"PASS": "green", "FAIL": "red", "INCONCLUSIVE": "yellow"}[report.verdict]
    chosen = f": {report.chosen} is chosen" if report.chosen else ""
    console.print(f"[bold {colour}]{report.verdict}[/]{chosen}")
    for reason in report.reasons:
        console.print(f"  {reason}", markup=False, soft_wrap=True)
    words = Wording(report.is_share)
    titles = ("variant", "gate", report.variants[0].metric.name, "answers as fp32", "size", "latency", "times as fast")
    table = Table(*titles, box=None, pad_edge=False)
    for variant in report.variants:
        latency = variant.latency_ms
        table.add_row(
            variant.name,
            variant.verdict,
            words.score(variant.metric.value),
            Wording(is_share=True).score(variant.agreement),
            size(variant.size_bytes),
            milliseconds(latency.median),
            "not measured" if latency.ratio is None else f"{latency.ratio:.2f}",
        )
    console.print(table)
    if outcome.bundle is not None:
        console.print(f"bundle {outcome.bundle.digest}", soft_wrap=True)
    console.print(f"report {output / 'report.html'}", soft_wrap=True)
