"""``edgeopt rollout explain`` and ``replay``: what they show of the fleet's answer, and how they exit."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Self
from xml.etree import ElementTree as ET

import pytest
from click.testing import CliRunner

from edgeopt.cli import operate_gate
from edgeopt.cli.gate_charts import FindingView, LookView, charts, svg
from edgeopt_contract.errors import UsageError


def finding(**changes: Any) -> FindingView:
    """Return a finding about latency: surely worse than allowed."""
    values = {"metric": "latency", "group": "", "standing": "worse", "allowed": 0.04, "devices": 25, "controls": 225}
    return FindingView(**{**values, "estimate": 0.1, "lower": 0.06, "upper": 0.12, **changes})


def look(number: int = 1, **changes: Any) -> LookView:
    """Return a look that failed."""
    values: dict[str, Any] = {
        "at": 1764000000.0,
        "wave": 0,
        "number": number,
        "look": "failed",
        "decision": "roll_back",
    }
    words = ("the 95th percentile of latency rose by 10.5%",)
    return LookView(**{**values, "reasons": words, "findings": (finding(),), "same": True, "code": "gate-1", **changes})


class Fleet:
    """A fleet that answers with the same looks."""

    def __init__(self, *looks: LookView) -> None:
        import msgspec

        self.answer = {"items": [msgspec.to_builtins(one) for one in looks], "same": all(one.same for one in looks)}
        self.asked: list[Any] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def explain_rollout(self, name: str, most: int) -> dict[str, Any]:
        """Note what was asked."""
        self.asked.append((name, most))
        return self.answer

    def replay_rollout(self, name: str, what_if: tuple[str, ...]) -> dict[str, Any]:
        """Note what was asked."""
        self.asked.append((name, what_if))
        return self.answer


def run(monkeypatch: pytest.MonkeyPatch, fleet: Fleet, command: Any, *arguments: str) -> tuple[int, str]:
    """Run a command against ``fleet``; return what it returns and prints."""
    monkeypatch.setattr(operate_gate, "connect", lambda _: fleet)
    result = CliRunner().invoke(command, list(arguments), standalone_mode=False, catch_exceptions=False)
    return result.return_value, result.output


def test_a_chart_shows_interval_estimate_and_what_was_allowed() -> None:
    """The whole interval right of the mark: surely worse; the amounts in percent."""
    (chart,) = charts([look(), look(2)])
    title, first, second = chart.splitlines()
    assert "wave 1: latency (p95), at most 4.1% allowed" == title
    assert first.index("┃") < first.index("├") < first.index("●") < first.index("┤")
    assert second.startswith("  look 2")
    assert first.endswith("10.5% worse")


def test_what_was_not_measured_is_not_drawn() -> None:
    """A finding without an estimate has no chart, and the picture is one all the same."""
    nothing = look(findings=(finding(estimate=None, lower=None, upper=None, standing="unmeasured"),))
    assert [] == charts([nothing])
    ET.fromstring(svg([nothing]))


def test_the_plot_is_svg_and_escapes_what_users_named() -> None:
    """A hardware class with markup in its name stays text."""
    picture = svg([look(findings=(finding(group="<b>&"), finding(metric="drift", standing="fine")))])
    texts = [element.text for element in ET.fromstring(picture).iter("{http://www.w3.org/2000/svg}text")]
    assert "wave 1, hardware class <b>&: latency (p95), at most 4.1% allowed" in texts


def test_explain_shows_reasons_and_charts_and_writes_the_plot(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Each look with its reasons; --plot writes a file."""
    fleet = Fleet(look())
    plot = tmp_path / "v2.svg"
    _, out = run(monkeypatch, fleet, operate_gate.explain, "v2", "--looks", "7", "--plot", str(plot))
    assert [("v2", 7)] == fleet.asked
    assert "wave 1, look 1 (failed): roll_back" in out
    assert "  - the 95th percentile of latency rose by 10.5%" in out
    assert "┃" in out
    assert plot.read_text().startswith("<svg")


@pytest.mark.parametrize(("shown", "code", "words"), [(look(), 0, "none differ"), (look(same=False), 3, "1 differ")])
def test_replay_says_whether_a_verdict_differs(
    monkeypatch: pytest.MonkeyPatch, shown: LookView, code: int, words: str
) -> None:
    """Exit code 3 when one does."""
    got, out = run(monkeypatch, Fleet(shown), operate_gate.replay, "v2")
    assert code == got
    assert words in out


def test_what_if_is_no_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another policy may well judge otherwise; the changes go to the fleet as they are."""
    fleet = Fleet(look(same=False))
    code, out = run(monkeypatch, fleet, operate_gate.replay, "v2", "--what-if", "count=3")
    assert (0, [("v2", ("count=3",))]) == (code, fleet.asked)
    assert "1 of 1 looks would have been judged otherwise" in out


def test_rules_of_the_gate_are_numbers_and_lists() -> None:
    """--gate FIELD=VALUE becomes a field of the policy."""
    expected = {"max_drift": 0.2, "count": 3, "dry_run": ["drift", "class_mix"]}
    assert expected == operate_gate.rules(["max_drift=0.2", "count=3", "dry_run=drift,class_mix"])
    for wrong in ("count", "count=many", 'count="3"'):
        with pytest.raises(UsageError, match="--gate"):
            operate_gate.rules([wrong])


def test_what_compared_nothing_is_not_numbered(monkeypatch: pytest.MonkeyPatch) -> None:
    """A verdict before anything could be compared is no look: the first look is look 1."""
    _, out = run(monkeypatch, Fleet(look(look=None)), operate_gate.explain, "v2")
    assert "wave 1, nothing to compare: roll_back" in out
    assert "wave 1, look" not in out
