"""A real agent is killed, refused by its disk, or unplugged at every call by which it changes the disk in an update.

After each the device serves a verified model, the update converges, nothing is left behind, and what had come is not
fetched again. The calls are those of one undisturbed update from v1 to v2, from the start of the agent to its end.
"""

from __future__ import annotations

import errno
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.sweep.conftest import Sweep
from tests.sweep.disk import why_no_disk

pytestmark = [pytest.mark.sweep, pytest.mark.timeout(1800)]

_CUTS = 24
_IS_TRIED_AGAIN = re.compile(r" (incoming/|trust|slots/\.[ab]\.)")  # downloading, verifying, the check of trust
_SYNCS = ("fsync", "fdatasync", "rename")


def judge(title: str, outcomes: list[dict[str, Any]], capsys: pytest.CaptureFixture[str]) -> None:
    """Print the figures, and fail with all that did not hold."""
    names = Counter(outcome["call"].rpartition(": ")[2].split()[0] for outcome in outcomes if outcome["call"])
    ways = Counter(outcome["way"] for outcome in outcomes)
    refetched = max(outcome["refetched"] for outcome in outcomes)
    with capsys.disabled():
        print(f"\n{title}: {len(outcomes)} points; at most {refetched} block fetched again")
        print("  calls: " + ", ".join(f"{name} {count}" for name, count in names.most_common()))
        print("  then:  " + ", ".join(f"{way} {count}" for way, count in ways.most_common()))
    bad = {outcome["call"]: outcome["faults"] for outcome in outcomes if outcome["faults"]}
    assert {} == bad


def test_update_changes_the_disk_by_the_same_calls_every_time(sweep: Sweep) -> None:
    """The points have numbers that mean the same in every run, and there are enough of them to mean something."""
    first, second = ([call["name"] for call in calls] for calls in sweep.recorded)
    assert len(first) == len(second)
    assert Counter(first) == Counter(second)
    assert {"write", "pwrite64", "fsync", "fdatasync", "rename", "unlink", "openat", "mkdir", "symlink"} <= set(first)
    assert 150 <= len(first)


def test_kill_at_every_call(sweep: Sweep, capsys: pytest.CaptureFixture[str]) -> None:
    """SIGKILL before the call takes effect: the next start carries on."""
    numbers = sweep.for_kills()
    outcomes = sweep.all([{"do": "kill", "number": n} for n in numbers])
    judge(f"killed (left out: {len(sweep.calls) - len(numbers)} pages amid a commit)", outcomes, capsys)


@pytest.mark.parametrize("error", [errno.EIO, errno.ENOSPC], ids=errno.errorcode.get)
def test_error_of_the_disk_at_every_call(sweep: Sweep, error: int, capsys: pytest.CaptureFixture[str]) -> None:
    """The call fails once: the agent goes on, reports a failed update, or ends with a message; then it converges."""
    numbers = sweep.for_errors()
    outcomes = sweep.all([{"do": "fail", "number": n, "error": error} for n in numbers])
    left_out = len(sweep.calls) - len(numbers)
    judge(f"{errno.errorcode[error]} (left out: {left_out} other pages of the same commits)", outcomes, capsys)
    gave_up = [outcome["call"] for outcome in outcomes if not outcome["way"].startswith("went on")]
    assert [] == [call for call in gave_up if _IS_TRIED_AGAIN.search(call)], "a disk that refuses once ends no download"


def test_unplugged_after_what_should_be_safe(sweep: Sweep, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The disk loses everything that was not synced, right after a sync or a rename."""
    reason = why_no_disk(tmp_path)
    if reason:
        pytest.skip(reason)
    after = [call["number"] + 1 for call in sweep.calls[:-1] if call["name"] in _SYNCS]
    sample = sorted({after[i * (len(after) - 1) // (_CUTS - 1)] for i in range(_CUTS)})
    judge("unplugged", sweep.all([{"do": "cut", "number": n} for n in sample]), capsys)
    assert 20 <= len(sample)
