"""What runs in a process of its own: one model that answers samples, or two that are timed in turn.

A runtime may end its process: a native library that writes beyond its memory is not to be caught as an exception. So
the process that may end is this one, and :mod:`edgeopt.runtimes.apart` starts it. It takes one request after the other
from a connection, and says between the repetitions of a measurement that it is alive. Example::

    main(["5", "4711"])          # the descriptor of the connection, and the pid of the parent
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from multiprocessing.connection import Connection
from typing import Any, Protocol

from edgeopt.emulation.leash import tie
from edgeopt.recipe import RuntimeName
from edgeopt.runtimes.port import Session, open_session
from edgeopt.samples import Array, Sample
from edgeopt.timing import Plan, Run, Times, loader, measure
from edgeopt_contract.errors import EdgeoptError

__all__ = ["ALIVE", "Answered", "Describe", "Load", "Opener", "Predict", "Refused", "Request", "Time", "main", "serve"]

ALIVE = "alive"  # comes before an answer, any number of times


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """Load a model. Answered with its inputs, as :attr:`edgeopt.runtimes.port.Predictor.inputs`."""

    model: bytes
    runtime: RuntimeName
    threads: int


@dataclass(frozen=True, slots=True)
class Predict:
    """Answer samples with the model that was loaded last. Answered with the outputs."""

    samples: Sequence[Sample]
    singly: bool


@dataclass(frozen=True, slots=True)
class Describe:
    """Say what that model takes and gives. Answered with the specs of its inputs and outputs."""

    sample: Sample


@dataclass(frozen=True, slots=True)
class Time:
    """Load two models and time them in turn, here, so that nothing but they is in it. Answered with the times."""

    pair: tuple[Load, Load]
    feeds: Sequence[dict[str, Array]]
    plan: Plan


Request = Load | Predict | Describe | Time


@dataclass(frozen=True, slots=True)
class Answered:
    """What came of a request."""

    value: Any


@dataclass(frozen=True, slots=True)
class Refused:
    """Why nothing came of it, in words: an error of edgeopt's own."""

    reason: str


class Opener(Protocol):
    """Loads a model; :func:`~edgeopt.runtimes.port.open_session` does."""

    def __call__(self, model: bytes, runtime: RuntimeName, *, threads: int) -> Session:
        """Return the loaded model. Raises :class:`ModelError`."""


@dataclass(slots=True)
class _Service:
    """Answers requests, with the model that was loaded last."""

    opener: Opener
    alive: Callable[[], None]
    loaded: list[Session] = field(default_factory=list)

    def answer(self, request: Request) -> Any:
        """Return what was asked for. Raises errors of edgeopt."""
        match request:
            case Load():
                self.loaded = [self._open(request)]
                return dict(self.loaded[0].inputs)
            case Predict(samples, singly):
                session = self.loaded[0]
                return session.predict_singly(samples) if singly else session.predict(samples)
            case Describe(sample):
                return self.loaded[0].specs(sample)
            case Time():
                return self._time(request)

    def _open(self, what: Load) -> Session:
        return self.opener(what.model, what.runtime, threads=what.threads)

    def _time(self, request: Time) -> Times:
        load = loader([partial(self._open, one) for one in request.pair], request.feeds)

        def load_alive(repetition: int) -> list[tuple[Run, ...]]:
            self.alive()
            return load(repetition)

        return measure(load_alive, time.perf_counter, request.plan)


def serve(connection: Connection, opener: Opener = open_session) -> None:
    """Answer requests until the other side is gone. Raises what is no error of edgeopt's, which ends the process."""
    service = _Service(opener, lambda: connection.send(ALIVE))
    while True:
        try:
            request = connection.recv()
        except EOFError:
            return
        try:
            reply: Answered | Refused = Answered(service.answer(request))
        except EdgeoptError as error:
            reply = Refused(str(error))
        connection.send(reply)


def main(arguments: Sequence[str], opener: Opener = open_session) -> None:
    """Serve the connection of which ``arguments`` name the descriptor, for as long as the parent lives."""
    descriptor, parent = map(int, arguments)
    if sys.platform == "linux":  # elsewhere it ends when it next looks at the connection
        tie(parent)
    serve(Connection(descriptor), opener)
    os._exit(0)  # nobody waits for what the runtime would still clear away
