"""The options that ``quantize`` and ``optimize`` share, and the request that they make.

Example::

    @shared_options
    def quantize(as_json: bool, **options): request_of(options, Effort())
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from edgeopt.cli.number_options import Within, confidence_option
from edgeopt.cli.parsing import parse_agreement, parse_drop, parse_shape
from edgeopt.cli.tracking_options import tracking_options
from edgeopt.recipe import RuntimeName
from edgeopt_contract.errors import MissingExtraError

if TYPE_CHECKING:
    from edgeopt.stages import Effort, Request

__all__ = ["data_options", "gate_options", "request_of", "runtimes_of", "shared_options"]

T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., Any])


def _stacked(*options: Callable[[F], F]) -> Callable[[F], F]:
    """Return one decorator that applies ``options`` so that --help lists them in this order."""

    def decorate(function: F) -> F:
        for option in reversed(options):
            function = option(function)
        return function

    return decorate


data_options = _stacked(
    click.option("--data", metavar="DATA", help="Factory, .npz, table or folder of class folders; edgeopt splits it."),
    click.option("--calibration-data", metavar="DATA", help="Your own three splits, instead of --data ..."),
    click.option("--selection-data", metavar="DATA", help="... all three must be given ..."),
    click.option("--certification-data", metavar="DATA", help="... and must not share a sample."),
    click.option(
        "--label-column", default="label", show_default=True, metavar="NAME", help="Of a CSV or Parquet table."
    ),
    click.option("--tokens", metavar="COLUMN[,pad=ID]", help="The column of token ids in a table; see the guide."),
    click.option("--input-shape", metavar="SHAPE", help="Of one sample, as 3x224x224, if MODEL does not fix it."),
)
gate_options = _stacked(
    click.option("--max-drop", required=True, metavar="POINTS", help="Greatest drop of the metric: 1%, 1pp or 0.01."),
    click.option("--max-class-drop", metavar="POINTS", help="Greatest drop of any class, by integer labels: 5%."),
    click.option("--min-agreement", metavar="SHARE", help="Least share of answers equal to the float model's: 95%."),
    confidence_option,
    click.option(
        "--metric", default="accuracy", show_default=True, help="accuracy, agreement or package.module:function."
    ),
)
_result_options = _stacked(
    click.option(
        "--target",
        "targets",
        multiple=True,
        type=click.Path(path_type=Path),
        help="Device profile (TOML); may be given several times. Default: this machine.",
    ),
    click.option(
        "--runtime",
        "runtimes",
        multiple=True,
        type=click.Choice([str(name) for name in RuntimeName]),
        help="Runtimes to choose from by measuring. Default: the target's; for this machine onnxruntime.",
    ),
    click.option(
        "--emulator",
        type=click.Path(path_type=Path, file_okay=False, exists=True),
        help="Where 'edgeopt emulator build' put its systems. Default: $EDGEOPT_EMULATOR, or the cache.",
    ),
    click.option(
        "--emulator-seconds",
        type=Within(min=1),
        default=300.0,
        show_default=True,
        help="For one variant on an emulated CPU: where that is too little, integers are simulated.",
    ),
    click.option("-o", "--output", type=click.Path(path_type=Path), required=True, help="Directory to write."),
    click.option("--name", help="Name of the bundle. Default: from MODEL."),
    click.option("--version", "version", default="1", show_default=True, help="Version of the bundle."),
    click.option("--labels", default="", metavar="A,B,C", help="Names of the classes, in order."),
    click.option("--preprocess", type=click.Path(path_type=Path), help="Steps (TOML) to fold into the graph."),
    click.option("--seed", default=0, show_default=True, help="Draws the splits."),
    click.option(
        "--threads", type=click.IntRange(1, 256), default=1, show_default=True, help="Threads that a device will use."
    ),
    tracking_options,
    click.option("--json", "as_json", is_flag=True, help="Print report.json instead of a summary."),
)
shared_options = _stacked(data_options, gate_options, _result_options)


def request_of(options: Mapping[str, Any], effort: Effort) -> Request:
    """Return the request that the options make. Raises :class:`UsageError`."""
    try:
        from edgeopt.files.reading import Reading
        from edgeopt.files.tokens import parse_tokens
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
            shape=parse_shape(options["input_shape"]),
            label_column=options["label_column"],
            labels=labels,
            tokens=_optional(options["tokens"], parse_tokens),
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
        targets=tuple(read_target(path) for path in options["targets"]),
        seed=options["seed"],
        labels=labels,
        threads=options["threads"],
        preprocess=options["preprocess"],
        effort=effort,
        emulator=options["emulator"],
        emulator_seconds=options["emulator_seconds"],
    )


def runtimes_of(options: Mapping[str, Any]) -> tuple[RuntimeName, ...]:
    """Return the runtimes that are asked for; none: those of the target."""
    return tuple(RuntimeName(name) for name in options["runtimes"])


def _optional(text: str | None, parse: Callable[[str], T]) -> T | None:
    return None if text is None else parse(text)


def _default_name(model: str) -> str:
    """Return 'digits' for 'examples.digits:model', and 'net' for 'models/net.onnx'."""
    if model.endswith((".onnx", ".pt2")):
        return Path(model).stem
    if model.startswith("models:/"):
        return model.removeprefix("models:/").partition("/")[0]
    return model.partition(":")[0].rpartition(".")[2] if ":" in model else Path(model).name
