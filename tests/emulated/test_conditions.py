from __future__ import annotations

import pytest

from devices.emulator.conditions import PRESETS, Conditions, changed
from edgeopt_contract.errors import UsageError


def test_3g_is_the_bad_network_that_the_delivery_is_held_against() -> None:
    """The named link has the issue's figures: 200 ms, 5 % loss, 384 kbit/s."""
    link = PRESETS["3G"]
    assert (200, 0.05, 384_000) == (link.delay_ms, link.loss, link.rate_bits)


@pytest.mark.parametrize(
    "wrong",
    [
        {"delay_ms": -1},
        {"delay_ms": 1e9},
        {"jitter_ms": -0.1},
        {"loss": 1.1},
        {"loss": float("nan")},
        {"rate_bits": -1},
        {"rate_bits": float("nan")},
        {"queue_bytes": 100},
    ],
)
def test_wrong_conditions_cannot_exist(wrong: dict[str, float]) -> None:
    """A value that no link has is refused, and the message names it."""
    with pytest.raises(UsageError, match=next(iter(wrong))):
        Conditions(**wrong)


def test_changes_keep_the_rest() -> None:
    """A change touches what it names and nothing else."""
    assert Conditions(delay_ms=200, loss=0.3) == changed(Conditions(delay_ms=200, loss=0.05), {"loss": 0.3})


@pytest.mark.parametrize("change", [{"speed": 1}, {"loss": "much"}, {"loss": True}, {"down": 1}, {"delay_ms": None}])
def test_changes_of_the_wrong_kind_are_refused(change: dict[str, object]) -> None:
    """Unknown names and wrong types are the user's mistake, not a traceback."""
    with pytest.raises(UsageError, match=next(iter(change))):
        changed(Conditions(), change)
