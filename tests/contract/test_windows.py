"""Maintenance windows against a calendar."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeopt_contract.windows import DAYS, Window

MONDAY = datetime(2026, 11, 23, tzinfo=UTC).timestamp()
TIMES = st.builds("{:02}:{:02}".format, st.integers(0, 23), st.integers(0, 59))
WINDOWS = st.builds(Window, start=TIMES, end=TIMES, days=st.lists(st.sampled_from(DAYS), unique=True).map(tuple))


@pytest.mark.parametrize(
    ("window", "hours", "offset_hours", "expected_hours"),
    [
        (Window(start="02:00", end="04:00"), 0, 0, 2),
        (Window(start="02:00", end="04:00"), 3, 0, 0),
        (Window(start="02:00", end="04:00"), 4, 0, 22),
        (Window(start="02:00", end="04:00"), 0, 2, 0),
        (Window(start="02:00", end="04:00"), 0, -5, 7),
        (Window(start="22:00", end="04:00", days=("sun",)), 3, 0, 0),  # Sunday's window, on Monday morning
        (Window(start="22:00", end="04:00", days=("mon",)), 3, 0, 19),
        (Window(start="22:00", end="04:00", days=("sun",)), 4, 0, 6 * 24 + 18),
        (Window(start="06:00", end="06:00", days=("mon",)), 29, 0, 0),  # 24 hours
        (Window(start="06:00", end="06:00", days=("mon",)), 30, 0, 6 * 24),
    ],
)
def test_wait_until_a_window_opens(window: Window, hours: int, offset_hours: int, expected_hours: float) -> None:
    """Hours are those of the device's zone; a window past midnight belongs to the day on which it starts."""
    assert expected_hours * 3600 == window.wait_seconds(MONDAY + hours * 3600, offset_hours * 3600)


@given(WINDOWS, st.integers(0, 10**7).map(lambda minutes: minutes * 60), st.integers(-12, 14))
def test_window_is_open_when_the_wait_is_over_and_not_before(window: Window, now: int, hours: int) -> None:
    """Walking the calendar minute by minute finds the same opening."""
    zone = timezone(timedelta(hours=hours))

    def is_open(moment: float) -> bool:
        local = datetime.fromtimestamp(moment, zone)
        clock = f"{local:%H:%M}"
        today, before = DAYS[local.weekday()], DAYS[local.weekday() - 1]
        wanted = window.days or DAYS
        if window.start < window.end:
            return today in wanted and window.start <= clock < window.end
        return (today in wanted and clock >= window.start) or (before in wanted and clock < window.end)

    wait = window.wait_seconds(now, hours * 3600)
    assert 0 <= wait <= 7 * 86400
    assert is_open(now + wait)
    assert wait == 0 or not is_open(now + wait - 60)
    assert (wait == 0) == is_open(now)


@pytest.mark.parametrize("fields", [{"start": "24:00"}, {"end": "4:00"}, {"days": ("mo",)}, {"days": ("mon", "mon")}])
def test_what_is_no_window_cannot_be_made(fields: dict[str, object]) -> None:
    """A wrong day or time is refused where it is written."""
    with pytest.raises(ValueError, match="expected a window"):
        Window(**{"start": "22:00", "end": "04:00", **fields})  # type: ignore[arg-type]  # wrong on purpose


@given(WINDOWS, st.integers(0, 14 * 24 * 60))
def test_no_wait_is_longer_than_the_longest(window: Window, minute: int) -> None:
    """Whoever is excused for a window's longest wait is excused for every wait."""
    assert window.longest_wait_seconds >= window.wait_seconds(minute * 60.0, 0)


def test_the_longest_wait() -> None:
    """Daily 02:00-04:00 is closed for 22 hours, one day of 24 hours in a week for six, and always open for none."""
    hours = [
        Window(start="02:00", end="04:00").longest_wait_seconds / 3600,
        Window(start="06:00", end="06:00", days=("mon",)).longest_wait_seconds / 3600,
        Window(start="00:00", end="00:00").longest_wait_seconds / 3600,
    ]
    assert [22.0, 144.0, 0.0] == hours
