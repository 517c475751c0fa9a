from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeopt_fleet.cohort import EVERYONE, check_waves, matches, most_specific, split_into_waves

NAMES = st.sets(st.text("abcdef0123456789", min_size=1, max_size=8), max_size=60)
WAVES = st.sets(st.integers(1, 100), min_size=1, max_size=6).map(lambda percents: tuple(sorted(percents)))


@given(devices=NAMES, waves=WAVES, rollout=st.text("xyz-1", min_size=1, max_size=6))
def test_no_device_is_in_two_waves_and_all_are_reached_at_100_percent(
    devices: set[str], waves: tuple[int, ...], rollout: str
) -> None:
    """Waves are disjoint, as large as their percent at least where enough devices are left, and complete at 100 %."""
    groups = split_into_waves(rollout, devices, waves)

    members = [device for group in groups for device in group]
    assert len(members) == len(set(members))
    assert set(members) <= devices
    assert len(waves) == len(groups)
    if waves[-1] == 100:
        assert set(members) == devices
    if len(devices) >= len(waves):
        assert all(groups)


@given(devices=NAMES, waves=WAVES, rollout=st.text("xyz-1", min_size=1, max_size=6))
def test_membership_is_sticky(devices: set[str], waves: tuple[int, ...], rollout: str) -> None:
    """The waves depend on the names only, not on the order in which devices are listed."""
    assert split_into_waves(rollout, sorted(devices), waves) == split_into_waves(
        rollout, sorted(devices, reverse=True), waves
    )


def test_different_rollouts_begin_with_different_devices() -> None:
    """No device is always the canary."""
    devices = [f"cam-{number}" for number in range(50)]
    firsts = {split_into_waves(f"rollout-{number}", devices, (1, 100))[0] for number in range(50)}
    assert len(firsts) > 20


@pytest.mark.parametrize(
    ("devices", "waves", "sizes"),
    [
        (10, (20, 50, 100), [2, 3, 5]),
        (5, (20, 50, 100), [1, 2, 2]),
        (3, (20, 50, 100), [1, 1, 1]),
        (3, (90, 95, 100), [1, 1, 1]),
        (1, (20, 50, 100), [1, 0, 0]),
        (0, (100,), [0]),
        (10, (10, 30), [1, 2]),
        (6, (20, 50, 100), [2, 1, 3]),
    ],
)
def test_sizes_of_waves(devices: int, waves: tuple[int, ...], sizes: list[int]) -> None:
    """Shares round up; the first wave always has somebody; the last one is not starved."""
    assert sizes == [len(group) for group in split_into_waves("r", [f"d{n}" for n in range(devices)], waves)]


@pytest.mark.parametrize("waves", [(), (0,), (101,), (50, 50), (50, 20), tuple(range(1, 22))])
def test_wrong_waves_are_refused(waves: tuple[int, ...]) -> None:
    """Waves must be cumulative percents."""
    with pytest.raises(ValueError, match="expected"):
        check_waves(waves)


def test_matches_needs_every_wanted_tag() -> None:
    """A filter is a conjunction; an empty one matches everybody."""
    assert matches({}, {})
    assert matches({"site": "oslo"}, {"site": "oslo", "line": "2"})
    assert not matches({"site": "oslo", "line": "1"}, {"site": "oslo"})
    assert not matches({"site": "oslo"}, {"site": "lima"})


def test_a_device_counts_for_its_most_specific_cohorts() -> None:
    """A change at one site is not told again by the cohorts around it."""
    oslo, lima, rest = frozenset({"o1", "o2"}), frozenset({"l1"}), frozenset({"x"})
    own = most_specific({EVERYONE: oslo | lima | rest, "oslo": oslo, "lima": lima, "nordic": oslo | rest})
    assert {EVERYONE: frozenset(), "oslo": oslo, "lima": lima, "nordic": rest} == own


def test_everyone_gives_way_to_an_equal_cohort() -> None:
    """A saved cohort of all devices keeps them; ``all`` does not repeat what it says."""
    devices = frozenset({"a", "b"})
    assert {EVERYONE: frozenset(), "fleet": devices} == most_specific({EVERYONE: devices, "fleet": devices})
    assert {EVERYONE: devices} == most_specific({EVERYONE: devices})
