"""What the runner does with a request: load a model, run it row by row and count, test it with the golden inputs.

Nothing here reads or writes a pipe. A request counts whole or not at all, after its last row ran: its rows before it is
answered, its features after that, so that nobody waits for them. Example::

    worker = Worker()
    worker.answer(Load(path="model.onnx", runtime="onnxruntime", threads=1, …), ())
    reply, outputs = worker.answer(Infer(heads_of(tensors)), tensors)
    worker.settle()                                  # when the reply has left
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

import numpy as np
import numpy.typing as npt

from edgeopt_agent.reports.counts import FEATURES, map_cells
from edgeopt_agent.runner.arrays import Array, Batch, array_of, fit_inputs, tensor_of
from edgeopt_agent.runner.frames import (
    Answer,
    Blame,
    Champion,
    Compare,
    Compared,
    Failed,
    Infer,
    Load,
    Loaded,
    Reply,
    Request,
    SelfTest,
    SelfTested,
    Settle,
    Settled,
    Tensor,
    heads_of,
)
from edgeopt_agent.runner.port import Model, Order, open_model
from edgeopt_agent.runner.referee import Referee
from edgeopt_agent.runner.selftest import compare, divergence, read_golden
from edgeopt_agent.runner.tally import Tally
from edgeopt_contract.agreement import class_feature
from edgeopt_contract.codec import decode
from edgeopt_contract.counting import ProfileCounter
from edgeopt_contract.errors import BundleError, DataError, MessageError, StorageError
from edgeopt_contract.features import ReferenceProfile
from edgeopt_contract.manifest import TensorSpec
from edgeopt_contract.values import digest_of

__all__ = ["Worker"]

_LONGEST_REASON = 500
_MEMORY_WORDS = ("bad_alloc", "bad allocation", "failed to allocate memory", "out of memory")


@dataclass(frozen=True, slots=True)
class _Loaded:
    model: Model
    inputs: tuple[TensorSpec, ...]
    golden: tuple[Path, str]  # file and variant
    tally: Tally
    referee: Referee | None  # of a challenger


class Worker:
    """Holds the model that is loaded."""

    def __init__(self) -> None:
        self._loaded: _Loaded | None = None
        self._uncounted: tuple[Batch, dict[str, Array]] | None = None  # the last request that was answered
        self._uncountable: Failed | None = None

    def answer(self, request: Request, tensors: Sequence[Tensor]) -> tuple[Reply, tuple[Tensor, ...]]:
        """Return what to say to ``request``, which came with ``tensors``; whatever goes wrong becomes a reply."""
        self.settle()
        try:
            if isinstance(request, Load):
                return self._load(request), ()
            if isinstance(request, Settle):
                return Settled(), ()
            if self._loaded is None:
                return Failed("no model is loaded", Blame.MODEL), ()
            if isinstance(request, Infer):
                return self._infer(self._loaded, tensors)
            if isinstance(request, Compare):
                return self._compare(self._loaded, request, tensors), ()
            return _test(self._loaded, request), ()
        except Exception as error:  # the process boundary: a runtime may raise anything
            return _failed(error), ()

    def settle(self) -> None:
        """Count the features of what was answered last. Where that fails, the next requests fail with the reason."""
        uncounted, self._uncounted = self._uncounted, None
        if uncounted is None or self._loaded is None:
            return
        batch, outputs = uncounted
        try:
            self._loaded.tally.count(batch, outputs)
        except Exception as error:  # as in answer; a bundle that cannot be counted is at fault after some requests
            self._uncountable = _failed(error)

    def _infer(self, loaded: _Loaded, tensors: Sequence[Tensor]) -> tuple[Reply, tuple[Tensor, ...]]:
        if self._uncountable is not None:
            return self._uncountable, ()
        batch = fit_inputs(loaded.inputs, tensors)
        outputs, times = _run_all(loaded, batch)
        answers = tuple(tensor_of(name, array[0] if batch.single else array) for name, array in outputs.items())
        nonfinite = loaded.tally.answered(batch.rows, outputs, times)
        self._uncounted = (batch, outputs)
        return Answer(heads_of(answers), sum(times), nonfinite), answers

    def _compare(self, loaded: _Loaded, request: Compare, tensors: Sequence[Tensor]) -> Reply:
        if self._uncountable is not None:
            return self._uncountable
        if loaded.referee is None:
            return Failed("no champion to compare with was named", Blame.MODEL)
        count = len(request.heads)
        batch = fit_inputs(loaded.inputs, tensors[:count])
        outputs, times = _run_all(loaded, batch)
        expected = {tensor.name: array_of(tensor) for tensor in tensors[count:]}
        if batch.single:
            expected = {name: array[np.newaxis] for name, array in expected.items()}
        loaded.referee.judge(batch.rows, expected, outputs, request.microseconds)
        nonfinite = loaded.tally.answered(batch.rows, outputs, times)
        self._uncounted = (batch, outputs)
        return Compared(nonfinite)

    def _load(self, request: Load) -> Loaded:
        data = Path(request.path).read_bytes()  # one reading: what is hashed is what is loaded
        names = tuple(spec.name for spec in request.inputs)
        order = Order(data=data, threads=request.threads, inputs=names, outputs=request.outputs)
        model = open_model(request.runtime, order)
        cells = np.frombuffer(map_cells(Path(request.counts)), dtype=np.int64)
        try:
            profile = decode(ReferenceProfile, Path(request.profile).read_bytes())
            end = FEATURES + sum(feature.spec.cells for feature in profile.features)
            counter = ProfileCounter(profile.features, cells[FEATURES : end if request.champion else None])
        except (OSError, MessageError, ValueError) as error:
            raise BundleError(f"the profile cannot be counted: {error}") from error
        place = (Path(request.golden), request.variant)
        golden = read_golden(*place)
        finite = frozenset(name for name, array in golden.outputs.items() if np.isfinite(array).all())
        self._uncountable = None
        champion = request.champion
        referee = None if champion is None else _referee(champion, profile, cells[end:])
        self._loaded = _Loaded(model, request.inputs, place, Tally(cells, counter, finite), referee)
        return Loaded(digest_of(data), model.inputs, model.outputs)


def _referee(champion: Champion, profile: ReferenceProfile, cells: npt.NDArray[np.int64]) -> Referee:
    golden = read_golden(Path(champion.golden), champion.variant)
    return Referee(class_feature(feature.spec for feature in profile.features), golden.outputs, cells)


def _test(loaded: _Loaded, request: SelfTest) -> SelfTested:
    golden = read_golden(*loaded.golden)  # read again: kept, it would take the memory of some pictures
    batch = Batch(golden.inputs, golden.samples, single=False)
    rows = list(_run(loaded, batch))
    times = [microseconds for _, microseconds in rows]
    try:
        got = _joined([outputs for outputs, _ in rows])
    except DataError as error:
        return SelfTested([str(error)], times)
    problems = compare(golden.outputs, got, request.tolerance)
    return SelfTested(problems, times, divergence(golden.outputs, got, request.tolerance))


def _run_all(loaded: _Loaded, batch: Batch) -> tuple[dict[str, Array], list[float]]:
    """Return the outputs of all rows, and how many microseconds each row took."""
    rows = list(_run(loaded, batch))
    return _joined([outputs for outputs, _ in rows]), [microseconds for _, microseconds in rows]


def _run(loaded: _Loaded, batch: Batch) -> Iterator[tuple[dict[str, Array], float]]:
    """Run row by row: a model may have been made for a batch of one, and so it was certified."""
    for row in range(batch.rows):
        inputs = {name: array[row : row + 1] for name, array in batch.arrays.items()}
        start = perf_counter()
        outputs = loaded.model.run(inputs)
        yield outputs, (perf_counter() - start) * 1e6
        loaded.tally.ran()


def _joined(rows: list[dict[str, Array]]) -> dict[str, Array]:
    if len(rows) == 1:
        return rows[0]
    try:
        return {name: np.concatenate([row[name] for row in rows]) for name in rows[0]}
    except ValueError as error:
        raise DataError(f"the outputs change their shape from sample to sample; send them singly: {error}") from error


def _failed(error: Exception) -> Failed:
    reason = f"{type(error).__name__}: {error}"[:_LONGEST_REASON]
    if isinstance(error, DataError):
        return Failed(str(error)[:_LONGEST_REASON], Blame.INPUT)
    if isinstance(error, BundleError):
        return Failed(str(error)[:_LONGEST_REASON], Blame.BUNDLE)
    if isinstance(error, MemoryError) or any(words in reason.lower() for words in _MEMORY_WORDS):
        return Failed(reason, Blame.MEMORY)
    if isinstance(error, StorageError):
        return Failed(str(error)[:_LONGEST_REASON], Blame.DISK)
    return Failed(reason, Blame.MODEL)
