"""Runtimes in a process of their own, which may die: then the variant is refused with a reason, and the run goes on.

OpenVINO 2026.4 writes beyond its memory with some int8 networks on AVX2 and dies of a signal, which no exception
catches. ONNX Runtime, which runs the float model in this process anyway, stays here; any other runtime answers samples
in a child (:mod:`edgeopt.runtimes.child`), one for each loaded model. Two models are timed in one child, both of them
there, by the same code as here: no time of a message is in the ratio. A child dies with this process, and is ended
when it gives no sign of life for as long as ``PATIENCE``. Example::

    open_apart(model, RuntimeName.OPENVINO, threads=1).predict(samples)["logits"].shape          # (n, 10)
    estimate(compare((fp32, variant), feeds, Plan())).ratio_low
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
import threading
import time
import weakref
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from multiprocessing.connection import Connection, Pipe
from typing import IO, Any

import numpy as np

from edgeopt.recipe import RuntimeName
from edgeopt.runtimes.child import ALIVE, Describe, Load, Predict, Refused, Request, Time
from edgeopt.runtimes.port import Predictor, open_session
from edgeopt.samples import Array, Sample, chunks
from edgeopt.timing import Plan, Times, loader, measure
from edgeopt_contract.errors import ModelError
from edgeopt_contract.manifest import TensorSpec

__all__ = ["COMMAND", "PATIENCE", "ApartSession", "compare", "open_apart"]

# not with -m: what the child sends would be of its __main__, which is another module here
_PROGRAM = "import sys; from edgeopt.runtimes.child import main; main(sys.argv[1:])"
COMMAND: tuple[str, ...] = (sys.executable, "-P", "-c", _PROGRAM)
PATIENCE = 300.0  # seconds without a sign of life; loading a large model on a busy machine takes a minute
_TITLES = {RuntimeName.ONNXRUNTIME: "ONNX Runtime", RuntimeName.OPENVINO: "OpenVINO", RuntimeName.LITERT: "LiteRT"}
_AT_ONCE = 32  # samples in one message: all of them would be in memory three times


def open_apart(model: bytes, runtime: RuntimeName, *, threads: int, simulated: bool = False) -> Predictor:
    """Load ``model`` as :func:`~edgeopt.runtimes.port.open_session` does, but let nothing but ONNX Runtime do it here.

    Raises :class:`ModelError`, also when the child dies, now or with any answer.
    """
    if simulated or runtime is RuntimeName.ONNXRUNTIME:
        return open_session(model, runtime, threads=threads, simulated=simulated)
    return ApartSession(model, runtime, threads=threads)


def compare(pair: tuple[Load, Load], feeds: Sequence[dict[str, Array]], plan: Plan) -> Times:
    """Time two models in turn, the baseline first; in a child unless ONNX Runtime runs both.

    ``feeds``: one sample each (:func:`edgeopt.samples.stack`). Raises :class:`ModelError`, also when the child dies.
    """
    apart = [one.runtime for one in pair if one.runtime is not RuntimeName.ONNXRUNTIME]
    if not apart:
        openers = [partial(open_session, one.model, one.runtime, threads=one.threads) for one in pair]
        return measure(loader(openers, feeds), time.perf_counter, plan)
    times: Times = _Child(apart[-1]).ask(Time(pair, feeds, plan), "it was timed")
    return times


class ApartSession:
    """A model that is loaded in a child. The first axis of every input and output is the batch."""

    def __init__(self, model: bytes, runtime: RuntimeName, *, threads: int) -> None:
        """Start the child and load ``model`` there. Raises :class:`ModelError`."""
        self._child = _Child(runtime)
        load = Load(model=model, runtime=runtime, threads=threads)
        self._inputs: Mapping[str, tuple[str, tuple[int | None, ...]]] = self._child.ask(load, "it loaded the model")

    @property
    def inputs(self) -> Mapping[str, tuple[str, tuple[int | None, ...]]]:
        """Dtype and shape of each input without batch dimension; ``None`` is any length."""
        return self._inputs

    def predict(self, samples: Sequence[Sample]) -> dict[str, Array]:
        """Return each output for all ``samples``, first axis samples. Raises :class:`ModelError`."""
        return self._predict(samples, singly=False)

    def predict_singly(self, samples: Sequence[Sample]) -> dict[str, Array]:
        """Return the same, one sample at a time: exactly what a device computes."""
        return self._predict(samples, singly=True)

    def specs(self, sample: Sample) -> tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]]:
        """Return the model's inputs and outputs as they are for ``sample``."""
        specs: tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]]
        specs = self._child.ask(Describe(Sample(sample.inputs, None)), "it answered samples")
        return specs

    def _predict(self, samples: Sequence[Sample], *, singly: bool) -> dict[str, Array]:
        parts: list[dict[str, Array]] = []
        for chunk in chunks(samples, _AT_ONCE):
            unlabelled = [Sample(sample.inputs, None) for sample in chunk]
            parts.append(self._child.ask(Predict(unlabelled, singly), "it answered samples"))
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


