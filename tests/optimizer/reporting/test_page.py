"""The page of a run: complete, true to the record, well-formed, and alone in the world."""

from __future__ import annotations

import html
import re
from dataclasses import replace
from html.parser import HTMLParser
from typing import Any
from xml.etree import ElementTree as ET

import pytest

from edgeopt.criteria import Name
from edgeopt.gate import Verdict
from edgeopt.recipe import Precision, Recipe
from edgeopt.reporting.page import report_html
from edgeopt.results import LayerSensitivity, RunResult, SplitResult, TargetResult, TrialResult, VariantResult
from edgeopt.wording import milliseconds, size
from tests.optimizer.runs import FP32, INT8, a_run, criterion, speed, target, variant

HOSTILE = "<script>alert('\"&')</script>{{ 7 * 7 }}"
VOID = {"meta", "br", "wbr"}
TITLES = (
    "What was asked for",
    "Accuracy against speed",
    "What each rung gave",
    "Where accuracy was lost",
    "Sensitivity by layer",
    "Is it faster?",
    "Variants",
    "Data",
    "Where it comes from",
)


class _Page(HTMLParser):
    """Keeps what a page says and refuses tags that do not match."""

    def __init__(self, source: bytes) -> None:
        super().__init__()
        self.source = source.decode()
        self.open: list[str] = []
        self.seen: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(self.source)
        self.close()
        assert [] == self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, f"</{tag}> closes nothing"

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.words.append(data)

    @property
    def text(self) -> str:
        """What a reader sees, with single spaces."""
        return " ".join("".join(self.words).split())

    def headings(self) -> list[str]:
        """The titles of the sections."""
        return [html.unescape(found) for found in re.findall(r"<h2>(.*?)</h2>", self.source)]


def _page(run: RunResult) -> _Page:
    return _Page(report_html(run))


def _one(**changes: Any) -> RunResult:
    found = replace(target(), **changes)
    return a_run(targets=(found,), verdict=found.verdict)


def _nothing_certified() -> TargetResult:
    return replace(
        target(), chosen="fp32", variants=(variant(FP32, None),), criteria=(), trials=(), stages=(), sensitivity=(),
        reasons=("nothing else is worth it",),
    )  # fmt: skip


def _judged(verdict: Verdict) -> TargetResult:
    criteria = tuple(replace(one, verdict=verdict, samples_needed=3456) for one in target().criteria)
    variants = (replace(variant(INT8, 1.5, 0.05), verdict=verdict), variant(FP32, None))
    return replace(target(), verdict=verdict, chosen=None, criteria=criteria, variants=variants)


def _untimed() -> TargetResult:
    trials = tuple(replace(one, speed=None) for one in target().trials)
    return replace(target("board", ratio=None), trials=trials)


KINDS = {
    "pass": target(),
    "fail": _judged(Verdict.FAIL),
    "inconclusive": _judged(Verdict.INCONCLUSIVE),
    "fp32 kept": _nothing_certified(),
    "untimed": _untimed(),
    "no variant": replace(target(), chosen=None, variants=(), verdict=Verdict.FAIL),
    "no class seen": replace(
        target(),
        criteria=(replace(criterion(Name.CLASS_DROP, 0, 0.1), value=None, lower=None, upper=None, bound=None, n=0),),
    ),
    "all failed": replace(
        target(), trials=(TrialResult(rung="first", title="int8", recipe=INT8, problem="it crashed"),)
    ),
}


