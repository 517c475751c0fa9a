"""What runs inside the emulated CPU: one model over some samples, one sample at a time, as a device would.

A script of its own, run by path: the emulated system has NumPy and a runtime and no edgeopt. It reads the model and an
``.npz`` with entries ``<index>:<input name>``, writes an ``.npz`` with entries ``:<output name>``, and prints a line
when the model is loaded and one for each sample. Example::

    qemu-x86_64-static -cpu Haswell python worker.py onnxruntime 1 model.onnx samples.npz outputs.npz
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import numpy as np

__all__ = ["main"]

_Run = Callable[[dict[str, Any]], dict[str, Any]]


def main(arguments: list[str]) -> None:
    """Run the model. ``arguments``: runtime, number of threads, and the paths of model, samples and outputs."""
    runtime, threads, model, samples, outputs = arguments
    run = {"onnxruntime": _onnxruntime, "openvino": _openvino}[runtime](model, int(threads))
    print("loaded", flush=True)
    results = []
    with np.load(samples) as stored:
        for feeds in _feeds(stored):
            results.append(run(feeds))
            print("sample", flush=True)
    names = results[0].keys()
    joined: Any = {f":{name}": np.concatenate([result[name] for result in results]) for name in names}
    np.savez(outputs, **joined)


def _feeds(stored: Any) -> list[dict[str, Any]]:
    """Return the inputs of each sample, as batches of one."""
    feeds: dict[int, dict[str, Any]] = {}
    for key in stored.files:
        index, _, name = key.partition(":")
        feeds.setdefault(int(index), {})[name] = stored[key][None]
    return [feeds[index] for index in sorted(feeds)]


def _onnxruntime(model: str, threads: int) -> _Run:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3  # errors only
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    names = [node.name for node in session.get_outputs()]
    return lambda feeds: dict(zip(names, session.run(names, feeds), strict=True))


def _openvino(model: str, threads: int) -> _Run:
    import openvino

    core = openvino.Core()
    loaded = core.read_model(model)
    names = [port.get_any_name() for port in loaded.outputs]
    # f32: what is not quantized is computed as the device would, and not in bf16 where the emulated CPU offers it
    settings = {"INFERENCE_NUM_THREADS": threads, "INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY"}
    request = core.compile_model(loaded, "CPU", settings).create_infer_request()

    def run(feeds: dict[str, Any]) -> dict[str, Any]:
        results = request.infer(feeds)
        return {name: np.array(results[index]) for index, name in enumerate(names)}

    return run


if __name__ == "__main__":
    main(sys.argv[1:])
