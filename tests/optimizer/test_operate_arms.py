"""``edgeopt rollout`` with two arms: what is asked of the fleet, what is shown, how it exits; and the dry run."""

# ruff: noqa: F811  # tests take imported fixtures by their names

from __future__ import annotations

import json
from typing import Any
from xml.etree import ElementTree as ET

import pytest

from edgeopt.cli.gate_charts import ComparedView, DifferenceView, arm_charts, svg
from tests.optimizer.operate_fake import FakeFleet, Run, fleet, rollout_view, run  # noqa: F401  # the fixtures

ARMS = [
    {"arm": arm, "bundle": arm.lower() * 64, "bundle_name": f"digits {arm}", "percent": 50, "members": 25,
     "notified": 25, "confirmed": 24, "failed": 1, "returned": 0}
    for arm in "AB"
]  # fmt: skip


def difference(metric: str, side: str, **figures: float) -> dict[str, Any]:
    """Return one metric of all devices."""
    figures = {"estimate": -0.1, "lower": -0.12, "upper": -0.08, "margin": 0.05} | figures
    return {"metric": metric, "group": "", "side": side, "devices_a": 25, "devices_b": 24, **figures}


COMPARED: dict[str, Any] = {
    "at": 1764000000.0,
    "number": 1,
    "result": "trade_off",
    "reasons": ["a trade-off: B is faster (p95), but is less confident", "arm A: 0 of 25 updates failed"],
    "confidence": 0.95,
    "differences": [
        difference("latency", "b_better"),
        difference("confidence", "a_better", estimate=0.02, lower=0.015, upper=0.025, margin=0.01),
        difference("drift", "unmeasured", estimate=None, lower=None, upper=None),  # type: ignore[arg-type]  # as JSON has it
    ],
    "same": True,
    "code": "arms-1",
}
OBSERVED: dict[str, Any] = {
    "name": "ab", "state": "observing", "compared": None, "observed_seconds": 5400.0, "observe_seconds": 86400.0,
    "rows": {"A": 512, "B": 400}, "minimum_rows": 1000, "kept": "",
}  # fmt: skip


