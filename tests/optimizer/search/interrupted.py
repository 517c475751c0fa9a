"""``edgeopt optimize`` in a process of its own that kills itself, with a stopwatch that says the same in each run.

Called as ``python interrupted.py LOG POINT ARGUMENTS…``. POINT is where ``kill -9`` strikes: ``training-3`` (the third
step of training), ``append-3`` (half of the third line of the journal is written), ``answer-4`` (the fourth answer is
known, and nowhere written), ``writing`` (the result), or ``never``. LOG gets a line for each answer that is worked out
and each pruning that begins. A variant is the faster, the smaller it is.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from edgeopt import pipeline
from edgeopt.cli import main
from edgeopt.pruning import search, speed
from edgeopt.search import laboratory, pruned
from edgeopt.search.journal import Entry, Journal
from edgeopt.timing import Times

LOG, POINT = Path(sys.argv[1]), sys.argv[2]


class Fate:
    """Counts what happens, and strikes at the point."""

    def __init__(self) -> None:
        """Nothing happened yet."""
        self.seen: dict[str, int] = {}

    def comes(self, what: str) -> bool:
        """Count; tell whether this is the point."""
        self.seen[what] = self.seen.get(what, 0) + 1
        return POINT in (what, f"{what}-{self.seen[what]}")


FATE = Fate()


def die() -> None:
    """End at once, as by ``kill -9``."""
    os.kill(os.getpid(), signal.SIGKILL)


def note(words: str) -> None:
    """Add a line to the log."""
    with LOG.open("a") as log:
        log.write(f"{words}\n")


def by_size(original: bytes, variant: bytes) -> Times:
    """Return times after which the ratio is the root of that of the sizes."""
    ratio = (len(original) / len(variant)) ** 0.5
    return Times(((0.002,),) * 16, ((0.002 / ratio,),) * 16)


def append(self: Journal, entry: Entry, whole: Callable[[Journal, Entry], None] = Journal.append) -> None:
    """Write half a line and die, or a whole one."""
    if FATE.comes("append"):
        line = msgspec.json.encode(entry)
        with self._path.open("ab") as file:
            file.write(line[: len(line) // 2])
        die()
    whole(self, entry)


def answer(self: Any, request: Any, work: Any = laboratory.Laboratory.answer) -> Any:
    """Work out an answer, and perhaps die of it."""
    note(f"answer {request.kind} {request.recipe.title}")
    found = work(self, request)
    if FATE.comes("answer"):
        die()
    return found


def prune(*given: Any, on_progress: Any, work: Any = pruned.prune, **more: Any) -> Any:
    """Prune, and perhaps die in training."""
    note("prune")

    def told(words: str, done: int, total: int) -> None:
        if words.startswith("training") and FATE.comes("training"):
            die()
        on_progress(words, done, total)

    return work(*given, on_progress=told, **more)


def write_run(*given: Any, work: Any = pipeline.write_run) -> Any:
    """Write the result, unless it strikes before."""
    if FATE.comes("writing"):
        die()
    return work(*given)


search.STEPS = 4  # a few widths to choose from are enough here, and each is exported
speed.loader = lambda openers, feeds: openers
speed.measure = lambda openers, clock, plan: by_size(*(opener.args[0] for opener in openers))
pipeline.compare = lambda pair, feeds, plan: by_size(*(one.model for one in pair))
laboratory.saved_ms = lambda *given, **more: {}
laboratory.measure_nodes = lambda *given, **more: ({}, {})
laboratory.islands = lambda *given: ()
Journal.append = append
laboratory.Laboratory.answer = answer
pruned.prune = prune
pipeline.write_run = write_run
sys.argv = ["edgeopt", *sys.argv[3:]]
if __name__ == "__main__":
    main()
