"""What people see: whatever devices and fleets say, the terminal stays whole and no change is told twice."""

from __future__ import annotations

import copy
import io
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console, RenderableType

from edgeopt.cli.operate_cells import plain
from edgeopt.cli.operate_records import AlertView, BundleView, CohortView, DeviceView, RolloutView, read
from edgeopt.cli.operate_views import (
    alerts_table,
    bundles_table,
    changes,
    cohorts_table,
    device_page,
    devices_table,
    rollout_page,
    rollouts_table,
)
from edgeopt_contract.errors import MessageError
from tests.optimizer.operate_fake import ALERT, device_view, rollout_view

VIEWS: dict[type[Any], dict[str, Any]] = {
    DeviceView: device_view("cam-1", site="oslo"),
    RolloutView: rollout_view("running"),
    AlertView: ALERT,
    CohortView: {"name": "oslo", "tags": {"site": "oslo"}, "devices": ["cam-1"]},
    BundleView: {"digest": "a" * 64, "name": "digits", "version": "1", "complete": False},
}
JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


def shown(renderable: RenderableType) -> str:
    """What a terminal without colours would get."""
    console = Console(file=io.StringIO(), width=120, color_system=None)
    console.print(renderable)
    return console.file.getvalue()  # type: ignore[attr-defined]  # the StringIO from above


def page_of(view: Any) -> RenderableType:
    """The page or table that shows ``view``."""
    if isinstance(view, DeviceView):
        return device_page(view)
    if isinstance(view, RolloutView):
        return rollout_page(view)
    table = {AlertView: alerts_table, CohortView: cohorts_table, BundleView: bundles_table}[type(view)]
    return table([view])


@given(text=st.text())
def test_no_text_paints_the_terminal(text: str) -> None:
    """Control characters, line breaks and invisible ones are replaced, one for one; markup is text."""
    assert plain(text).plain.isprintable()
    assert len(text) == len(plain(text).plain)
    assert "[red]x[/red]" == plain("[red]x[/red]").plain


@pytest.mark.parametrize("kind", VIEWS, ids=lambda kind: kind.__name__)
@given(data=st.data())
def test_any_answer_is_shown_or_refused(kind: type[Any], data: st.DataObject) -> None:
    """An answer of another version is one clear error; whatever can be read is shown without control characters."""
    answer = copy.deepcopy(VIEWS[kind])
    for field in data.draw(st.sets(st.sampled_from(sorted(answer)), max_size=2), "fields"):
        answer[field] = data.draw(JSON_VALUES, field)
    try:
        view = read(kind, answer)
    except MessageError as error:
        assert f"not a {kind.__name__}" in str(error)  # noqa: PT017  # both outcomes are right
        return
    assert all(character.isprintable() or character == "\n" for character in shown(page_of(view)))


def test_tables_have_a_line_for_each() -> None:
    """And the names that the operator looks for."""
    device = read(DeviceView, VIEWS[DeviceView])
    rollout = read(RolloutView, VIEWS[RolloutView])
    assert 3 == len(shown(devices_table([device, device], 0.0)).splitlines())
    assert ["v2", "b" * 12, "all", "running", "1", "of", "2"] == shown(rollouts_table([rollout])).splitlines()[
        1
    ].split()[:7]


def test_a_list_of_rollouts_counts_devices_that_it_does_not_name() -> None:
    """A fleet leaves the names of a wave's devices out of lists, not their number."""
    answer = rollout_view("running")
    answer["waves"] = [{**wave, "members": 70, "devices": []} for wave in answer["waves"]]
    listed = shown(rollouts_table([read(RolloutView, answer)])).splitlines()
    column = listed[0].split().index("devices") + 2  # a wave is three words: 1 of 2
    assert str(70 * len(answer["waves"])) == listed[1].split()[column]


