"""Settings that cannot be."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgeopt_agent.config import AgentConfig
from edgeopt_contract.errors import UsageError


@pytest.mark.parametrize(
    "setting",
    [
        {"window_seconds": 0},
        {"window_seconds": float("nan")},
        {"threads": 0},
        {"interval_seconds": -1},
        {"interval_seconds": float("nan")},
        {"infer_timeout_seconds": -3},
        {"block_timeout_seconds": 0},
        {"resend_seconds": 0},
    ],
)
def test_value_that_cannot_be_is_refused(setting: dict[str, float]) -> None:
    """Zero, negative numbers and NaN where a duration or a count is needed."""
    with pytest.raises(UsageError, match="expected"):
        AgentConfig(data=Path(), **setting)


def test_defaults_are_accepted() -> None:
    """Only the data directory has no default."""
    assert 60 == AgentConfig(data=Path()).window_seconds
