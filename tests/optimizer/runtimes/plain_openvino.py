"""OpenVINO in a plain process: answers ``inputs.npz`` with ``model.onnx`` and writes ``outputs.npz`` beside them.

``python plain_openvino.py <folder>``. Outputs are called ``together/<name>`` (one batch after the other) and
``singly/<name>`` (one sample after the other).
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from edgeopt.recipe import RuntimeName
from edgeopt.runtimes.port import open_session
from edgeopt.samples import Sample


def main(folder: Path) -> None:
    """Answer the inputs that lie in ``folder``."""
    with np.load(folder / "inputs.npz") as inputs:
        columns = dict(inputs)
    count = len(next(iter(columns.values())))
    samples = [Sample({name: column[index] for name, column in columns.items()}, 0) for index in range(count)]
    session = open_session((folder / "model.onnx").read_bytes(), RuntimeName.OPENVINO, threads=1)
    asked = {"together": session.predict(samples), "singly": session.predict_singly(samples)}
    outputs = {f"{how}/{name}": array for how, answers in asked.items() for name, array in answers.items()}
    np.savez(folder / "outputs.npz", **outputs)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
