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
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.sweep.bench import Bench, Outcome
from tests.sweep.forked import load_ahead

__all__ = ["main"]

_TRIES = 3


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
            return _until_reached(lambda: bench.kill(order["number"]))
        case "fail":
            return _until_reached(lambda: bench.fail(order["number"], order["error"]))
        case "cut":
            return _until_reached(lambda: bench.cut(order["number"]))
    raise ValueError(f"unknown order {order}")


def _until_reached(disturb: Callable[[], Outcome]) -> Any:
    """Disturb; again, a few times, when the call is not reached: a run may end a call short of the recorded one."""
    outcomes = (disturb() for _ in range(_TRIES))
    reached = next((outcome for outcome in outcomes if outcome.way != "not reached"), None)
    return dataclasses.asdict(reached or Outcome(way="not reached", faults=[f"not reached in {_TRIES} runs"]))


if __name__ == "__main__":
    main()
