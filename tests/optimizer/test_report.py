"""The report as JSON and as a page, its pictures, and the lineage it shows."""

from __future__ import annotations

import dataclasses
import json
import logging
import os
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest

from edgeopt import lineage
from edgeopt.charts import Interval, drop_chart, ratio_chart
from edgeopt.criteria import ClassDrop, Criterion, Name
from edgeopt.gate import Verdict
from edgeopt.report import (
    Baseline,
    CandidateResult,
    LatencyResult,
    MetricResult,
    Report,
    SplitResult,
    VariantResult,
    report_html,
    report_json,
)
from edgeopt.silence import silenced
from edgeopt.wording import Wording

SHARE = Wording(is_share=True)


def _variant(name: str, verdict: Verdict = Verdict.PASS, ratio: float | None = 1.5) -> VariantResult:
    return VariantResult(
        name=name,
        file=f"{name}.onnx",
        runtime="onnxruntime",
        target="board",
        verdict=verdict,
        metric=MetricResult(
            name="accuracy",
            value=0.9,
            drop=0.01,
            drop_lower=-0.002,
            drop_upper=0.02,
            confidence=0.95,
            n=100,
            samples_needed=None,
        ),
        agreement=0.97,
        size_bytes=1000,
        latency_ms=LatencyResult(median=1.0 if ratio else None, ratio=ratio, ratio_low=ratio, ratio_high=ratio),
    )


def _class(label: int, value: float | None) -> ClassDrop:
    return ClassDrop(
        label=label,
        verdict=Verdict.INCONCLUSIVE,
        n=0 if value is None else 40,
        value=value,
        lower=value,
        upper=value,
        bound=value,
        samples_needed=59,
    )


def _criterion(name: Name, value: float | None, **more: Any) -> Criterion:
    return Criterion(
        name=name,
        verdict=Verdict.PASS if value is not None else Verdict.INCONCLUSIVE,
        value=value,
        lower=value,
        upper=value,
        bound=value,
        limit=0.05,
        confidence=0.95,
        n=0 if value is None else 100,
        samples_needed=None if value is not None else 59,
        **more,
    )


REPORT = Report(
    name="<net>",
    version="3",
    verdict=Verdict.PASS,
    reasons=("because & only because",),
    target="board",
    scheme="u8s8",
    margin=0.01,
    is_share=True,
    baseline=Baseline(metric=0.91, size_bytes=4000, latency_ms=1.5),
    variants=(_variant("int8"), _variant("fp32")),
    chosen="int8",
    criteria=(
        _criterion(Name.DROP, 0.01),
        _criterion(Name.CLASS_DROP, None, label=7, classes=(_class(3, 0.02), _class(7, None))),
        _criterion(Name.AGREEMENT, 0.97),
    ),
    candidates=(
        CandidateResult(name="minmax", agreement=0.97, metric=0.9, chosen=True),
        CandidateResult(name="percentile", agreement=None, metric=None, chosen=False, problem="it crashed"),
    ),
    splits={"calibration": SplitResult(size=10, hash="ab" * 32)},
    notes=("not simplified: it was odd",),
    lineage={"git": None, "data": {}, "settings": {"seed": 0}, "versions": {"numpy": "2.0"}},
    created="2026-01-02T03:04:05+00:00",
    seconds=1.5,
)


def test_json_carries_every_field() -> None:
    """What the records hold is what the file says."""
    decoded = json.loads(report_json(REPORT))
    assert {field.name for field in dataclasses.fields(Report)} == set(decoded)
    assert ("<net>", 0.97) == (decoded["name"], decoded["variants"][0]["agreement"])


def test_criteria_stand_in_the_file_and_on_the_page() -> None:
    """Each with its verdict, value, bound, limit and n; a class without a sample has null, not a made-up number."""
    drop, worst, agreement = json.loads(report_json(REPORT))["criteria"]
    assert ("drop", "PASS", 0.01, 0.01, 0.05, 100) == tuple(
        drop[key] for key in ("name", "verdict", "value", "bound", "limit", "n")
    )
    assert ("class_drop", None, 7, 59) == tuple(worst[key] for key in ("name", "value", "label", "samples_needed"))
    assert [3, 7] == [one["label"] for one in worst["classes"]]
    assert ("agreement", 0.97) == (agreement["name"], agreement["value"])
    page = report_html(REPORT).decode()
    for shown in ("overall drop", "</strong>: class 7 of 2", "no certification sample", "at least 5.00 %", "97.00 %"):
        assert shown in page
    assert "0, about 59 needed" in page


