"""A runtime that dies ends one variant and nothing else: the search goes on, remembers it, and says so."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edgeopt import certification, pipeline
from edgeopt.explain import explain
from edgeopt.pipeline import Watcher, run
from edgeopt.recipe import RuntimeName
from edgeopt.results import TrialResult
from edgeopt.runtimes import apart
from edgeopt.runtimes.apart import open_apart
from edgeopt.runtimes.child import Load
from edgeopt.sources import DataSources
from edgeopt.stages import Effort, Request
from edgeopt.timing import Times
from edgeopt_contract.errors import MissingExtraError, ModelError

DOOMED = Path(__file__).parents[1] / "runtimes" / "doomed_child.py"
REASON = "OpenVINO died of signal 11 while it answered samples; the variant is left out"


def _request(folder: Path) -> Request:
    return Request(
        output=folder / "out",
        model="edgeopt_zoo:digits",
        data=DataSources(single="edgeopt_zoo:digits_data"),
        max_drop=0.02,
        name="net",
        effort=Effort(runtimes=(RuntimeName.ONNXRUNTIME, RuntimeName.OPENVINO), journal=folder / "search"),
    )


def _elsewhere(trials: tuple[TrialResult, ...]) -> list[TrialResult]:
    return [trial for trial in trials if trial.recipe.runtime is RuntimeName.OPENVINO]


def test_a_search_goes_on_and_does_not_try_it_again(
    tmp_path: Path, stopwatch: Callable[[float], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed after the search and begun again, it has the reason from the journal; the report and explain have it."""
    stopwatch(1.5)
    monkeypatch.setattr(apart, "COMMAND", (sys.executable, str(DOOMED), "predict", "segv"))

    def killed(*_given: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(pipeline, "certify", killed)
        with pytest.raises(KeyboardInterrupt):
            run(_request(tmp_path), Watcher())
    monkeypatch.setattr(apart, "COMMAND", ("no such program",))
    result = run(_request(tmp_path), Watcher()).result
    (target,) = result.targets
    died = _elsewhere(target.trials)
    assert died
    assert {REASON} == {trial.problem for trial in died}
    assert ("PASS", "int8") == (target.verdict, target.chosen)
    assert f"{died[0].title}: {REASON}" in explain(result)
    assert REASON in (tmp_path / "out" / "report.html").read_text()


def test_what_dies_in_certification_gives_way_to_the_next_best(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A fault of memory may strike late: the first choice is left out with the reason, and another one is judged."""

    def compared(pair: tuple[Load, Load], *_given: Any) -> Times:
        ratio = 2.0 if pair[1].runtime is RuntimeName.OPENVINO else 1.5
        return Times(((0.002,),) * 15, ((0.002 / ratio,),) * 15)

    monkeypatch.setattr(pipeline, "compare", compared)

    def opened(model: bytes, runtime: RuntimeName, **options: Any) -> Any:
        if runtime is RuntimeName.OPENVINO:
            raise ModelError(REASON)
        return open_apart(model, runtime, **options)

    monkeypatch.setattr(certification, "open_apart", opened)
    (target,) = run(_request(tmp_path), Watcher()).result.targets
    lost = [trial for trial in _elsewhere(target.trials) if trial.problem == REASON]
    assert lost
    assert f"{lost[0].title}: {REASON}" in target.reasons
    assert (None, None) == (lost[0].speed, lost[0].agreement)
    assert ("PASS", "int8") == (target.verdict, target.chosen)


def test_a_fault_of_onnxruntime_is_the_runs(
    tmp_path: Path, stopwatch: Callable[[float], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It computes the baseline as well: nothing is left to fall back on."""
    stopwatch(1.5)

    def opened(*_given: Any, **_options: Any) -> Any:
        raise ModelError("it cannot")

    monkeypatch.setattr(certification, "open_apart", opened)
    request = Request(
        output=tmp_path / "out",
        model="edgeopt_zoo:digits",
        data=DataSources(single="edgeopt_zoo:digits_data"),
        max_drop=0.02,
        name="net",
    )
    with pytest.raises(ModelError, match="it cannot"):
        run(request, Watcher())


def test_a_runtime_that_is_not_installed_is_refused_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It would be left out without a word."""
    monkeypatch.setattr(pipeline, "available", lambda: {RuntimeName.ONNXRUNTIME: "1.20"})
    with pytest.raises(MissingExtraError, match=r"pip install 'edgeopt\[openvino\]'"):
        run(_request(tmp_path), Watcher())
