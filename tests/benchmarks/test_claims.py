"""What the comparison claims must follow from its rows, and every claim must be able to fail."""

from __future__ import annotations

import dataclasses
import json
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.optimizer.cases import CASES
from benchmarks.optimizer.claims import (
    Held,
    beats,
    claims,
    keeps,
    less_accurate,
    matches,
    slower,
    strictly_best,
)
from benchmarks.optimizer.plot import svg
from benchmarks.optimizer.record import Record
from benchmarks.optimizer.rows import EDGEOPT, Figures, Row, table


def figures(ratio: float, agreement: float = 0.99, **changes: Any) -> Figures:
    """Return figures whose interval is two hundredths wide."""
    return Figures(
        runtime="onnxruntime",
        agreement=agreement,
        score=changes.pop("score", 0.95),
        size_bytes=changes.pop("size_bytes", 400),
        fp32_ms=1.0,
        milliseconds=1 / ratio,
        ratio=ratio,
        ratio_low=ratio - 0.01,
        ratio_high=ratio + 0.01,
        **changes,
    )


def row(tool: str, found: Figures | None, case: str = "digits", problem: str | None = None) -> Row:
    """Return a row of 1,000 certification samples."""
    return Row(
        case=case,
        tool=tool,
        samples=1000,
        fp32_score=0.95,
        fp32_bytes=1000,
        seconds=3.0,
        figures=found,
        problem=problem,
    )


OURS = figures(2.0)


def words_of(rows: list[Row], about: str) -> tuple[Held, str]:
    """Return the claim that has ``about`` in it."""
    (found,) = (claim for claim in claims(rows, CASES) if about in claim.words)
    return found.held, found.words


@pytest.mark.parametrize(
    ("expected", "right_alone", "other_alone"),
    [(False, 0, 0), (False, 0, 4), (True, 0, 5), (False, 5, 0), (False, 10, 15), (True, 100, 150)],
)
def test_accuracy_differs_only_when_the_samples_can_tell(*, expected: bool, right_alone: int, other_alone: int) -> None:
    """Five samples, all on one side, are the least: one half to the fifth is 3 %, to the fourth 6 %."""
    assert expected == less_accurate(right_alone, other_alone)


def test_times_differ_only_when_intervals_are_apart() -> None:
    """Intervals that touch are a tie."""
    assert slower(figures(1.97), OURS)
    assert not slower(figures(1.98), OURS)
    assert not slower(OURS, OURS)


def test_peer_beats_edgeopt_only_in_both() -> None:
    """More accurate and faster; either alone is a trade, and a tie is none."""
    assert beats(figures(2.1, nearer=9), OURS)
    assert not beats(figures(2.0, nearer=9), OURS)
    assert not beats(figures(2.1, nearer=3), OURS)
    assert not beats(figures(2.1, nearer=9, farther=8), OURS)


@given(st.floats(0.2, 4), st.integers(0, 60), st.integers(0, 60))
def test_who_beats_also_matches(ratio: float, nearer: int, farther: int) -> None:
    """A peer that is ahead in both is in particular behind in none."""
    peer = figures(ratio, nearer=nearer, farther=farther)
    assert not beats(peer, OURS) or matches(peer, OURS)


def test_tie_is_not_strictly_best() -> None:
    """A peer that the measurement cannot tell from edgeopt's choice takes the title away; a worse one does not."""
    ours = row(EDGEOPT, OURS)
    assert not strictly_best([ours, row("peer", figures(2.0))])
    assert strictly_best([ours, row("peer", figures(1.5)), row("other", figures(3.0, farther=50))])
    assert not strictly_best([row(EDGEOPT, None, problem="nothing was chosen")])


def test_failed_peer_neither_beats_nor_matches() -> None:
    """A row with a problem is reported and counts for nothing."""
    rows = [row(EDGEOPT, OURS), row("peer", None, problem="it crashed")]
    assert (Held.MET, "no peer is both more accurate and faster on 1 models") == words_of(rows, "more accurate and")
    assert Held.MET == words_of(rows, "strictly best")[0]
    assert "failed: it crashed" in table(rows)


def test_peer_ahead_in_both_is_named() -> None:
    """The claim is missed, with tool, model and figures; within the error it is mentioned only."""
    held, words = words_of([row(EDGEOPT, OURS), row("peer", figures(2.5, nearer=20))], "more accurate and")
    assert Held.MISSED == held
    assert "peer on digits (99.00% at 2.50" in words
    close = [row(EDGEOPT, OURS), row("peer", figures(2.005, 0.991))]
    held, words = words_of(close, "more accurate and")
    assert Held.MET == held
    assert "within the error: peer on digits" in words


def test_edgeopt_without_a_choice_misses_the_claim() -> None:
    """Choosing nothing is no way to be unbeaten."""
    rows = [row(EDGEOPT, None, problem="FAIL"), row("peer", figures(1.5))]
    assert Held.MISSED == words_of(rows, "more accurate and")[0]


def test_share_of_strictly_best_models() -> None:
    """Seven of ten are enough, six are not; who matched is named."""
    names = [*CASES][:10]
    for best, expected in ((7, Held.MET), (6, Held.MISSED)):
        rows = [row(EDGEOPT, OURS, name) for name in names]
        rows += [row("peer", figures(1.0 if i < best else 2.0), name) for i, name in enumerate(names)]
        held, words = words_of(rows, "strictly best")
        assert expected == held
        assert f"{best} of 10" in words
        assert f"{names[9]} (matched by peer)" in words