class TestCreate:
    """edgeopt rollout create --arm."""

    def test_two_arms_are_asked_for(self, run: Run, fleet: FakeFleet) -> None:
        """Bundles in their order; the observation only as far as it was given."""
        code, _, err = run(
            *("rollout", "create", "ab", "--arm", "3fa94c=50", "--arm", "77b1de=40%", "--observe", "24h"),
            *("--observe-rows", "5000", "--confidence", "0.9", "--margin", "latency=0.02", "--margin", "drift=0.3"),
        )
        assert (0, "") == (code, err)
        body = fleet.requests[-1][2]
        assert [{"bundle": "3fa94c", "percent": 50}, {"bundle": "77b1de", "percent": 40}] == body["arms"]
        wanted = {"seconds": 86400.0, "minimum_rows": 5000, "confidence": 0.9, "latency": 0.02, "drift": 0.3}
        assert wanted == body["observation"]
        assert "bundle" not in body
        run("rollout", "create", "ab", "--arm", "3fa94c=50", "--arm", "77b1de=50")
        assert "observation" not in fleet.requests[-1][2]

    @pytest.mark.parametrize(
        ("options", "said"),
        [
            ((), "--bundle"),
            (("--arm", "ab=50"), "twice"),
            (("--arm", "ab=50", "--arm", "cd=50", "--arm", "ef=10"), "twice"),
            (("--arm", "ab=50", "--arm", "cd=50", "--bundle", "ab"), "twice"),
            (("--arm", "ab=60", "--arm", "cd=50"), "100 percent"),
            (("--arm", "ab=0", "--arm", "cd=50"), "BUNDLE=PERCENT"),
            (("--arm", "ab", "--arm", "cd=50"), "BUNDLE=PERCENT"),
            (("--bundle", "ab", "--observe", "1h"), "--observe"),
            (("--bundle", "ab", "--margin", "speed=1"), "latency"),
        ],
    )
    def test_arms_that_cannot_be_are_named(
        self, run: Run, fleet: FakeFleet, options: tuple[str, ...], said: str
    ) -> None:
        """Exit code 2; the fleet is not asked."""
        code, _, err = run("rollout", "create", "ab", *options)
        assert 2 == code
        assert said in err
        assert [] == fleet.requests

    def test_how_it_is_carried_out(self, run: Run, fleet: FakeFleet) -> None:
        """Rates, thresholds, times and priority arrive under the fleet's names."""
        code, _, err = run(
            *("rollout", "create", "v2", "--bundle", "ab", "--rate", "100", "--base-rate", "10"),
            *("--increase-after-succeeded", "50", "--increment-factor", "1.5", "--threshold", "timed_out:5%:20"),
            *("--threshold", "any:10%", "--device-timeout", "10m", "--total-timeout", "2d", "--retries", "2"),
            *("--priority", "900", "--approval", "--gate", "count=3", "--gate", "dry_run=drift,class_mix"),
            *("--start-at", "2026-12-01T02:00Z"),
        )
        assert (0, "") == (code, err)
        body = fleet.requests[-1][2]
        assert {
            "pace": {
                "maximum_per_minute": 100, "base_rate_per_minute": 10, "increment_factor": 1.5,
                "number_of_succeeded_things": 50,
            },
            "thresholds": [
                {"failure_type": "timed_out", "threshold_percentage": 5.0, "min_number_of_executed_things": 20},
                {"failure_type": "any", "threshold_percentage": 10.0, "min_number_of_executed_things": 1},
            ],
            "device_timeout_seconds": 600.0,
            "total_timeout_seconds": 172800.0,
            "retries": 2,
            "priority": 900,
            "start_at": 1_796_090_400,
        } == body["execution"]  # fmt: skip
        assert {"count": 3, "dry_run": ["drift", "class_mix"]} == body["policy"]
        assert body["approval"] is True

    @pytest.mark.parametrize(
        "option", [("--base-rate", "10"), ("--threshold", "slow:5%"), ("--retries", "11"), ("--gate", "count=many")]
    )
    def test_a_wrong_rule_is_named(self, run: Run, fleet: FakeFleet, option: tuple[str, str]) -> None:
        """Exit code 2 with the option's name; the fleet is not asked."""
        code, _, err = run("rollout", "create", "v2", "--bundle", "ab", *option)
        assert (2, True, []) == (code, option[0] in err, fleet.requests)

    def test_a_dry_run_shows_what_would_happen(self, run: Run, fleet: FakeFleet) -> None:
        """Waves with who is away and when, arms, whom it takes devices from, and why it would be refused."""
        fleet.planned = {
            "rollout": rollout_view("draft") | {"arms": ARMS},
            "problems": ["bundle bbbb is not signed"],
            "superseded": {"v1": 1},
            "offline": ["cam-1"],
            "starts": "at once",
            "notified_after_seconds": [0.0, 60.0],
        }
        code, out, _ = run("rollout", "create", "v2", "--bundle", "bbbb", "--dry-run")
        assert 0 == code
        assert ("POST", "rollouts/dry-run") == fleet.requests[-1][:2]
        assert "1 offline, all offered it after 60 s at the earliest" in out
        assert "arm A: digits A, 25 devices" in out
        assert "takes 1 device from v1" in out
        assert "would be refused: bundle bbbb is not signed" in out
        assert fleet.planned == json.loads(run("rollout", "create", "v2", "--bundle", "bbbb", "--dry-run", "--json")[1])


