"""An order at the device: what is kept, what is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from edgeopt_agent.reports.spool import Spool
from edgeopt_agent.update.journal import Journal
from edgeopt_agent.update.lifecycle import State, Update
from edgeopt_agent.update.orders import order_back
from edgeopt_contract.errors import UsageError
from tests.agent.conftest import Signer, write_identity

RESTED = Update(state=State.CONFIRMED, committed="b", fallback="a", settled=True)


@pytest.fixture
def data(tmp_path: Path, signer: Signer) -> Path:
    """An enrolled device on which no agent runs."""
    data = tmp_path / "device"
    write_identity(data, signer, 1)
    return data


def journal(data: Path) -> Journal:
    """The journal of ``data``."""
    return Journal(Spool.open(data / "agent.db", now_ms=1))


def test_order_is_kept_until_it_is_forgotten(data: Path) -> None:
    """Without a running agent the order waits for the next start."""
    journal(data).save(RESTED)
    assert order_back(data) is False
    assert journal(data).is_ordered_back()
    journal(data).forget_order()
    assert not journal(data).is_ordered_back()


def test_order_that_cannot_be_carried_out_is_refused_with_the_reason(data: Path) -> None:
    """Whoever types it learns at once why not, and nothing is kept."""
    with pytest.raises(UsageError, match="no agent has run on"):
        order_back(data)
    journal(data).save(replace(RESTED, fallback=None))
    with pytest.raises(UsageError, match="cannot go back: the bundle before is not on this device any more"):
        order_back(data)
    assert not journal(data).is_ordered_back()
