"""The report in the terminal: verdict first, true to the records, with something to do next."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest

from edgeopt.cli import group
from edgeopt.explain import advice, explain, pareto_plot
from edgeopt.gate import Verdict
from edgeopt_contract.commands import run_command
from edgeopt_contract.errors import ExitCode
from tests.optimizer.runs import a_run, speed, target

Capture = pytest.CaptureFixture[str]


def _with(**changes: Any) -> Any:
    return a_run(targets=(replace(target(), **changes),))


def test_the_verdict_comes_first_and_the_figures_are_those_of_the_run() -> None:
    """Then variants, rungs, plot, stages and layers."""
    shown = explain(a_run())
    lines = shown.splitlines()
    assert "PASS  tiny 1" == lines[0]
    assert "raspberry-pi-4: PASS, gets int8; certified on: emulated (qemu-aarch64 -cpu cortex-a72)" in lines
    for words in (
        "1.50 times as fast, at least 1.38",
        "0.40 (0.20 to 0.80)",
        "1.50 (1.38 to 1.62)",
        "98.50 %",
        "it took too long",
        "Conv_3",
        "0.40 points",
    ):
        assert words in shown
    titles = ("variants", "what each rung gave", "answers as fp32, against", "where accuracy was lost", "the most sens")
    places = [shown.index(f"\n{title}") for title in titles]
    assert sorted(places) == places


def test_each_rung_says_what_it_gained_on_those_before() -> None:
    """The first has nothing to gain on; a later one may be worse, and says so."""
    first = target().trials[1]
    later = replace(first, rung="rounding", agreement=0.99, speed=speed(1.25), chosen=False)
    row = next(line for line in explain(_with(trials=(first, later))).splitlines() if line.startswith("  rounding"))
    assert ["rounding", "1", "99.00", "%", "0.50", "points", "1.25", "-0.25"] == row.split()[:8]


def test_what_was_not_found_is_left_out() -> None:
    """A run without trials, stages and ranking has neither titles nor empty tables."""
    shown = explain(_with(trials=(), stages=(), sensitivity=()))
    for title in ("rung", "against speed", "where accuracy", "sensitive"):
        assert title not in shown


def test_the_plot_has_every_point_where_it_belongs() -> None:
    """Faster is further right, more like fp32 is higher; the chosen one is never hidden by another."""
    base = target().trials[1]
    points = [(1.0, 1.0, False, True), (2.0, 0.9, True, True), (2.0, 0.9, False, False), (1.5, 0.9, False, False)]
    trials = [
        replace(base, agreement=agreement, speed=speed(ratio), chosen=chosen, on_front=front)
        for ratio, agreement, chosen, front in points
    ]
    rows = [line.partition("|")[2] for line in pareto_plot(trials).splitlines()]
    assert "o" == rows[0]
    assert (55, 28) == (rows[9].index("*"), rows[9].index("."))
    assert 3 == sum(row.count(mark) for row in rows for mark in "*o.")
    assert "" == pareto_plot([replace(base, speed=None)])
    assert "*" in pareto_plot([base])


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"verdict": Verdict.FAIL, "chosen": None}, "most accuracy was lost between 'torch' and 'int8 by onnxruntime'"),
        ({"verdict": Verdict.FAIL, "chosen": None}, "the layer Conv_3 (Conv) suffers most"),
        ({"chosen": "fp32"}, "prune the network"),
        ({"variants": target(ratio=None).variants}, "nothing was timed for raspberry-pi-4"),
    ],
)
def test_each_situation_has_its_next_step(changes: dict[str, Any], words: str) -> None:
    """Said for this target, from what was found."""
    assert any(words in line for line in advice(_with(**changes)))


def test_more_samples_are_asked_for_when_they_would_decide() -> None:
    """The greatest number that any criterion needs."""
    criteria = tuple(
        replace(one, verdict=Verdict.INCONCLUSIVE, samples_needed=needed)
        for one, needed in zip(target().criteria, (2000, None, 3000), strict=True)
    )
    run = replace(_with(verdict=Verdict.INCONCLUSIVE, chosen=None, criteria=criteria), verdict=Verdict.INCONCLUSIVE)
    assert ("give about 3000 certification samples: with these the gate could not decide",) == advice(run)


def test_uncommitted_code_is_told_and_committed_code_is_not() -> None:
    """A bundle of changes that no commit has cannot be built again elsewhere."""
    assert () == advice(a_run())
    dirty = a_run(lineage={"git": {"commit": "a" * 40, "dirty": True}})
    assert any("edgeopt reproduce" in line for line in advice(dirty))


class TestCommand:
    """edgeopt explain."""

    def _explain(self, *arguments: str | Path) -> int:
        line = ["explain", *map(str, arguments)]
        return run_command(lambda: group(line, prog_name="edgeopt", standalone_mode=False))

    def test_a_directory_and_its_report_are_the_same(self, tmp_path: Path, capsys: Capture) -> None:
        """And --json prints the file."""
        report = tmp_path / "report.json"
        report.write_bytes(msgspec.json.encode(a_run()))
        assert ExitCode.GOOD == self._explain(tmp_path)
        shown = capsys.readouterr().out
        assert ExitCode.GOOD == self._explain(report)
        assert shown == capsys.readouterr().out == explain(a_run()) + "\n"
        assert ExitCode.GOOD == self._explain(tmp_path, "--json")
        assert report.read_text() == capsys.readouterr().out

    def test_another_file_is_named(self, tmp_path: Path, capsys: Capture) -> None:
        """With what was expected in its place."""
        (tmp_path / "notes.json").write_text("none")
        assert ExitCode.BAD_INPUT == self._explain(tmp_path / "notes.json")
        assert "notes.json: this is no report of edgeopt (" in capsys.readouterr().err

    def test_a_bundle_from_elsewhere_has_no_report(self, tmp_path: Path, capsys: Capture) -> None:
        """The message says where the verdict stands."""
        assert ExitCode.BAD_INPUT == self._explain(tmp_path)
        assert "model_card.md says the verdict" in capsys.readouterr().err
