"""A process that works through points of the sweep: JSON orders in on standard input, JSON outcomes out.

It has one thread and imports the agent once. Example::

    python -m tests.sweep.worker ROOT cam-1 1883
"""

from __future__ import annotations

import base64
import dataclasses
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

from tests.sweep.bench import Bench
from tests.sweep.forked import load_ahead

__all__ = ["main"]


def main() -> None:
    """Work until the input ends."""
    root, device, port = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})
    plan = json.loads((root / "plan.json").read_text())
    offers = {job: base64.b64decode(offer) for job, offer in plan["offers"].items()}
    bench = Bench(root, device, port, (plan["old"], plan["new"]), offers)
    load_ahead()
    for line in sys.stdin:
        print(json.dumps(_carry_out(bench, json.loads(line))), file=answers, flush=True)


def _carry_out(bench: Bench, order: dict[str, Any]) -> Any:
    match order["do"]:
        case "record":
            return [dataclasses.asdict(call) for call in bench.record()]
        case "kill":
            return dataclasses.asdict(bench.kill(order["number"]))
        case "fail":
            return dataclasses.asdict(bench.fail(order["number"], order["error"]))
        case "cut":
            return dataclasses.asdict(bench.cut(order["number"]))
    raise ValueError(f"unknown order {order}")


if __name__ == "__main__":
    main()
