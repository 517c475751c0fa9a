"""``edgeopt quantize``: a certified int8 bundle by the shortest way. It reads options and shows what came of them.

Example::

    edgeopt quantize examples.digits:model --data examples.digits:data --max-drop 1% -o build/digits
"""

from __future__ import annotations

from typing import Any

import click

from edgeopt.cli.request_options import request_of, runtimes_of, shared_options
from edgeopt_contract.errors import MissingExtraError

__all__ = ["quantize"]

_EPILOG = """\b
Example:
  edgeopt quantize examples.digits:model --data examples.digits:data --max-drop 1% -o build/digits
  edgeopt quantize model.onnx --data samples.npz --metric agreement --max-drop 2% -o build/model
  edgeopt quantize my.net:model --data my.net:data --max-drop 1% --max-class-drop 5% --min-agreement 95% -o build/net
  edgeopt quantize model.onnx --data pictures/ --max-drop 1% -o build/model
  edgeopt quantize model.pt2 --data table.csv --label-column species --max-drop 1% -o build/model
  edgeopt quantize my.net:model --data my.net:data --max-drop 1% --target devices/raspberry-pi-5.toml \\
      --target devices/x86-avx2.toml -o build/fleet

\b
A data factory yields (inputs, label) pairs: inputs is an array, or a dict of arrays, without batch dimension.
Files: .npz with x and y; .csv or .parquet with a label column; a folder with one folder of pictures or WAV files for
each class. See docs/guides/quantize.md for how they are read.
Exit codes: 0 PASS, 3 FAIL, 4 INCONCLUSIVE (more samples needed), 2 bad input, 1 the disk.
"""


@click.command(epilog=_EPILOG)
@click.argument("model")
@shared_options
def quantize(as_json: bool, **options: Any) -> int:  # noqa: FBT001  (click passes options by name)
    """Quantize MODEL to int8, prove on data that it still answers right and is faster, and write a bundle.

    MODEL is package.module:factory (a function that returns a torch.nn.Module), an .onnx file, a .pt2 file that
    torch.export.save wrote, a directory of edgeopt prune, or models:/name/version of MLflow.
    """
    try:
        from edgeopt.cli.outcome import finish, watching
        from edgeopt.pipeline import run
        from edgeopt.stages import Effort
    except ModuleNotFoundError as error:
        raise MissingExtraError(error.name or "onnx", "optimizer") from error
    request = request_of(options, Effort(runtimes=runtimes_of(options)))
    with watching() as watcher:
        outcome = run(request, watcher)
    return finish(outcome, options, as_json=as_json)