class TestShowAndCompare:
    """edgeopt rollout show, compare and conclude."""

    def test_both_arms_are_shown(self, run: Run, fleet: FakeFleet) -> None:
        """A line an arm, the arm of each device, each arm's newest verdict, and what became of them."""
        verdicts = [
            {"at": 1, "wave": 0, "arm": arm, "verdict": "promote", "reasons": [f"all is well with {arm}"]}
            for arm in "AB"
        ]
        shown = rollout_view("rolled_back") | {"arms": ARMS, "verdicts": verdicts, "fault": "B", "kept": "A"}
        shown["members"][0]["arm"] = "B"
        fleet.script = [(200, shown)]
        out = run("rollout", "show", "v2")[1]
        assert ["A", "digits", "A", "a" * 12, "50%", "24", "1", "0", "25"] in [
            line.split() for line in out.splitlines()
        ]
        assert "rolled_back, at fault: arm B, kept: A" in out
        assert "gate on wave 1, arm A: promote: all is well with A" in out
        assert "gate on wave 1, arm B: promote: all is well with B" in out
        assert max(map(len, out.splitlines())) <= 100

    def test_a_wave_that_went_back_says_so(self, run: Run, fleet: FakeFleet) -> None:
        """Beside those that had confirmed."""
        shown = rollout_view("rolled_back", waves=("failed", "waiting"), confirmed=1)
        shown["waves"][0] |= {"confirmed": 3, "failed": 1, "returned": 2, "members": 4}
        fleet.script = [(200, shown)]
        lines = [line.split() for line in run("rollout", "show", "v2")[1].splitlines()]
        assert ["confirmed", "failed", "returned", "devices"] == next(line for line in lines if "returned" in line)[-4:]
        assert ["3", "1", "2", "4"] == next(line for line in lines if "failed" in line[1:2])[-4:]

    def test_an_observation_says_how_far_it_is(self, run: Run, fleet: FakeFleet) -> None:
        """Exit code 4: not known yet; nothing is compared before its time."""
        fleet.compared = OBSERVED
        code, out, _ = run("rollout", "compare", "ab")
        assert 4 == code
        assert "observed for 1.5 of 24.0 h" in out
        assert "A 512, B 400; each arm needs 1000" in out

    def test_a_comparison_is_told_and_drawn(self, run: Run, fleet: FakeFleet) -> None:
        """In words, with a chart in which all metrics stand on one scale; as JSON it is the fleet's answer."""
        fleet.compared = OBSERVED | {"state": "succeeded", "compared": COMPARED, "kept": "B"}
        code, out, _ = run("rollout", "compare", "ab")
        assert 0 == code
        assert "comparison 1: a trade-off: B is faster (p95), but is less confident" in out
        assert "-9.5% B better" in out
        assert "kept: B" in out
        assert max(map(len, out.splitlines())) <= 100
        assert fleet.compared == json.loads(run("rollout", "compare", "ab", "--json")[1])
        fleet.compared = OBSERVED | {"compared": COMPARED | {"result": "not_enough_data"}}
        assert 4 == run("rollout", "compare", "ab")[0]

    def test_a_conclusion_names_the_rest(self, run: Run, fleet: FakeFleet) -> None:
        """The rollout to the rest has the rollout's name unless another is given."""
        code, out, _ = run("rollout", "conclude", "ab", "--keep", "B")
        assert (0, {"keep": "B", "rollout": "ab-rest"}) == (code, fleet.requests[-1][2])
        assert "ab: kept B" in out
        run("rollout", "conclude", "ab", "--keep", "A", "--rollout", "x", "--waves", "50%,100%", "--draft")
        assert {"keep": "A", "rollout": "x", "waves": [50, 100], "start": False} == fleet.requests[-1][2]
        assert "every device stays as it is" in run("rollout", "conclude", "ab", "--keep", "both")[1]
        assert 2 == run("rollout", "conclude", "ab", "--keep", "C")[0]


def test_the_picture_has_a_panel_a_comparison() -> None:
    """Metrics that were not measured are left out; it is valid XML."""
    import msgspec

    view = msgspec.convert(COMPARED, ComparedView)
    assert isinstance(view.differences[0], DifferenceView)
    (chart,) = arm_charts([view])
    assert 3 == len(chart.splitlines()), "a title and two metrics"
    assert 2 == chart.splitlines()[1].count("┃"), "both margins are marked"
    drawn = ET.fromstring(svg([], [view]))
    assert 2 == len(drawn.findall(".//{http://www.w3.org/2000/svg}circle"))