def test_faster_peer_counts_only_if_it_keeps_the_score() -> None:
    """One that loses more than was allowed is no alternative."""
    keeping, losing = row("peer", figures(3.0, score=0.94)), row("peer", figures(3.0, score=0.90))
    assert keeps(keeping, CASES["digits"])
    assert not keeps(losing, CASES["digits"])
    assert Held.MISSED == words_of([row(EDGEOPT, OURS), keeping], "that keep")[0]
    assert Held.MET == words_of([row(EDGEOPT, OURS), losing], "that keeps")[0]


@pytest.mark.parametrize(("ratio", "expected"), [(1.3, Held.MET), (0.98, Held.MET), (0.9, Held.MISSED)])
def test_nothing_slower_ships(ratio: float, expected: Held) -> None:
    """More than three hundredths below fp32, beyond the interval, is slower."""
    assert expected == words_of([row(EDGEOPT, figures(ratio))], "slower than fp32")[0]


@pytest.mark.parametrize(
    ("size", "score", "expected"),
    [(400, 0.945, Held.MET), (401, 0.945, Held.MISSED), (400, 0.93, Held.MISSED), (1000, 0.95, Held.NOT_MADE)],
)
def test_sequence_models_are_held_to_a_size(size: int, score: float, expected: Held) -> None:
    """At most 40 % of the size and a point lost, or it says that it did not compress."""
    rows = [row(EDGEOPT, figures(1.0, size_bytes=size, score=score), "lstm")]
    (found,) = (claim for claim in claims(rows, CASES) if claim.words.startswith("lstm "))
    assert expected == found.held


@pytest.mark.parametrize(
    ("ratio", "agreement", "expected"),
    [(2.0, 0.95, Held.MET), (1.99, 0.97, Held.MISSED), (2.5, 0.949, Held.MISSED)],
)
def test_efficientnet_is_held_to_what_was_promised(ratio: float, agreement: float, expected: Held) -> None:
    """Both figures must be reached; without the model nothing is said."""
    rows = [row(EDGEOPT, figures(ratio, agreement), "efficientnet_lite0")]
    assert expected == words_of(rows, "EfficientNet-Lite0")[0]
    assert not any("EfficientNet" in claim.words for claim in claims([row(EDGEOPT, OURS)], CASES))


def test_record_has_all_that_a_reader_needs(tmp_path: Path) -> None:
    """Machine by model, claims, rows, and what was left out with its reason; another run goes on with it."""
    path, rows = tmp_path / "comparison.json", [row(EDGEOPT, OURS), row("peer", None, problem="it crashed")]
    record = Record(left_out={"gru": "no data"})
    record.add(rows, {"cpu": "x", "commit": "abc", "load_average": 1.0})
    record.write(path)
    told = json.loads(path.read_text())
    assert {"schema", "machines", "claims", "left_out", "rows"} == set(told)
    assert {"digits": {"cpu": "x", "commit": "abc", "load_average": 1.0}} == told["machines"]
    assert {"MET", "MISSED"} >= {claim["held"] for claim in told["claims"]}
    assert "it crashed" == told["rows"][1]["problem"]
    assert record == Record.read(path)


def test_record_replaces_a_model_that_is_measured_again(tmp_path: Path) -> None:
    """The last measurement counts; another schema is refused."""
    record = Record()
    for ratio in (1.0, 2.0):
        record.add([row(EDGEOPT, figures(ratio)), row("peer", figures(1.0))], {})
    record.add([row(EDGEOPT, OURS, "gru")], {})
    assert [2.0, 1.0, 2.0] == [one.figures.ratio for one in record.rows if one.figures]
    (tmp_path / "old.json").write_text('{"schema": 0}')
    with pytest.raises(ValueError, match="schema 0: expected 1"):
        Record.read(tmp_path / "old.json")


def test_plot_is_well_formed_and_marks_edgeopt() -> None:
    """One panel a model, a ring a peer, edgeopt's name on its mark; names are escaped and failures left out."""
    rows = [row(EDGEOPT, OURS), row("a < b", figures(1.2)), row("gone", None, problem="x"), row(EDGEOPT, None, "gru")]
    picture = ET.fromstring(svg(rows))
    name = "{http://www.w3.org/2000/svg}"
    assert 2 == len(picture.findall(f".//{name}circle"))
    texts = [one.text for one in picture.iter(f"{name}text")]
    assert "edgeopt" in texts
    assert "1  a < b" in texts
    assert "gru: nothing was measured" in texts


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_cases_name_factories_that_exist(case: Any) -> None:
    """What the command is given can be called."""
    import importlib

    arguments = case.arguments(Path("out"))
    named = [argument.partition("=")[2] or argument for argument in arguments if "examples." in argument]
    assert (4 if case.three else 2) == len(named)
    for reference in named:
        module, _, attribute = reference.partition(":")
        assert callable(getattr(importlib.import_module(module), attribute))


def test_case_says_what_is_missing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A model whose data are not installed is left out with the way to get them."""
    monkeypatch.chdir(tmp_path)  # where npm has put nothing
    pytest.importorskip("torch")
    reason = CASES["digit_recognizer"].missing()
    assert reason is not None
    assert "install" in reason
    assert CASES["digits"].missing() is None


def test_counting_is_from_edgeopts_side() -> None:
    """``nearer`` are the samples that the peer has right alone."""
    import numpy as np

    from benchmarks.optimizer.judging import Judged

    judged = Judged(figures(1.0), np.array([1.0, 1.0, 0.0, 1.0]))
    beside = judged.beside(np.array([1.0, 0.0, 1.0, 0.0]))
    assert (2, 1) == (beside.nearer, beside.farther)
    assert dataclasses.replace(beside, nearer=0, farther=0) == judged.figures
