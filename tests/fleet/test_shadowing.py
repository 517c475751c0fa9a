"""What a device compared, added up: how many windows stand behind the rows of a class."""

from __future__ import annotations

import pytest

from edgeopt_fleet.shadowing import Compared, class_windows
from tests.fleet.shadow_world import shadow_window


def compared(*windows: tuple[int, int]) -> Compared:
    """Return windows with so many rows of the first and of the second class."""
    total = Compared()
    for number, (first, second) in enumerate(windows, 1):
        window = shadow_window("0" * 64, number, "next", agreed=first + second, classes=((first, second, 0), (0, 0, 0)))
        total = total.add(Compared.of(window))
    return total


def test_rows_of_a_class_tell_as_much_as_the_windows_that_could_hold_them_alone() -> None:
    """A hundred rows in windows of ten are ten windows or more; fewer rows than a window holds are one."""
    one = compared(*[(5, 5)] * 20)
    assert [10, 10, 0] == pytest.approx(list(class_windows([one])))
    assert [1, 9.9, 0] == pytest.approx(list(class_windows([compared((1, 9), *[(0, 10)] * 9)])))
    assert [20, 20, 0] == pytest.approx(list(class_windows([one, one])))


def test_one_window_with_most_rows_of_a_class_is_little_more_than_one() -> None:
    """However many windows other devices have: a busy camera that looks at one thing does not speak for its class."""
    still, busy = compared((10_000, 0)), compared(*[(1, 9)] * 100)
    first, second, _ = class_windows([still, busy])
    assert 1 <= first < 1.1
    assert 90 <= second <= 100


def test_without_classes_or_rows_there_is_nothing() -> None:
    """Of a model without class scores, and of a device that has compared nothing yet."""
    assert [] == list(class_windows([Compared()]))
    assert [] == list(class_windows([]))