def test_a_device_that_never_was_there_is_shown() -> None:
    """Enrolled, and not a word since."""
    silent = {"id": "cam-1", "tags": {}, "online": False, "running": None, "update": None, "last_seen": None}
    assert "nothing" in shown(device_page(read(DeviceView, silent)))
    assert ["offline", "-", "-", "never"] == shown(devices_table([read(DeviceView, silent)], 0.0)).split()[8:12]


@pytest.mark.parametrize("seconds", [-1, 1e300, 32_503_680_000])
def test_a_clock_that_is_far_off_is_shown(seconds: float) -> None:
    """A device without a clock battery says what it says."""
    device = read(DeviceView, {**VIEWS[DeviceView], "last_seen": seconds})
    assert f"{seconds:g} s" in shown(device_page(device))
    assert shown(devices_table([device], 1_795_300_000.0)).splitlines()[1].split()[4].isdecimal()


@pytest.mark.parametrize("capabilities", [{"arch": "x"}, {"arch": "x", "features": 5, "runtimes": {}}])
def test_capabilities_of_another_version_are_refused(capabilities: dict[str, Any]) -> None:
    """With the field that cannot be read."""
    with pytest.raises(MessageError, match=r"at `\$\.capabilities|`\$\.capabilities"):
        read(DeviceView, {**VIEWS[DeviceView], "capabilities": capabilities})


STATES = st.sampled_from(["waiting", "offered", "downloading", "confirmed", "failed"])


@given(steps=st.lists(st.tuples(STATES, STATES, st.sampled_from(["running", "paused"])), min_size=1, max_size=8))
def test_changes_tell_everything_once(steps: list[tuple[str, str, str]]) -> None:
    """Told line by line, a rollout's course is complete, and looking twice tells nothing more."""
    before: RolloutView | None = None
    last = {"cam-0": "waiting", "cam-1": "waiting"}
    for first, second, state in steps:
        answer = rollout_view(state)
        for member, told in zip(answer["members"], (first, second), strict=True):
            member["state"] = told
        now = read(RolloutView, answer)
        lines = changes(before, now)
        for device, told in (("cam-0", first), ("cam-1", second)):
            assert (last[device] != told) == any(f": {device} {told}" in line for line in lines)
            last[device] = told
        assert (before is None or before.state != state) == (f"rollout v2 {state}" in lines)
        assert [] == changes(now, now)
        before = now


def test_a_rollout_says_when_devices_switch_and_why_one_failed() -> None:
    """The reason of the failure stands there although the device's last report, on its way back, has none."""
    view = rollout_view("rolled_back")
    view["policy"] = {"window": {"start": "02:00", "end": "04:00", "days": ["sat"]}, "not_before": 1_795_300_000}
    view["members"][0] |= {"state": "rolled_back", "detail": "", "failure": "disk full"}
    rollout = read(RolloutView, view)
    page = shown(rollout_page(rollout))
    assert "devices switch sat 02:00-04:00, by their local time" in page
    assert "devices switch not before 2026-11-22 05:46:40Z" not in shown(
        rollout_page(read(RolloutView, rollout_view("running")))
    )
    assert "devices switch not before 2026-" in page
    assert "disk full" in page
    assert any("rolled_back (disk full)" in line for line in changes(None, rollout))


def test_a_device_shows_its_gauges_and_last_reports() -> None:
    """In units that people read; what a device says is shown without markup."""
    view = device_view("cam-1")
    view["gauges"] = {"temperature_celsius": 61.25, "disk_free_bytes": 2.1e9, "load": 0.5}
    view["gauges_at"] = 1_795_300_000
    view["reports"] = [
        {"at": 1_795_300_000, "job": "v2.1.cam-1", "bundle": "b" * 64, "state": "failed", "detail": "[red]full"}
    ]
    page = shown(device_page(read(DeviceView, view)))
    assert "disk_free 2100.0 MB, load 0.5, temperature 61.2 °C" in page
    assert "v2.1.cam-1 failed: [red]full" in page
