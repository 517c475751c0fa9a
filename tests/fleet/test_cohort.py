from __future__ import annotations

from edgeopt_fleet.cohort import EVERYONE, matches, most_specific


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
