from __future__ import annotations

import pytest

from devices.emulator.conditions import PRESETS, Conditions
from devices.emulator.orders import (
    Conditioned,
    Cut,
    Order,
    Outage,
    Quit,
    SwitchOn,
    Temperature,
    read_conditions,
    read_order,
)
from edgeopt_contract.errors import UsageError


@pytest.mark.parametrize(
    ("line", "order"),
    [
        ("temp pi 85", Temperature("pi", 85.0)),
        ("  temp  pi  -10.5 ", Temperature("pi", -10.5)),
        ("cut pi", Cut("pi")),
        ("on pi", SwitchOn("pi")),
        ("link pi 3G", Conditioned("pi", PRESETS["3G"])),
        ("link pi loss=0.1 delay_ms=5", Conditioned("pi", Conditions(loss=0.1, delay_ms=5))),
        ("outage pi 14", Outage("pi", 14.0)),
        ("quit", Quit()),
    ],
)
def test_orders_are_read(line: str, order: Order) -> None:
    """Each order that the help line names."""
    assert order == read_order(line, ("pi", "nano"))


@pytest.mark.parametrize(
    "line",
    ["", "temp pi", "temp pi hot", "temp pi 1000", "temp pi nan", "cut", "cut other", "on pi now", "link pi",
     "link pi 5G", "link pi loss=much", "link pi speed=3", "link pi down=1", "outage pi -1", "reboot pi"],
)  # fmt: skip
def test_what_makes_no_sense_is_answered(line: str) -> None:
    """A slip of the hand is no traceback: the message says what was expected."""
    with pytest.raises(UsageError, match="expected"):
        read_order(line, ("pi",))


def test_a_named_link_can_be_changed() -> None:
    """Words after the name change what it stands for."""
    link = read_conditions(["3G", "loss=0.3", "queue_bytes=4000", "down=true"])
    assert (PRESETS["3G"].delay_ms, 0.3, 4000, True) == (link.delay_ms, link.loss, link.queue_bytes, link.down)