@pytest.mark.parametrize("is_share", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_run_makes_a_whole_page(kind: str, is_share: bool) -> None:  # noqa: FBT001
    """Undefined fields are errors in the templates; tags match, pictures are XML, no section is left out."""
    page = _page(a_run(targets=(KINDS[kind],), verdict=KINDS[kind].verdict, is_share=is_share))
    shown = [one.replace("against size", "against speed") for one in page.headings()]
    assert list(TITLES) == [one for one in shown if one in TITLES]
    for picture in re.findall(r"<svg.*?</svg>", page.source, re.DOTALL):
        ET.fromstring(picture)


@pytest.mark.parametrize("run", [a_run(), a_run(targets=tuple(KINDS.values()))], ids=["one", "many"])
def test_the_page_needs_nothing_from_anywhere(run: RunResult) -> None:
    """No scripts, no style sheets, fonts or pictures from elsewhere; links lead into the page itself."""
    page = _page(run)
    names = {attributes.get("id") for _, attributes in page.seen}
    for tag, attributes in page.seen:
        assert tag not in {"script", "link", "img", "iframe", "object"}
        assert not {"src", "srcset", "style"} & set(attributes)
        assert not [name for name in attributes if name.startswith("on")]
        if "href" in attributes:
            assert (attributes["href"] or "").removeprefix("#") in names
    for word in ("http:", "https:", "url(", "@import", "@font-face"):
        assert word not in page.source


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("pass", "PASS int8 ships"),
        ("fail", "FAIL int8 loses more than is allowed"),
        ("inconclusive", "INCONCLUSIVE too few samples to tell whether int8 is good enough"),
        ("fp32 kept", "PASS fp32 ships: nothing else kept accuracy and was faster or smaller"),
    ],
)
def test_the_verdict_comes_first_in_words_and_then_its_reasons(kind: str, words: str) -> None:
    """Before any other heading."""
    page = _page(a_run(targets=(KINDS[kind],), verdict=KINDS[kind].verdict))
    before = page.text.partition("What was asked for")[0]
    assert words in before
    assert before.index(words) < before.index(KINDS[kind].reasons[0])
    assert f'<header class="{KINDS[kind].verdict}">' in page.source


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("fp32 kept", "No variant was certified for this target, so nothing was held against a limit"),
        ("fp32 kept", "Nothing was tried, so no layer was ranked."),
        ("fp32 kept", "No variant was certified, so none was followed from stage to stage."),
        ("untimed", "only a machine with the target's own kind of CPU can say how fast board is"),
        ("untimed", "So the size stands in for the speed."),
        ("all failed", "None of what was tried could be built or run; the table of the rungs says why."),
        ("no variant", "There is no variant for this target."),
        ("no variant", "No variant was judged, so there are no figures."),
        ("no class seen", "no certification sample"),
        ("inconclusive", "about 3456 needed"),
    ],
)
def test_what_is_empty_says_why(kind: str, words: str) -> None:
    """In words, not as an empty table or picture."""
    assert words in _page(a_run(targets=(KINDS[kind],))).text


def test_figures_are_those_of_the_record() -> None:
    """Each score, bound, size, time, error, ratio and hash can be found."""
    run = a_run()
    (one,) = run.targets
    text = _page(run).text
    judged = one.variants[0]
    assert judged.speed is not None
    expected = ["89.60 %", "90.00 %", "0.40 (0.20 to 0.80)", "98.50 %", "1.50 (1.38 to 1.62)", "1.25 (1.12 to 1.38)"]
    expected += [size(judged.size_bytes), milliseconds(judged.speed.variant_ms), milliseconds(judged.speed.baseline_ms)]
    expected += [
        "0.20 to 0.80 points",
        "0.70 points",
        "at most 1 point",
        "worst class: class 7 of 1",
        "at least 95.00 %",
    ]
    expected += ["0.3 0.250 ms", "0.01 −0.125 ms", "it took too long", "2026-01-02 03:04 UTC", "in 12.5 s"]  # noqa: RUF001
    expected += [split.hash for split in run.splits.values()]
    assert [] == [words for words in expected if words not in text]


def test_every_repetition_and_every_trial_is_a_dot() -> None:
    """With its figure to hover over; what was not timed is not made up."""
    page = _page(a_run())
    dots = page.source.count('<circle class="dot')
    (one,) = a_run().targets
    timed = [each.speed for each in (*one.variants, *one.trials) if each.speed is not None and each.speed.ratio != 1]
    assert sum(len(each.ratios) for each in timed) == dots
    assert 2 == page.source.count('<g class="point"><title>')
    assert "ranges: int8, mse, 1 node in float\n1.50 (1.38 to 1.62) times as fast\nerror 0.02" in page.source


def test_a_long_metric_may_break_in_the_head_of_its_column() -> None:
    """A function's dotted name would push the last columns out of sight; it stays text."""
    page = _page(a_run(metric="my.own:metric<b>"))
    assert '<th class="n">my.<wbr>own:<wbr>metric&lt;b&gt;</th>' in page.source


def test_each_rung_says_what_it_gained() -> None:
    """In accuracy and in time, on all rungs before it."""
    first = target().trials[1]
    later = replace(first, rung="rounding", agreement=0.99, speed=speed(1.25), chosen=False)
    assert "rounding 1 99.00 % 0.50 points 1.25 −0.25" in _page(_one(trials=(first, later))).text  # noqa: RUF001