class _Child:
    """A process for one runtime, and the connection to it. It ends with this object at the latest."""

    def __init__(self, runtime: RuntimeName) -> None:
        self._title = _TITLES[runtime]
        self._printed = tempfile.TemporaryFile()  # noqa: SIM115  (open as long as the child)
        self._connection, theirs = Pipe()
        with theirs:
            self._process = subprocess.Popen(
                [*COMMAND, str(theirs.fileno()), str(os.getpid())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=self._printed,
                stderr=self._printed,
            )
        self.end = weakref.finalize(self, _end, self._process, self._connection, self._printed)

    def ask(self, request: Request, doing: str) -> Any:
        """Return the answer; ``doing`` says in words what was done when it died. Raises :class:`ModelError`."""
        try:
            self._bounded(partial(self._connection.send, request), doing)
            while (reply := self._bounded(self._connection.recv, doing)) == ALIVE:
                pass
        except ModelError:
            raise
        except Exception as error:  # it is gone, or its memory is spoilt and so is what it sent
            raise self._died(doing) from error
        except BaseException:  # interrupted: what would still come answers no question
            self.end()
            raise
        if isinstance(reply, Refused):
            raise ModelError(reply.reason)
        return reply.value

    def _bounded(self, step: Callable[[], Any], doing: str) -> Any:
        """Return what ``step`` gives, which fails when it takes longer than the patience: the child is gone then."""
        late, process = threading.Event(), self._process  # not self: the timer's thread ends a little later

        def lose_patience() -> None:
            late.set()
            process.kill()

        timer = threading.Timer(PATIENCE, lose_patience)
        timer.daemon = True
        timer.start()
        try:
            return step()
        except (EOFError, OSError) as error:
            if late.is_set():
                self.end()
                reason = f"{self._title} gave no sign of life for {PATIENCE:g} s while {doing}"
                raise ModelError(f"{reason}; the variant is left out") from error
            raise
        finally:
            timer.cancel()

    def _died(self, doing: str) -> ModelError:
        """Return the error that says how the child ended."""
        self._connection.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(PATIENCE)
        code = self._process.poll() or 0
        how = f"died of signal {-code}" if code < 0 else f"ended with exit code {code}{self._last_words()}"
        self.end()
        return ModelError(f"{self._title} {how} while {doing}; the variant is left out")

    def _last_words(self) -> str:
        """Return the last line that the child printed: of a traceback, the error."""
        self._printed.seek(0)
        lines = self._printed.read().decode(errors="replace").strip().splitlines()
        return f" ({lines[-1].strip()})" if lines else ""


def _end(process: subprocess.Popen[bytes], connection: Connection, printed: IO[bytes]) -> None:
    printed.close()
    connection.close()
    process.kill()
    process.wait()
