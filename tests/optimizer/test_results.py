"""The records of a run, and the file that keeps them."""

from __future__ import annotations

import pytest

from edgeopt.results import from_json, to_json
from edgeopt_contract.errors import UsageError
from tests.optimizer.runs import a_run


def test_a_report_reads_back_as_the_run_that_wrote_it() -> None:
    """Every record survives JSON."""
    assert a_run() == from_json(to_json(a_run()))


@pytest.mark.parametrize("data", [b"", b"[]", b"{}", b'{"schema": 1}', b'{"schema": 2}', b"\xff", b"[" * 100_000])
def test_what_is_no_report_is_refused(data: bytes) -> None:
    """Nonsense, an older report, and one that lacks everything."""
    with pytest.raises(UsageError, match=r"no report of edgeopt|run edgeopt again"):
        from_json(data)
