"""How values are written on the operator's command line."""

from __future__ import annotations

from collections.abc import Callable

import click
import pytest

from edgeopt.cli.operate_options import duration, share, tag, waves


@pytest.mark.parametrize(("text", "seconds"), [("90", 90), ("60s", 60), ("5m", 300), ("1.5h", 5400), ("1d", 86400)])
def test_durations(text: str, seconds: float) -> None:
    """Seconds unless a unit follows."""
    assert seconds == duration(text)


@pytest.mark.parametrize(("text", "number"), [("10%", 0.1), ("0.1", 0.1), ("0", 0), ("100%", 1), ("2.5%", 0.025)])
def test_shares(text: str, number: float) -> None:
    """Percent or a number up to one."""
    assert pytest.approx(number) == share(text)


@pytest.mark.parametrize(("text", "percents"), [("100%", (100,)), ("20%,50%,100%", (20, 50, 100)), ("1, 2", (1, 2))])
def test_waves(text: str, percents: tuple[int, ...]) -> None:
    """The percent sign may be left out."""
    assert percents == waves(text)


def test_a_tag_may_hold_an_equals_sign() -> None:
    """Only the first one separates."""
    assert ("key", "a=b") == tag("key=a=b")


@pytest.mark.parametrize(
    ("read", "text"),
    [
        *((duration, text) for text in ("", "-1", "1w", "1 s", "nan", "1e3")),
        *((share, text) for text in ("", "101%", "1.1", "-1%", "nan", "%")),
        *((waves, text) for text in ("", "0%", "50%,50%", "50%,20%", "101%", "20;50", "20%,", "x")),
        *((tag, text) for text in ("", "=", "=x", "site")),
    ],
)
def test_nonsense_is_refused(read: Callable[[str], object], text: str) -> None:
    """With what was expected and what came."""
    with pytest.raises(click.BadParameter, match=r"expected .* like .*, got "):
        read(text)