@pytest.mark.parametrize("verdict", list(Verdict))
@pytest.mark.parametrize("chosen", ["int8", "fp32", None])
@pytest.mark.parametrize("ratio", [1.5, None])
@pytest.mark.parametrize("is_share", [True, False])
def test_every_kind_of_report_makes_a_page(
    verdict: Verdict,
    chosen: str | None,
    ratio: float | None,
    is_share: bool,  # noqa: FBT001  (a parameter of the table)
) -> None:
    """Undefined fields are errors in the template, so each branch is rendered once."""
    variants = (_variant("int8", verdict, ratio), _variant("fp32", ratio=ratio))
    report = dataclasses.replace(REPORT, verdict=verdict, chosen=chosen, variants=variants, is_share=is_share)
    page = report_html(report).decode()
    assert f'<header class="{verdict}">' in page
    assert (2 if ratio else 1) == page.count("<svg")
    assert ("not measured" in page) == (ratio is None)


def test_what_users_name_is_escaped() -> None:
    """A model's name is text, never markup; notes and problems are shown."""
    page = report_html(REPORT).decode()
    assert "&lt;net&gt;" in page
    assert "<net>" not in page
    assert "because &amp; only because" in page
    for shown in ("it crashed", "not simplified: it was odd", "not in a git repository", "ab" * 32):
        assert shown in page


@pytest.mark.parametrize(
    ("drop", "kind"), [(Interval(-0.002, 0.001, 0.004), "good"), (Interval(0.001, 0.02, 0.05), "bad")]
)
def test_the_drop_is_drawn_where_it_lies(drop: Interval, kind: str) -> None:
    """The interval's ends stand in order, inside the picture, in the colour of its verdict."""
    picture = ET.fromstring(str(drop_chart(drop, 0.01, SHARE)))
    (line,) = (item for item in picture.iter("line") if item.get("class") == f"interval {kind}")
    (dot,) = picture.iter("circle")
    assert 0 < float(line.get("x1", "")) < float(dot.get("cx", "")) < float(line.get("x2", "")) < 640


def test_a_picture_of_nothing_is_still_one() -> None:
    """No drop and no margin do not divide by zero; neither does a ratio of one."""
    for chart in (drop_chart(Interval(0, 0, 0), 0.0, SHARE), ratio_chart(Interval(1, 1, 1))):
        assert "svg" == ET.fromstring(str(chart)).tag


class TestLineage:
    """Where a bundle comes from."""

    @pytest.fixture
    def repository(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        """An own repository with one commit, as the working directory."""
        monkeypatch.chdir(tmp_path)
        identity = {
            "GIT_AUTHOR_NAME": "a",
            "GIT_AUTHOR_EMAIL": "a@b",
            "GIT_COMMITTER_NAME": "a",
            "GIT_COMMITTER_EMAIL": "a@b",
        }
        (tmp_path / "net.py").write_text("x = 1\n")
        for arguments in (["init", "-q"], ["add", "."], ["commit", "-q", "-m", "first"]):
            subprocess.run(["git", *arguments], check=True, env={**os.environ, **identity})
        return tmp_path

    def test_commit_and_dirty_flag(self, repository: Path) -> None:
        """An uncommitted change is told: the commit alone would not reproduce the bundle."""
        clean = lineage.record(splits={}, settings={})["git"]
        (repository / "net.py").write_text("x = 2\n")
        dirty = lineage.record(splits={}, settings={})["git"]
        assert (False, True) == (clean["dirty"], dirty["dirty"])
        assert clean["commit"] == dirty["commit"]
        assert 40 == len(clean["commit"])

    def test_outside_a_repository(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """No commit is claimed, with or without git on the machine."""
        monkeypatch.chdir(tmp_path)
        monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
        assert lineage.record(splits={}, settings={})["git"] is None
        monkeypatch.setenv("PATH", "")
        assert lineage.record(splits={"calibration": "ab"}, settings={"seed": 1})["git"] is None

    def test_nothing_changes_between_two_runs(self) -> None:
        """No time, no host, no path."""
        assert lineage.record(splits={"a": "b"}, settings={}) == lineage.record(splits={"a": "b"}, settings={})


def test_silence_takes_prints_warnings_and_logs(capsys: pytest.CaptureFixture[str]) -> None:
    """Inside, nothing reaches the terminal; afterwards everything does again; exceptions pass."""

    def make_noise() -> None:
        with silenced():
            print("noise")
            print("noise", file=sys.stderr)
            warnings.warn("noise", stacklevel=1)
            logging.getLogger("onnx").critical("noise")
            raise KeyError("signal")

    with pytest.raises(KeyError):
        make_noise()
    assert ("", "") == tuple(capsys.readouterr())
    print("voice")
    assert "voice\n" == capsys.readouterr().out
    assert logging.getLogger("onnx").isEnabledFor(logging.CRITICAL)