def test_what_users_name_is_text_never_markup() -> None:
    """Names of models, targets, layers, rungs, notes, reasons, problems, settings and packages."""
    recipe = replace(INT8, float_nodes=(HOSTILE,), operators=(HOSTILE,))
    trial = replace(target().trials[1], rung=HOSTILE, title=HOSTILE, recipe=recipe)
    judged: VariantResult = replace(variant(INT8, 1.5), name=HOSTILE, file=HOSTILE, recipe=recipe)
    found = replace(
        target(HOSTILE), arch=HOSTILE, features=(HOSTILE,), execution=HOSTILE, reasons=(HOSTILE,), chosen=HOSTILE,
        variants=(judged,), trials=(trial, replace(trial, problem=HOSTILE)),
        sensitivity=(LayerSensitivity(node=HOSTILE, operator=HOSTILE, error=0.1, saved_ms=None),),
        stages=(replace(target().stages[0], stage=HOSTILE),),
    )  # fmt: skip
    run = a_run(
        name=HOSTILE, version=HOSTILE, metric=HOSTILE, machine=HOSTILE, created=HOSTILE, notes=(HOSTILE,),
        splits={HOSTILE: SplitResult(size=1, hash=HOSTILE)}, targets=(found, found),
        lineage={
            "git": {"commit": HOSTILE, "dirty": True}, "data": {HOSTILE: HOSTILE},
            "settings": {HOSTILE: {HOSTILE: [HOSTILE]}},
            "versions": {HOSTILE: HOSTILE}, "data_versions": {HOSTILE: HOSTILE}, "environment": HOSTILE,
        },
    )  # fmt: skip
    page = _page(run)
    assert "<script" not in page.source
    assert "49" not in page.text
    assert 40 < page.text.count(HOSTILE)


def test_several_targets_have_a_verdict_each_and_a_part_each() -> None:
    """A row of verdicts that lead to the parts, in the order of the record."""
    targets = (target("first"), replace(_judged(Verdict.FAIL), target="second"))
    page = _page(a_run(targets=targets, verdict=Verdict.FAIL))
    cards = [attributes for tag, attributes in page.seen if tag == "a"]
    assert [("#target-1", "card PASS"), ("#target-2", "card FAIL")] == [(one["href"], one["class"]) for one in cards]
    assert "FAIL 1 of 2 targets get a variant" in page.text
    for title in TITLES[:7]:
        assert 2 == page.headings().count(title)


def test_times_of_another_machine_are_not_shown_for_a_target() -> None:
    """fp32's latency here says nothing of a board that was not timed."""
    page = _page(a_run(targets=(_untimed(),)))
    assert "4.000 ms" not in page.text
    assert "not timed measure on the device" in page.text.replace("not timedmeasure", "not timed measure")


def test_long_tables_show_what_matters_and_keep_the_rest() -> None:
    """Of forty trials the chosen one, the front and each rung's nearest; of thirty layers the twenty worst."""
    base = target().trials[1]
    trials = tuple(
        replace(base, title=f"trial {place:02}", rung=f"rung {place % 4}", error=0.5 - place / 100, chosen=place == 3,
                on_front=place == 5)
        for place in range(40)
    )  # fmt: skip
    layers = tuple(
        LayerSensitivity(node=f"layer {place:02}", operator="Conv", error=place / 100, saved_ms=None)
        for place in range(30)
    )
    source = _page(_one(trials=trials, sensitivity=layers)).source
    shown, _, rest = source.partition("All 40 that were tried")
    summaries = re.compile(r"<summary>(trial \d\d)</summary>")
    assert ["trial 03", "trial 05", "trial 36", "trial 37", "trial 38", "trial 39"] == summaries.findall(shown)
    assert [one.title for one in trials] == summaries.findall(rest)
    worst, _, others = source.partition("The other 10 layers")
    assert [f"layer {place:02}" for place in range(29, 9, -1)] == re.findall(r"<code>(layer \d\d)", worst)
    assert [f"layer {place:02}" for place in range(9, -1, -1)] == re.findall(r"<code>(layer \d\d)", others)


def test_a_recipe_is_short_until_opened() -> None:
    """Hundreds of nodes in float are a number in the title, and names inside the details only."""
    recipe = Recipe(precision=Precision.INT8, float_nodes=tuple(f"node_{place}" for place in range(300)))
    trial = replace(target().trials[1], title=recipe.title, recipe=recipe, speed=speed(1.5))
    source = _page(_one(trials=(trial,))).source
    opened = re.findall(r"<details class=\"recipe\">.*?</details>", source, re.DOTALL)
    assert any("<summary>int8, minmax, 300 nodes in float</summary>" in one and "node_299" in one for one in opened)
    assert "node_299" not in re.sub(r"<details.*?</details>", "", source, flags=re.DOTALL)


def test_the_same_run_gives_the_same_page() -> None:
    """Byte by byte."""
    assert report_html(a_run()) == report_html(a_run())
